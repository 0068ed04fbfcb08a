from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specs.ops.pad import Pad
from specs.values import FlowError, Value

transforms: Any = pytest.importorskip("torchvision.transforms")

RunStep = Callable[..., Any]


def test_it_is_torchvisions_pixel_for_pixel(run_step: RunStep, image: Value) -> None:
    x = np.random.default_rng(0).integers(1, 256, (5, 7, 3), np.uint8)
    result = run_step(Pad(left=1, top=2, right=3, bottom=4, fill=(9, 8, 7)), image, x)
    assert np.array_equal(
        result, np.asarray(transforms.Pad((1, 2, 3, 4), (9, 8, 7))(Image.fromarray(x)))
    )


def test_a_bare_number_frames_every_side_with_zeros(run_step: RunStep, image: Value) -> None:
    op = Pad.model_validate({"pad": 1})
    result = run_step(op, image, np.ones((2, 2, 3), np.uint8))
    assert result[..., 0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_known_sizes_grow_and_open_ones_stay_open(image: Value) -> None:
    assert Pad(all=2).flow(image).shape == ("height", "width", 3)
    assert Pad(left=2).flow(image.but(shape=(4, 4, 3))).shape == (4, 6, 3)


@pytest.mark.parametrize("options", [{}, {"all": 1, "left": 1}, {"all": -1}])
def test_the_sides_are_given_in_one_way(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected all, or some|greater than or equal"):
        Pad.model_validate({"pad": options})


def test_a_fill_that_the_pixels_cannot_hold_is_refused(image: Value) -> None:
    with pytest.raises(FlowError, match="fills a uint8 image"):
        Pad(all=1, fill=0.5).flow(image)
    with pytest.raises(FlowError, match="2 fill values, the image has 3 channels"):
        Pad(all=1, fill=(1, 2)).flow(image)


@pytest.mark.parametrize(
    "options",
    [
        {"all": 2},
        {"left": 1, "top": 2, "right": 3, "fill": (1, 2, 3)},
        {"to_multiple_of": 32},
        {"all": 1, "to_multiple_of": 8, "fill": 7},
        {"all": 3, "mode": "edge"},
        {"all": 30, "mode": "reflect"},
        {"to_multiple_of": 32, "mode": "reflect"},
    ],
    ids="-".join,
)
def test_every_execution_gives_the_same(
    executions: RunStep, image: Value, options: dict[str, Any]
) -> None:
    op = Pad(**options)
    for dtype, shape in (("uint8", (31, 17)), ("float32", (1, 5)), ("uint8", (32, 64))):
        x = np.random.default_rng(0).integers(1, 256, (*shape, 3)).astype(dtype)
        found = executions(op, image.but(dtype=dtype), x)
        assert np.array_equal(found["python"], found["reference"])
        assert np.array_equal(found["graph"], found["reference"])
        assert found["graph"].dtype == found["python"].dtype == x.dtype


def test_sides_become_multiples_below_and_on_the_right(run_step: RunStep, image: Value) -> None:
    op = Pad(top=1, to_multiple_of=4)
    result = run_step(op, image, np.ones((4, 8, 3), np.uint8))
    assert result.shape == op.flow(image.but(shape=(4, 8, 3))).shape == (8, 8, 3)
    assert result[:, 0, 0].tolist() == [0, 1, 1, 1, 1, 0, 0, 0]


def test_a_fill_goes_with_one_colour_only() -> None:
    with pytest.raises(ValueError, match="fill goes with mode: constant, found edge"):
        Pad(all=1, mode="edge", fill=3)
