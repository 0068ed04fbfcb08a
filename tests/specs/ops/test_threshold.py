from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops import Graph
from specs.ops.sigmoid import Sigmoid
from specs.ops.threshold import Threshold, classes_above
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_the_classes_above_are_named_best_first_and_there_may_be_none(
    run_step: RunStep, logits: Value
) -> None:
    x = np.array([[0.2, 0.9, 0.5, 0.7], [0.1, 0.2, 0.3, 0.5]], np.float32)
    value = Sigmoid().flow(logits.but(shape=("batch", 4)))
    result = run_step(Threshold.model_validate({"threshold": 0.5}), value, x)
    assert [[entry["index"] for entry in item] for item in result] == [[1, 3], []]
    assert result[0][0].keys() == {"index", "probability"}


def test_of_equal_classes_the_first_comes_first_and_nan_is_not_above() -> None:
    x = np.array([[7, 9, np.nan, 9, np.inf]])
    labels = [{"en": name} for name in "abcde"]
    result = classes_above(x, 7.0, "score", labels)
    assert [entry["label"]["en"] for entry in result[0]] == ["e", "b", "d"]


def test_a_mask_is_1_above_and_0_elsewhere(run_step: RunStep, logits: Value) -> None:
    x = np.array([[0.5, np.nan], [0.51, -1]], np.float32)
    result = run_step(Threshold(at=0.5, mask=True), logits.but(shape=("batch", 2)), x)
    assert result.dtype == np.uint8
    assert result.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (3, 30)])
@pytest.mark.parametrize("at", [0.1, 0.7, -5, 50])
def test_every_execution_gives_the_same(
    executions: RunStep, rng: np.random.Generator, dtype: str, shape: tuple[int, int], at: float
) -> None:
    x = (rng.integers(-3, 4, shape) / 10 + (rng.random(shape) > 0.5)).astype(dtype)
    x.flat[0] = at  # float16 has no 0.7: what it has is more
    value = Value("tensor", dtype, ("batch", shape[1]))
    found = executions(Threshold(at=at), value, x)
    assert found["python"] == found["reference"] == found["graph"]
    masks = executions(Threshold(at=at, mask=True), value, x)
    assert (masks["python"] == masks["reference"]).all()
    assert masks["graph"].dtype == masks["python"].dtype == np.uint8
    assert (masks["graph"] == masks["reference"]).all()


def test_a_mask_of_any_shape_is_known_to_be_0_or_1(logits: Value) -> None:
    shape = ("batch", 1, 8, "width")
    value = Threshold(at=0, mask=True).flow(logits.but(shape=shape, probability=False))
    assert (value.dtype, value.shape, value.low, value.high) == ("uint8", shape, 0, 1)


def test_the_result_may_have_fewer_entries_than_classes(logits: Value) -> None:
    value = Threshold(at=0.5, labels={"en": "a.txt"}).flow(Sigmoid().flow(logits))
    assert (value.shape, value.fewer, value.probability) == (("batch", 10), True, True)
    assert value.languages == ("en",)


@pytest.mark.parametrize(
    ("at", "message"), [(1, "nothing can be above 1"), (-0.1, "everything is above -0.1")]
)
def test_a_bound_that_no_probability_can_cross_is_refused(
    logits: Value, at: float, message: str
) -> None:
    with pytest.raises(FlowError, match=message):
        Threshold(at=at).flow(Sigmoid().flow(logits))


def test_what_has_no_classes_is_refused(logits: Value) -> None:
    with pytest.raises(FlowError, match=r"takes a tensor \[batch, classes\]"):
        Threshold(at=0).flow(logits.but(shape=("batch", 2, 8, 8)))
    with pytest.raises(FlowError, match="floating point"):
        Threshold(at=0, mask=True).flow(logits.but(dtype="uint8"))
    with pytest.raises(FlowError, match="fixed number of classes"):
        Threshold(at=0, labels="a.txt").flow(logits.but(shape=("batch", "classes")))
    with pytest.raises(ValueError, match="labels name classes, and a mask has none"):
        Threshold(at=0, labels="a.txt", mask=True)


@pytest.mark.parametrize("classes", ["classes", 3841])
def test_open_classes_and_more_than_an_engine_can_rank_stay_in_python(
    logits: Value, classes: int | str
) -> None:
    value = logits.but(shape=("batch", classes))
    assert Threshold(at=0).fuse(Graph(18, ""), "x", value) is None
    assert Threshold(at=0, mask=True).fuse(Graph(18, ""), "x", value) is not None
