from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from compiler.processing.nodes import model_of, typed_outputs
from specs.ops import Graph
from specs.ops._boxes import boxes_value
from specs.ops.nms import Nms, drop_empty, nms
from specs.values import Dim, FlowError, Value

RunStep = Callable[..., Any]
Arrays = dict[str, NDArray[Any]]
Found = list[dict[str, Any]]

SYMBOLS = {"boxes": "b", "scores": "s"}
SAME = {"boxes": 0.0, "scores": 0.0, "classes": 0.0}


def candidates(rows: Dim = "n", classes: Dim = 3) -> Value:
    return boxes_value(("batch", rows, classes), "pixels", probability=True)


def random_boxes(rng: np.random.Generator, batch: int, rows: int, classes: int) -> Arrays:
    corner = rng.uniform(0, 60, (batch, rows, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (batch, rows, 2))], axis=2)
    scores = rng.uniform(0, 1, (batch, rows, classes)) ** 2
    return {"boxes": boxes.astype(np.float32), "scores": scores.astype(np.float32)}


def equal(found: Found, wanted: Found) -> None:
    assert len(found) == len(wanted)
    for item, other in zip(found, wanted, strict=True):
        assert item["classes"].tolist() == other["classes"].tolist()
        assert item["scores"].tolist() == other["scores"].tolist()
        assert item["boxes"].tolist() == other["boxes"].tolist()
        assert {key: str(item[key].dtype) for key in SAME} == {
            "boxes": "float32",
            "scores": "float32",
            "classes": "int64",
        }


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "keep all that overlap": {"iou": 1.0, "score_threshold": 0.5},
    "keep none that overlap": {"iou": 0.0},
    "no threshold": {"score_threshold": 0.0, "max_detections": 500},
    "few detections": {"score_threshold": 0.01, "max_detections": 7},
    "few candidates": {"score_threshold": 0.01, "candidates": 20},
    "agnostic": {"agnostic": True},
    "agnostic with few candidates": {"agnostic": True, "candidates": 9, "score_threshold": 0.1},
    "best class alone": {"multi_label": False},
    "nothing above": {"score_threshold": 1.0},
}


@pytest.mark.parametrize("rows", [1, 120, "n"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_execution_finds_what_torchvision_does(
    executions: RunStep, rng: np.random.Generator, options: dict[str, Any], rows: Dim
) -> None:
    count = rows if isinstance(rows, int) else 57
    x = random_boxes(rng, 3, count, 3)
    found = executions(Nms(**options), candidates(rows), x)
    equal(found["python"], found["reference"])
    equal(found["graph"], found["reference"])


def test_of_two_that_overlap_the_better_stays_and_the_best_comes_first(
    executions: RunStep,
) -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]
    x = {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([[[0.6], [0.7], [0.9]]], np.float32),
    }
    for item in executions(Nms(), candidates(3, 1), x).values():
        assert item[0]["boxes"].tolist() == [boxes[2], boxes[1]]
        assert item[0]["classes"].tolist() == [0, 0]


def test_only_an_agnostic_one_suppresses_other_classes(executions: RunStep) -> None:
    x = {
        "boxes": np.array([[[0, 0, 10, 10], [1, 0, 11, 10]]], np.float32),
        "scores": np.array([[[0.6, 0.5], [0.3, 0.7]]], np.float32),
    }
    value = candidates(2, 2)
    for item in executions(Nms(), value, x).values():
        assert item[0]["classes"].tolist() == [1, 0]
    for item in executions(Nms(agnostic=True), value, x).values():
        assert item[0]["classes"].tolist() == [1]
    for item in executions(Nms(iou=1, score_threshold=0.2), value, x).values():
        assert item[0]["classes"].tolist() == [1, 0, 1, 0]
    for item in executions(Nms(iou=1, multi_label=False), value, x).values():
        assert item[0]["classes"].tolist() == [1, 0]


def test_equal_scores_come_by_class_and_then_by_box(executions: RunStep) -> None:
    apart = np.arange(0, 60, 20, dtype=np.float32)
    boxes = np.stack([apart, apart, apart + 9, apart + 9], axis=1)[None]
    x = {"boxes": boxes, "scores": np.full((1, 3, 2), 0.5, np.float32)}
    for item in executions(Nms(), candidates(3, 2), x).values():
        assert item[0]["classes"].tolist() == [0, 0, 0, 1, 1, 1]
        assert item[0]["boxes"][:, 0].tolist() == [0, 20, 40, 0, 20, 40]
    for item in executions(Nms(candidates=2), candidates(3, 2), x).values():
        assert item[0]["boxes"][:, 0].tolist() == [0, 20, 0, 20]
    for item in executions(Nms(agnostic=True), candidates(3, 2), x).values():
        assert item[0]["classes"].tolist() == [0, 0, 0]
    x["scores"] = np.array([[[0.5, 0.1], [0.5, 0.9], [0.3, 0.1]]], np.float32)
    for item in executions(Nms(candidates=2), candidates(3, 2), x).values():
        assert item[0]["boxes"][:, 0].tolist() == [20, 0, 20]


@pytest.mark.filterwarnings("error")
def test_a_score_must_be_above_the_threshold_and_nan_is_not(executions: RunStep) -> None:
    scores = [0.5, 0.25, np.nan, np.nextafter(np.float32(0.25), 1)]
    boxes = np.arange(0, 40, 10, dtype=np.float32)[:, None] + np.array([0, 0, 5, 5], np.float32)
    x = {"boxes": boxes[None], "scores": np.array(scores, np.float32).reshape(1, 4, 1)}
    for item in executions(Nms(), candidates(4, 1), x).values():
        assert item[0]["boxes"][:, 0].tolist() == [0, 30]


@pytest.mark.filterwarnings("error")
def test_boxes_without_area_suppress_nothing(executions: RunStep) -> None:
    x = {
        "boxes": np.zeros((1, 3, 4), np.float32),
        "scores": np.array([[[0.9], [0.8], [0.7]]], np.float32),
    }
    for item in executions(Nms(iou=0), candidates(3, 1), x).values():
        assert len(item[0]["boxes"]) == 3


def test_labels_of_every_class_come_along() -> None:
    labels = ["a", "b", "c"]
    op = Nms(labels="labels.txt")
    result = op.flow(candidates())
    assert (result.labels, result.languages, result.units) == (True, (), "pixels")
    emitted = op.emit(candidates())
    assert emitted.expression == "nms({x}, SUPPRESSION, LABELS)"
    assert emitted.constants["LABELS"] == 'read_labels("labels.txt")'
    fused = op.fuse(Graph(18, ""), SYMBOLS, candidates())
    assert fused is not None
    assert fused.rest is not None
    assert fused.rest.constants == op.label_constants()
    rows = {"boxes": np.zeros((1, 1, 4)), "scores": np.ones((1, 1)), "classes": np.ones((1, 1))}
    assert drop_empty(rows, labels)[0]["labels"] == labels
    options = op.model_dump()["nms"]
    scores = {**rows, "scores": np.ones((1, 1, 1))}
    assert nms(scores, options, labels)[0]["labels"] == labels
    assert "labels" not in nms(scores, options, None)[0]


def _session_file(op: Nms, value: Value, names: list[str]) -> bytes:
    """A model of the step alone, whose batch and boxes are open."""
    graph = Graph(18, "nms/")
    fused = op.fuse(graph, {"boxes": "in_boxes", "scores": "in_scores"}, value)
    assert fused is not None
    assert not isinstance(fused.result, str)
    rows, classes = value.shape[1:]
    inputs: dict[str, tuple[str, tuple[Dim | None, ...]]] = {
        "in_boxes": ("float32", ("batch", rows, 4)),
        "in_scores": ("float32", ("batch", rows, classes)),
    }
    names += [fused.result[key] for key in SAME]
    return model_of(graph, inputs, typed_outputs(graph, inputs, names)).SerializeToString()


def on_openvino(op: Nms, value: Value) -> Callable[[Arrays], Found]:
    """The step compiled by OpenVINO, for any number of items and boxes."""
    openvino: Any = pytest.importorskip("openvino")
    names: list[str] = []
    core = openvino.Core()
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    model = core.read_model(_session_file(op, value, names))
    compiled = core.compile_model(model, "CPU", config)

    def run(x: Arrays) -> Found:
        result = compiled({"in_boxes": x["boxes"], "in_scores": x["scores"]})
        return drop_empty({key: result[n] for key, n in zip(SAME, names, strict=True)}, None)

    return run


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_openvino_finds_the_same(
    executions: RunStep, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    op, value = Nms(**options), candidates("n", 3)
    run = on_openvino(op, value)
    for batch, rows in ((2, 57), (1, 1), (3, 120)):
        x = random_boxes(rng, batch, rows, 3)
        equal(run(x), executions(op, value, x)["reference"])


@pytest.mark.parametrize(("iou", "kept"), [(0.49, 1), (0.5, 2), (1.0, 2)])
def test_an_overlap_that_equals_the_threshold_is_kept_on_every_engine(
    executions: RunStep, iou: float, kept: int
) -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10 if iou == 1 else 5]]
    x = {"boxes": np.array([boxes], np.float32), "scores": np.array([[[0.9], [0.8]]], np.float32)}
    op, value = Nms(iou=iou), candidates("n", 1)
    for found in (*executions(op, value, x).values(), on_openvino(op, value)(x)):
        assert len(found[0]["boxes"]) == kept


def test_the_graph_gives_rows_of_a_fixed_number_and_minus_one_where_there_is_no_more(
    rng: np.random.Generator,
) -> None:
    ort: Any = pytest.importorskip("onnxruntime")
    names: list[str] = []
    file = _session_file(Nms(max_detections=50), candidates("n", 3), names)
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = random_boxes(rng, 2, 30, 3)
    x["scores"][1] = 0
    boxes, scores, classes = session.run(names, {f"in_{key}": each for key, each in x.items()})
    assert (boxes.shape, scores.shape, classes.shape) == ((2, 50, 4), (2, 50), (2, 50))
    assert (boxes[1] == -1).all()
    assert (scores[1] == -1).all()
    assert (classes[1] == -1).all()
    assert (scores[0] > 0).any()


def test_what_a_graph_cannot_hold_stays_in_python() -> None:
    value = candidates("n", "classes")
    assert Nms().fuse(Graph(18, ""), SYMBOLS, value) is None
    assert Nms(candidates=5000).fuse(Graph(18, ""), SYMBOLS, candidates("n", 3)) is None
    assert Nms(candidates=5000).fuse(Graph(18, ""), SYMBOLS, candidates(99, 3)) is not None
    assert Nms(max_detections=5000).fuse(Graph(18, ""), SYMBOLS, candidates(99, 3)) is None
    with pytest.raises(FlowError, match="fixed number of classes"):
        Nms(labels="labels.txt").flow(value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (Value("tensor", "float32", ("batch", 9, 4)), "put - box_decode before nms, once"),
        (Value("detections", boxes="xyxy"), "put - box_decode before nms, once"),
        (candidates().but(boxes="cxcywh"), "put - box_convert: xyxy before nms"),
    ],
)
def test_anything_but_candidates_as_corners_is_refused(value: Value, hint: str) -> None:
    with pytest.raises(FlowError) as caught:
        Nms().flow(value)
    assert caught.value.hint == hint


def test_it_may_be_written_short() -> None:
    assert Nms.model_validate("nms") == Nms()
    assert Nms.model_validate({"nms": 0.3}) == Nms(iou=0.3)


@pytest.mark.parametrize(
    "wrong",
    [{"iou": 1.1}, {"score_threshold": -0.1}, {"max_detections": 0}, {"candidates": True}],
)
def test_options_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Nms.model_validate({"nms": wrong})
