from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.sigmoid import Sigmoid
from specs.values import FlowError, Value

torch: Any = pytest.importorskip("torch")

RunStep = Callable[..., Any]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_it_is_torchs_and_cannot_overflow(run_step: RunStep, logits: Value, dtype: str) -> None:
    x = np.array([[-60000, -90, -20, -1, 0, 1, 20, 60000]], dtype)
    expected = torch.sigmoid(torch.from_numpy(x.astype(np.float64))).numpy()
    result = run_step(Sigmoid(), logits.but(dtype=dtype), x)
    assert np.allclose(result, expected, rtol=1e-5, atol=0)


def test_the_values_are_known_to_be_probabilities(logits: Value) -> None:
    value = Sigmoid.model_validate("sigmoid").flow(logits)
    assert (value.low, value.high) == (0, 1)


def test_integers_are_refused(logits: Value) -> None:
    with pytest.raises(FlowError) as caught:
        Sigmoid().flow(logits.but(dtype="int64"))
    assert caught.value.hint == "put - cast: float32 before sigmoid"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_execution_gives_the_same(
    executions: RunStep, logits: Value, rng: np.random.Generator, dtype: str
) -> None:
    x = rng.normal(0, 4, (2, 10)).astype(dtype)
    found = executions(Sigmoid(), logits.but(dtype=dtype), x)
    for name in ("python", "graph"):
        assert np.allclose(found[name], found["reference"], rtol=1e-6, atol=1e-7), name
