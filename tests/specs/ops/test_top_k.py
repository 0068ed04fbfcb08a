from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops import Graph
from specs.ops.clip import Clip
from specs.ops.softmax import Softmax
from specs.ops.top_k import TopK, name_best, top_k
from specs.values import FlowError, Value

torch: Any = pytest.importorskip("torch")

RunStep = Callable[..., Any]


def test_it_ranks_as_torchs_topk(run_step: RunStep, logits: Value) -> None:
    x = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    values, indices = torch.topk(torch.from_numpy(x), 3)
    result = run_step(TopK(k=3), logits, x)
    assert [[entry["index"] for entry in item] for item in result] == indices.tolist()
    assert [[entry["score"] for entry in item] for item in result] == values.tolist()


def test_of_equal_classes_the_first_comes_first_and_nan_last() -> None:
    result = top_k(np.array([[1, np.nan, 2, 2]]), 4, "score", None)
    assert [entry["index"] for entry in result[0]] == [2, 3, 0, 1]


def test_values_after_a_softmax_are_called_probabilities(run_step: RunStep, logits: Value) -> None:
    value = Softmax().flow(logits)
    assert run_step(TopK(k=1), value, np.eye(10)[:1]) == [[{"index": 0, "probability": 1.0}]]


def test_values_that_were_only_clipped_to_0_and_1_are_not_called_probabilities(
    run_step: RunStep, logits: Value
) -> None:
    value = Clip(min=0, max=1).flow(logits)
    assert run_step(TopK(k=1), value, np.eye(10)[:1]) == [[{"index": 0, "score": 1.0}]]


def test_entries_carry_their_labels() -> None:
    result = top_k(np.array([[0.1, 0.9]]), 1, "score", [{"en": "no"}, {"en": "yes"}])
    assert result == [[{"index": 1, "label": {"en": "yes"}, "score": 0.9}]]


def test_more_than_there_are_classes_is_refused(logits: Value) -> None:
    with pytest.raises(FlowError) as caught:
        TopK(k=11).flow(logits)
    assert caught.value.message == "top_k has k: 11, the output has 10 classes"
    assert caught.value.hint == "use k: 10 or less"


@pytest.mark.parametrize("shape", [("batch",), ("batch", 3, 8, 8)])
def test_one_number_per_class_is_needed(logits: Value, shape: tuple[int | str, ...]) -> None:
    with pytest.raises(FlowError, match=r"found shape \[batch"):
        TopK().flow(logits.but(shape=shape))


def test_labels_need_a_known_number_of_classes(logits: Value) -> None:
    with pytest.raises(FlowError, match="fixed number of classes"):
        TopK(labels="a.txt").flow(logits.but(shape=("batch", "classes")))


@pytest.mark.parametrize("labels", ["", {}, {"English": "a.txt"}, 3])
def test_labels_are_a_file_or_files_by_language(labels: object) -> None:
    with pytest.raises(ValueError, match="labels"):
        TopK.model_validate({"top_k": {"labels": labels}})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_execution_gives_the_same_also_where_classes_are_equal(
    executions: RunStep, rng: np.random.Generator, dtype: str, batch: int
) -> None:
    x = rng.integers(-2, 2, (batch, 40)).astype(dtype)
    x[0, 3:5] = [np.inf, -np.inf]
    found = executions(TopK(k=12), Value("tensor", dtype, ("batch", 40)), x)
    assert found["python"] == found["reference"] == found["graph"]


def test_one_class_is_its_own_best(executions: RunStep) -> None:
    value = Value("tensor", "float32", ("batch", 1), probability=True)
    found = executions(TopK(k=1), value, np.array([[0.25], [1]], np.float32))
    best = [[{"index": 0, "probability": 0.25}], [{"index": 0, "probability": 1.0}]]
    assert found == {"python": best, "reference": best, "graph": best}


def test_what_the_graph_ranked_is_put_in_order_once_more() -> None:
    best = {"values": np.array([[2.0, 2.0, 1.0]]), "indices": np.array([[9, 4, 0]])}
    assert [entry["index"] for entry in name_best(best, "score", None)[0]] == [4, 9, 0]


@pytest.mark.parametrize(("classes", "k"), [("classes", 5), (5000, 3841)])
def test_open_classes_and_more_than_an_engine_can_rank_stay_in_python(
    logits: Value, classes: int | str, k: int
) -> None:
    assert TopK(k=k).fuse(Graph(18, ""), "x", logits.but(shape=("batch", classes))) is None


def test_the_result_tells_how_many_entries_there_are_and_what_they_hold(logits: Value) -> None:
    op = TopK.model_validate({"top_k": {"k": 3, "labels": {"en": "a.txt", "zh": "b.txt"}}})
    value = op.flow(Softmax().flow(logits))
    assert (value.shape, value.dtype, value.probability) == (("batch", 3), "float32", True)
    assert (value.labels, value.languages, value.fewer) == (True, ("en", "zh"), False)
    plain = TopK(k=3).flow(logits.but(shape=("batch", "classes")))
    assert (plain.labels, plain.languages, plain.fewer) == (False, (), True)
