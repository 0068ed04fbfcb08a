from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops import Graph, Libraries
from specs.ops.mean_pool import MeanPool
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
HIDDEN = Value("tensor", "float32", ("batch", "tokens", 4))


def test_padding_does_not_count() -> None:
    from compiler.processing.executions import run_python

    x = np.array([[[1, 2], [3, 6], [99, 99]], [[5, 5], [98, 98], [97, 97]]], np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    op = MeanPool.model_validate({"mean_pool": "attention_mask"})
    result = run_python(op, HIDDEN.but(shape=("batch", 3, 2)), x, {"attention_mask": mask})
    assert result.tolist() == [[2, 4], [5, 5]]
    assert op.carried() == ("attention_mask",)


def test_no_tokens_at_all_give_zeros() -> None:
    from compiler.processing.executions import run_python

    x, mask = np.full((1, 3, 4), 7, np.float32), np.zeros((1, 3), np.int64)
    assert not run_python(MeanPool(mask="mask"), HIDDEN, x, {"mask": mask}).any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 4), (3, 128, 16)])
def test_every_execution_gives_the_plain_mean(
    executions: RunStep, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    x = (rng.normal(0, 3, shape) + 100).astype(dtype)
    found = executions(MeanPool(), Value("tensor", dtype, ("batch", "tokens", shape[2])), x)
    for name in ("python", "graph"):
        assert found[name].dtype == found["reference"].dtype, name
        assert np.allclose(found[name], found["reference"], rtol=2e-6, atol=0), name


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("mask_dtype", ["int64", "int32", "bool", "float32"])
def test_every_execution_gives_the_mean_of_sentence_transformers(
    libraries: Libraries, rng: np.random.Generator, dtype: str, mask_dtype: str
) -> None:
    from compiler.processing.executions import run_fused, run_python

    x = (rng.normal(0, 3, (3, 128, 16)) + 100).astype(dtype)
    mask = (np.arange(128) < np.array([[128], [5], [0]])).astype(mask_dtype)
    op, beside = MeanPool(mask="attention_mask"), {"attention_mask": mask}
    value = Value("tensor", dtype, ("batch", "tokens", 16))
    wanted = MeanPool.masked(x, mask, libraries)
    for run in (run_python, run_fused):
        found = run(op, value, x, beside)
        assert found.dtype == op.flow(value).dtype == wanted.dtype
        assert np.allclose(found, wanted, rtol=2e-6, atol=0)


def test_without_the_mask_among_the_graphs_inputs_it_stays_in_python() -> None:
    assert MeanPool(mask="attention_mask").fuse(Graph(18, ""), "x", HIDDEN) is None


def test_the_result_is_a_vector_for_each_item() -> None:
    value = MeanPool().flow(HIDDEN.but(low=2, high=3))
    assert (value.shape, value.low, value.high) == (("batch", 4), 2, 3)
    assert MeanPool(mask="mask").flow(HIDDEN.but(low=2, high=3)).low == 0


@pytest.mark.parametrize("shape", [("batch", 4), ("batch", 3, 8, 8)])
def test_what_has_no_tokens_is_refused(shape: tuple[int | str, ...]) -> None:
    with pytest.raises(FlowError, match=r"takes a tensor \[batch, tokens, width\]"):
        MeanPool().flow(HIDDEN.but(shape=shape))


def test_a_mask_that_is_no_input_is_refused(problems: RunStep) -> None:
    found = problems(
        inputs="{ids: {shape: [batch, 9], dtype: int64}, mask: {shape: [batch, 9], dtype: int64}}",
        outputs="{hidden: {shape: [batch, 9, 4]}}",
        postprocess="[{mean_pool: attention_mask}]",
    )
    assert [problem.code for problem in found] == ["unknown_input"]
