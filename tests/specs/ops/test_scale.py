from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.scale import Scale
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_multiplies_adds_and_gives_float32(run_step: RunStep, image: Value) -> None:
    result = run_step(Scale(factor=2, offset=-1), image, np.array([0, 100], np.uint8))
    assert result.dtype == np.float32
    assert result.tolist() == [-1, 199]


def test_bounds_follow_the_values_and_swap_with_a_negative_factor(image: Value) -> None:
    value = Scale(factor=-1 / 255, offset=1).flow(image)
    assert (value.low, value.high, value.dtype) == (0, 1, "float32")


def test_a_bare_number_is_the_factor() -> None:
    assert Scale.model_validate({"scale": 255}).factor == 255


def test_ranked_classes_cannot_be_scaled() -> None:
    with pytest.raises(FlowError, match="scale takes an image or a tensor"):
        Scale().flow(Value("classes"))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int64"])
def test_every_execution_gives_the_same(executions: RunStep, image: Value, dtype: str) -> None:
    x = np.arange(24).reshape(2, 4, 3).astype(dtype)
    found = executions(Scale(factor=0.1, offset=-1), image.but(dtype=dtype), x)
    assert np.array_equal(found["python"], found["reference"])
    assert np.allclose(found["graph"], found["reference"], rtol=1e-6, atol=1e-6)
    assert Scale(factor=-0.5).flow(image.but(step=1.0)).step == 0.5
