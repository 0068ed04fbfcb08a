from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.softmax import Softmax
from specs.values import FlowError, Value

torch: Any = pytest.importorskip("torch")

RunStep = Callable[..., Any]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_it_is_torchs(run_step: RunStep, logits: Value, dtype: str) -> None:
    x = (np.random.default_rng(0).normal(size=(4, 10)) * 1000).astype(dtype)
    expected = torch.softmax(torch.from_numpy(x.astype(np.float64)), -1).numpy()
    result = run_step(Softmax(), logits.but(dtype=dtype), x)
    assert np.allclose(result, expected, atol=1e-6)
    assert result.dtype == Softmax().flow(logits.but(dtype=dtype)).dtype


def test_the_values_are_known_to_be_probabilities(logits: Value) -> None:
    value = Softmax.model_validate("softmax").flow(logits)
    assert (value.low, value.high) == (0, 1)


@pytest.mark.parametrize("axis", [0, -2, 2])
def test_the_batch_is_no_axis_to_sum_over(logits: Value, axis: int) -> None:
    with pytest.raises(FlowError, match=f"softmax has axis {axis}"):
        Softmax(axis=axis).flow(logits)


def test_integers_and_ranked_classes_are_refused(logits: Value) -> None:
    with pytest.raises(FlowError, match="floating point"):
        Softmax().flow(logits.but(dtype="int64"))
    with pytest.raises(FlowError) as caught:
        Softmax().flow(Value("classes"))
    assert "before the step that ranks" in caught.value.hint


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (3, 10), (3, 2, 4, 5)])
def test_every_execution_gives_the_same(
    executions: RunStep, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    x = rng.normal(0, 9, shape).astype(dtype)
    x[0].flat[0] = -np.inf if x[0].size > 1 else 0
    axis = -1 if len(shape) == 2 else 1
    if axis == 1:
        x[0, 0] = 7
    found = executions(Softmax(axis=axis), Value("tensor", dtype, ("batch", *shape[1:])), x)
    for name in ("python", "graph"):
        assert found[name].dtype == found["reference"].dtype, name
        assert np.allclose(found[name], found["reference"], rtol=1e-5, atol=1e-7), name
