from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.l2_normalize import L2Normalize
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_vectors_get_length_1_and_zeros_stay(run_step: RunStep, logits: Value) -> None:
    x = np.array([[3, 4], [0, 0]], np.float32)
    result = run_step(L2Normalize(), logits.but(shape=("batch", 2)), x)
    assert np.allclose(result, [[0.6, 0.8], [0, 0]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 16), (3, 16), (3, 2, 5)])
def test_every_execution_gives_the_same(
    executions: RunStep, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    x = rng.normal(0, 3, shape).astype(dtype)
    x[-1] = 0
    found = executions(L2Normalize(), Value("tensor", dtype, ("batch", *shape[1:])), x)
    for name in ("python", "graph"):
        assert found[name].dtype == found["reference"].dtype, name
        assert np.allclose(found[name], found["reference"], rtol=1e-6, atol=1e-7), name


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-6, 1e-13, 1e-30, 1e30, 60000])
def test_extreme_lengths_are_as_torch_has_them(executions: RunStep, size: float) -> None:
    dtype = "float16" if size == 60000 else "float32"
    x = np.array([[size, size, -size]], dtype)
    found = executions(L2Normalize(), Value("tensor", dtype, ("batch", 3)), x)
    for name in ("python", "graph"):
        assert np.allclose(found[name], found["reference"], rtol=1e-5, atol=1e-30), name


def test_eps_is_the_smallest_divisor(executions: RunStep) -> None:
    op = L2Normalize.model_validate({"l2_normalize": 2.5})
    found = executions(op, Value("tensor", "float32", ("batch", 1)), np.ones((1, 1), np.float32))
    assert [array.item() for array in found.values()] == pytest.approx([0.4] * 3)


def test_bounds_are_those_of_a_vector_of_length_1(logits: Value) -> None:
    value = L2Normalize().flow(logits.but(probability=True, low=0, high=1))
    assert (value.low, value.high, value.probability) == (0, 1, False)
    assert L2Normalize().flow(logits).low == -1


def test_a_lone_batch_axis_is_refused(logits: Value) -> None:
    with pytest.raises(FlowError, match="takes vectors"):
        L2Normalize().flow(logits.but(shape=("batch",)))
    with pytest.raises(ValueError, match="greater than 0"):
        L2Normalize(eps=0)
