from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.to_image import ToImage
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
PLANES = Value("tensor", "float32", ("batch", 3, "height", "width"))


@pytest.mark.filterwarnings("error")
def test_values_are_rounded_clipped_and_put_in_order(run_step: RunStep) -> None:
    x = np.array([-5, 1.5, 2.5, 254.6, 1e9, np.nan], np.float32).reshape(1, 3, 1, 2)
    result = run_step(ToImage(), PLANES, x)
    assert result.dtype == np.uint8
    assert result.tolist() == [[[[0, 2, 255], [2, 255, 0]]]]


def test_rounding_down_is_torchvisions(run_step: RunStep) -> None:
    x = np.full((1, 3, 1, 1), 1.9)
    assert run_step(ToImage(rounding="down"), PLANES, x).ravel().tolist() == [1, 1, 1]


def test_grey_becomes_three_equal_channels(run_step: RunStep) -> None:
    value = PLANES.but(shape=("batch", "height", "width", 1))
    result = run_step(ToImage(layout="HWC"), value, np.full((2, 4, 5, 1), 7.0))
    assert result.shape == (2, 4, 5, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (PLANES.but(shape=("batch", 10)), "takes a tensor"),
        (PLANES.but(shape=("batch", 8, 8, 3)), "found 8 in CHW"),
        (PLANES.but(low=0, high=1), "found values up to 1"),
    ],
)
def test_what_is_no_picture_is_refused(value: Value, message: str) -> None:
    with pytest.raises(FlowError, match=message):
        ToImage().flow(value)
