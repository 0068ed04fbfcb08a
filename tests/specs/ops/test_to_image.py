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


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounding", ["nearest", "down"])
@pytest.mark.parametrize(
    ("layout", "shape"), [("CHW", (3, 3, 1, 7)), ("HWC", (1, 5, 1, 3)), ("CHW", (3, 1, 2, 2))]
)
def test_every_execution_gives_the_same(
    executions: RunStep, dtype: str, rounding: Any, layout: Any, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(120, 120, shape).clip(-128, 500)
    numbers.flat[:2] = [0.5, 1.5]
    x = numbers.clip(0, 100).astype(dtype) if dtype in ("int8", "uint8") else numbers.astype(dtype)
    if dtype.startswith("float"):
        x[-1].flat[:3] = [np.nan, np.inf, -np.inf]
    op = ToImage(layout=layout, rounding=rounding)
    found = executions(op, Value("tensor", dtype, ("batch", *shape[1:])), x)
    for name in ("python", "graph"):
        assert found[name].dtype == np.uint8, name
        assert found[name].shape == found["reference"].shape, name
        assert (found[name] == found["reference"]).all(), name


@pytest.mark.parametrize(
    ("layout", "shape"), [("CHW", ("batch", 1, "h", 5)), ("HWC", ("batch", "h", 5, 1))]
)
def test_the_result_tells_the_pictures_sides(layout: Any, shape: Any) -> None:
    assert ToImage(layout=layout).flow(PLANES.but(shape=shape)).shape == ("batch", "h", 5, 3)
