from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specs.ops.center_crop import CenterCrop
from specs.values import FlowError, Value

transforms: Any = pytest.importorskip("torchvision.transforms")

RunStep = Callable[..., Any]


@pytest.mark.parametrize("shape", [(20, 20), (21, 24), (23, 8), (5, 40), (1, 1), (10, 7), (9, 9)])
@pytest.mark.parametrize("size", [(9, 9), (8, 11), (10, 10)])
def test_it_is_torchvisions_pixel_for_pixel(
    run_step: RunStep, image: Value, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    x = np.random.default_rng(0).integers(1, 256, (*shape, 3), np.uint8)
    result = run_step(CenterCrop(size=size), image, x)
    assert np.array_equal(result, np.asarray(transforms.CenterCrop(size)(Image.fromarray(x))))


def test_one_number_means_a_square(image: Value) -> None:
    assert CenterCrop.model_validate({"center_crop": 224}).flow(image).shape == (224, 224, 3)


def test_it_stands_before_layout(image: Value) -> None:
    with pytest.raises(FlowError, match="found layout CHW"):
        CenterCrop(size=4).flow(image.but(layout="CHW", shape=(3, "height", "width")))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", [(20, 20), (23, 8), (5, 40), (1, 1), (12, 13)])
def test_every_execution_gives_the_same(
    executions: RunStep, image: Value, shape: tuple[int, int], dtype: str
) -> None:
    x = np.random.default_rng(0).integers(1, 256, (*shape, 3)).astype(dtype)
    found = executions(CenterCrop(size=(9, 8)), image.but(dtype=dtype), x)
    assert np.array_equal(found["python"], found["reference"])
    assert np.array_equal(found["graph"], found["reference"])
    assert found["graph"].dtype == x.dtype


@pytest.mark.parametrize("length", range(1, 16))
def test_the_graph_rounds_half_a_pixel_to_even(
    executions: RunStep, image: Value, length: int
) -> None:
    x = np.arange(length, dtype=np.uint8).reshape(1, length, 1) + 1
    value = image.but(shape=("height", "width", 1))
    found = executions(CenterCrop(size=(1, 8)), value, x)
    assert np.array_equal(found["graph"], found["reference"])
