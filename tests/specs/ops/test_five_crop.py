from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops._source import BadInput
from specs.ops.center_crop import CenterCrop
from specs.ops.five_crop import FiveCrop
from specs.ops.pad import Pad
from specs.ops.resize import Resize
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


@pytest.mark.parametrize("shape", [(20, 20), (9, 8), (10, 40), (15, 13)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_execution_gives_torchvisions_crops(
    executions: RunStep, rng: np.random.Generator, image: Value, shape: tuple[int, int], dtype: str
) -> None:
    x = rng.integers(0, 256, (*shape, 3)).astype(dtype)
    op = FiveCrop(size=(9, 8))
    found = executions(op, image.but(dtype=dtype), x)
    assert np.array_equal(found["python"], found["reference"])
    assert np.array_equal(found["graph"], found["reference"])
    assert found["graph"].shape == op.flow(image).shape == (5, 9, 8, 3)
    assert found["graph"].dtype == x.dtype


def test_one_number_means_a_square(image: Value) -> None:
    assert FiveCrop.model_validate({"five_crop": 7}).flow(image).shape == (5, 7, 7, 3)


def test_a_smaller_image_is_refused_before_the_graph_too(
    run_step: RunStep, follow: RunStep, image: Value
) -> None:
    message = "the image has 5x9 pixels where it is cropped, at least 8x9 are needed"
    with pytest.raises(BadInput, match=message) as caught:
        run_step(FiveCrop(size=(9, 8)), image, np.zeros((9, 5, 3), np.uint8))
    assert (caught.value.code, caught.value.hint) == ("too_small", "send a larger image")
    with pytest.raises(BadInput, match=message):
        follow(FiveCrop(size=(9, 8)), image, np.array([1, 1, 0, 0, 9, 5, 9, 5.0]))


def test_a_size_that_is_known_to_be_too_small_is_refused_in_the_spec(image: Value) -> None:
    with pytest.raises(FlowError, match="five_crop takes 9x9 out of 8x20"):
        FiveCrop(size=9).flow(image.but(shape=(8, 20, 3)))


@pytest.mark.parametrize(
    "op", [Resize(size=(4, 4)), CenterCrop(size=4), Pad(all=1), FiveCrop(size=4)]
)
def test_crops_are_not_cropped_or_resized_again(image: Value, op: Any) -> None:
    with pytest.raises(FlowError, match="takes one image, found 5 crops") as caught:
        op.flow(FiveCrop(size=7).flow(image))
    assert caught.value.hint == f"put {op.name} before - five_crop"
