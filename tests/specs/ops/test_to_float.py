from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.to_float import ToFloat
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_every_grey_level_is_torchvisions_in_every_execution(
    executions: RunStep, image: Value
) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    found = executions(ToFloat.model_validate("to_float"), image, x)
    for name in ("python", "graph"):
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], found["reference"]), name


def test_bounds_and_the_worth_of_a_grey_level_follow(image: Value) -> None:
    value = ToFloat().flow(image.but(step=1.0))
    assert (value.dtype, value.low, value.high, value.step) == ("float32", 0, 1, 1 / 255)


def test_only_uint8_has_grey_levels(image: Value) -> None:
    with pytest.raises(FlowError, match="to_float takes uint8, found float32"):
        ToFloat().flow(image.but(dtype="float32"))
