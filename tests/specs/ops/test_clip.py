from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.clip import Clip
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_elements_stay_within_the_bounds(run_step: RunStep, logits: Value) -> None:
    x = np.array([[-2, 0.5, 7]], np.float32)
    result = run_step(Clip(min=0, max=1), logits, x)
    assert result.tolist() == [[0, 0.5, 1]]
    assert result.dtype == np.float32
    assert run_step(Clip(max=1), logits, x).tolist() == [[-2, 0.5, 1]]


def test_integers_stay_integers(run_step: RunStep, image: Value) -> None:
    result = run_step(Clip(min=16, max=235), image, np.array([0, 255], np.uint8))
    assert result.dtype == np.uint8
    assert result.tolist() == [16, 235]


@pytest.mark.parametrize(
    ("options", "bounds"),
    [({"min": 10}, (10, 255)), ({"max": 300}, (0, 255)), ({"max": -1}, (-1, -1))],
)
def test_bounds_are_followed(
    image: Value, options: dict[str, float], bounds: tuple[float, float]
) -> None:
    value = Clip(**options).flow(image.but(dtype="float32"))
    assert (value.low, value.high) == bounds


@pytest.mark.parametrize("bound", [0.5, 256])
def test_a_bound_that_the_elements_cannot_hold_is_refused(image: Value, bound: float) -> None:
    with pytest.raises(FlowError, match="the elements are uint8"):
        Clip(max=bound).flow(image)


@pytest.mark.parametrize(
    ("options", "message"), [({}, "found none"), ({"min": 2, "max": 1}, "min 2 is more than max 1")]
)
def test_bounds_must_make_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clip(**options)


@pytest.mark.parametrize("options", [{"min": -1.3}, {"max": 2.7}, {"min": -1.3, "max": 2.7}])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_execution_gives_the_same(
    executions: RunStep, rng: np.random.Generator, options: dict[str, float], dtype: str
) -> None:
    x = rng.normal(0, 3, (3, 1, 5)).astype(dtype)
    x[0, 0, :2] = [np.inf, -np.inf]
    found = executions(Clip(**options), Value("tensor", dtype, ("batch", 1, 5)), x)
    assert found["graph"].dtype == found["python"].dtype == dtype
    assert (found["python"] == found["reference"]).all()
    assert (found["graph"] == found["reference"]).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
def test_every_execution_gives_the_same_integers(
    executions: RunStep, rng: np.random.Generator, dtype: str
) -> None:
    x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (3, 9), dtype)
    found = executions(Clip(min=3, max=100), Value("tensor", dtype, ("batch", 9)), x)
    for name in ("python", "graph"):
        assert found[name].dtype == dtype, name
        assert (found[name] == found["reference"]).all(), name
