from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.argmax import Argmax, name_classes
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_the_best_class_of_every_item_is_named(run_step: RunStep, logits: Value) -> None:
    x = np.array([[0, 3, 3], [9, 1, 2]])
    op = Argmax.model_validate("argmax")
    assert run_step(op, logits, x) == [[{"index": 1}], [{"index": 0}]]
    assert name_classes(np.array([1, 0]), ["a", "b", "c"])[1] == [{"index": 0, "label": "a"}]


def test_a_map_of_scores_is_refused(logits: Value) -> None:
    with pytest.raises(FlowError, match=r"argmax takes a tensor \[batch, classes\]"):
        Argmax().flow(logits.but(shape=("batch", 3, 8, 8)))


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (3, 12)])
def test_every_execution_gives_the_same_also_where_classes_are_equal(
    executions: RunStep, rng: np.random.Generator, dtype: str, shape: tuple[int, int]
) -> None:
    x = rng.integers(0, 3, shape).astype(dtype)
    found = executions(Argmax(), Value("tensor", dtype, ("batch", shape[1])), x)
    assert found["python"] == found["reference"] == found["graph"]


@pytest.mark.parametrize("x", [[2**24, 2**24 + 1], [2**30, 2**31 - 1]])
def test_large_integers_are_told_apart(executions: RunStep, x: list[int]) -> None:
    found = executions(Argmax(), Value("tensor", "int32", ("batch", 2)), np.array([x], np.int32))
    assert found["graph"] == found["python"] == [[{"index": 1}]]


def test_the_result_is_one_entry_without_a_score(logits: Value) -> None:
    value = Argmax(labels="a.txt").flow(logits)
    assert (value.shape, value.dtype, value.labels) == (("batch", 1), "", True)
