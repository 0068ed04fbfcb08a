"""The decoders agree with each other, with torchvision's own coders, and refuse what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from specs.ops.box_decode import BoxDecode
from specs.values import Dim, FlowError, Value

torch: Any = pytest.importorskip("torch")

RunStep = Callable[..., Any]
Arrays = dict[str, NDArray[Any]]

CLASSES = 3
PRIORS: dict[str, Any] = {
    "image": [40, 60],
    "maps": [[5, 8], [2, 3]],
    "sizes": [[8, [12, 16]], [30]],
}
SSD: dict[str, dict[str, Any]] = {
    "sizes": PRIORS,
    "strides and scales": {
        "image": [40, 60],
        "strides": [8, 20],
        "scales": [0.2, 0.5, 0.9],
        "ratios": [[2], [2, 3]],
        "clip": "sizes",
        "max_growth": 62.5,
    },
    "strides and maps": {**PRIORS, "strides": [8, 16], "variances": [1, 1], "offset": 0},
    "all within the image": {**PRIORS, "strides": [20, 30], "clip": "all"},
    "sigmoid, no background": {**PRIORS, "activation": "sigmoid", "background": None},
    "the last is background": {**PRIORS, "activation": "none", "background": CLASSES - 1},
    "one between is background": {**PRIORS, "background": 1},
}
GRID: dict[str, dict[str, Any]] = {
    "distances": {},
    "in pixels": {"counts": "pixels", "activation": "none"},
    "FCOS": {"objectness": "center", "combine": "geometric_mean", "background": 0},
    "YOLOX": {"form": "cxcywh", "offset": 0, "objectness": "object"},
    "softmax": {"activation": "softmax", "background": 0},
}
YOLO: dict[str, dict[str, Any]] = {
    "YOLOv5": {},
    "YOLOv8": {"transposed": True, "objectness": False},
    "with masks": {"transposed": True, "objectness": False, "classes": 2},
    "raw scores as corners": {"activation": "sigmoid", "format": "xyxy", "units": "fraction"},
}
DECODED: dict[str, dict[str, Any]] = {
    "as they are": {},
    "centres": {"format": "cxcywh", "units": "fraction", "activation": "softmax", "background": 0},
    "corner and size": {"format": "xywh", "activation": "sigmoid"},
}
TORCHVISION = {"scores": "flat", "labels": "labels", "classes": CLASSES, "background": 0}


def outputs(
    rng: np.random.Generator, rows: int, dtype: str = "float32", batch: int = 2
) -> tuple[Value, Arrays]:
    """A detector's outputs, with boxes that are corners in order."""
    corner = rng.uniform(0.1, 1, (batch, rows, 2))
    arrays = {
        "boxes": np.concatenate([corner, corner + rng.uniform(0.1, 1, corner.shape)], axis=2),
        "scores": rng.normal(0, 2, (batch, rows, CLASSES)),
        "object": rng.normal(0, 2, (batch, rows, 1)),
        "center": rng.normal(0, 2, (batch, rows)),
        "flat": rng.uniform(0, 1, (batch, rows)),
    }
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    arrays["labels"] = rng.integers(0, CLASSES, (batch, rows))
    return described(arrays), arrays


def described(arrays: Arrays) -> Value:
    fields = {
        name: Value("tensor", str(array.dtype), ("batch", *array.shape[1:]))
        for name, array in arrays.items()
    }
    return Value("tensors", fields=fields)


def agree(found: dict[str, Arrays], value: Value) -> None:
    """Every execution gives what the reference does, in the type that ``flow`` told."""
    for execution in ("python", "graph"):
        for name, wanted in found["reference"].items():
            array = found[execution][name]
            assert (array.shape, str(array.dtype)) == (wanted.shape, "float32")
            assert np.allclose(array, wanted, rtol=1e-5, atol=1e-5), (execution, name)
            shape = value.fields[name].shape
            sizes = zip(shape, array.shape, strict=True)
            assert all(isinstance(dim, str) or dim == size for dim, size in sizes)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("options", SSD.values(), ids=SSD.keys())
def test_ssds_executions_agree(
    executions: RunStep, rng: np.random.Generator, options: dict[str, Any], dtype: str
) -> None:
    op = BoxDecode.model_validate({"box_decode": {"ssd": options}})
    assert op.ssd is not None
    value, x = outputs(rng, op.ssd.count, dtype)
    if op.ssd.max_growth:
        x["boxes"] = x["boxes"] * 15  # some grow more than they may
    result = op.flow(value)
    assert (result.units, result.boxes) == ("fraction", "xyxy")
    agree(executions(op, value, x), result)


@pytest.mark.parametrize("options", GRID.values(), ids=GRID.keys())
def test_anchor_free_ones_agree(
    executions: RunStep, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    both = {"image": [20, 36], "strides": [8, 16], **options}
    op = BoxDecode.model_validate({"box_decode": {"anchor_free": both}})
    value, x = outputs(rng, 3 * 5 + 2 * 3)
    x["scores"], x["center"] = (
        (np.abs(x["scores"]), np.abs(x["center"]))
        if options.get("activation") == "none"
        else (x["scores"], x["center"])
    )
    result = op.flow(value)
    assert result.units == "pixels"
    agree(executions(op, value, x), result)


@pytest.mark.parametrize("single", [True, False], ids=["one output", "of several"])
@pytest.mark.parametrize("options", YOLO.values(), ids=YOLO.keys())
def test_yolos_executions_agree(
    executions: RunStep, rng: np.random.Generator, options: dict[str, Any], *, single: bool
) -> None:
    rows = rng.normal(0, 1, (2, 5 + CLASSES, 21) if options.get("transposed") else (2, 21, 8))
    rows = rows.astype(np.float32)
    named = {} if single else {"output": "rows"}
    op = BoxDecode.model_validate({"box_decode": {"yolo": {**options, **named}}})
    arrays = {"rows": rows, "protos": rows[:, :1]}
    value = described(arrays).fields["rows"] if single else described(arrays)
    result = op.flow(value)
    wanted = options.get("classes", 3 if options.get("objectness", True) else 4)
    assert result.shape == ("batch", 21, wanted)
    agree(executions(op, value, rows if single else arrays), result)


@pytest.mark.parametrize("options", DECODED.values(), ids=DECODED.keys())
def test_whole_boxes_are_taken_in_every_form(
    executions: RunStep, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    op = BoxDecode.model_validate({"box_decode": {"decoded": options}})
    value, x = outputs(rng, 9)
    result = op.flow(value)
    assert result.units == options.get("units", "pixels")
    agree(executions(op, value, x), result)


@pytest.mark.parametrize(
    "options",
    [
        TORCHVISION,
        {**TORCHVISION, "background": None},
        {**TORCHVISION, "activation": "sigmoid"},
        {"scores": "flat"},
        {"scores": "flat", "activation": "sigmoid"},
    ],
)
def test_rows_with_one_class_each_agree(
    executions: RunStep, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    op = BoxDecode.model_validate({"box_decode": {"decoded": options}})
    value, x = outputs(rng, 9)
    x["labels"][0, 0] = -1
    agree(executions(op, value, x), op.flow(value))


def test_torchvisions_rows_have_their_score_at_their_class(executions: RunStep) -> None:
    op = BoxDecode.model_validate({"box_decode": {"decoded": TORCHVISION}})
    x = {
        "boxes": np.array([[[1, 2, 3, 4], [0, 0, 0, 0]]], np.float32),
        "flat": np.array([[0.9, 0]], np.float32),
        "labels": np.array([[2, 0]]),
    }
    for found in executions(op, described(x), x).values():
        assert found["boxes"].tolist() == x["boxes"].tolist()
        assert found["scores"].tolist() == [[[0, np.float32(0.9)], [0, 0]]]


def test_priors_and_offsets_are_those_of_torchvisions_ssd(
    executions: RunStep, rng: np.random.Generator
) -> None:
    detection: Any = pytest.importorskip("torchvision.models.detection")
    utils: Any = pytest.importorskip("torchvision.models.detection._utils")
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    strides = [8, 16, 32, 64, 100, 300]
    maps = [38, 19, 10, 5, 3, 1]
    options = {
        "image": [300, 300],
        "maps": [[side, side] for side in maps],
        "strides": strides,
        "scales": scales,
        "ratios": ratios,
        "clip": "sizes",
        "max_growth": 62.5,
    }
    op = BoxDecode.model_validate({"box_decode": {"ssd": options}})
    boxes = detection.anchor_utils.DefaultBoxGenerator(ratios, scales=scales, steps=strides)
    images = detection.image_list.ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    priors = boxes(images, [torch.zeros(1, 1, side, side) for side in maps])[0]
    value, x = outputs(rng, len(priors), batch=1)
    coder = utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    wanted = coder.decode_single(torch.from_numpy(x["boxes"][0]), priors).numpy() / 300
    for found in executions(op, value, x).values():
        assert np.allclose(found["boxes"][0], wanted, atol=1e-5)


def test_distances_are_those_of_torchvisions_fcos(
    executions: RunStep, rng: np.random.Generator
) -> None:
    detection: Any = pytest.importorskip("torchvision.models.detection")
    utils: Any = pytest.importorskip("torchvision.models.detection._utils")
    options = {"image": [32, 48], "strides": [8, 16], "offset": 0}
    op = BoxDecode.model_validate({"box_decode": {"anchor_free": options}})
    anchors = detection.anchor_utils.AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    images = detection.image_list.ImageList(torch.zeros(1, 3, 32, 48), [(32, 48)])
    cells = anchors(images, [torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 2, 3)])[0]
    value, x = outputs(rng, len(cells), batch=1)
    coder = utils.BoxLinearCoder(normalize_by_size=True)
    wanted = coder.decode(torch.from_numpy(x["boxes"][0]), cells).numpy()
    for found in executions(op, value, x).values():
        assert np.allclose(found["boxes"][0], wanted, atol=1e-4)


def test_a_model_with_one_output_can_be_decoded_by_yolo_alone() -> None:
    value = Value("tensor", "float32", ("batch", 4, "n"))
    with pytest.raises(FlowError, match="the model's outputs"):
        BoxDecode.model_validate({"box_decode": {"decoded": {}}}).flow(value)


def sizes(**changes: tuple[Dim, ...]) -> Value:
    shapes: dict[str, tuple[Dim, ...]] = {
        "boxes": ("batch", 46 * 2 - 6, 4),
        "scores": ("batch", 86, 3),
        "flat": ("batch", 86),
        "labels": ("batch", 86),
    }
    fields = {n: Value("tensor", "float32", shape) for n, shape in (shapes | changes).items()}
    fields["labels"] = fields["labels"].but(dtype="int64")
    return Value("tensors", fields=fields)


WRONG: dict[str, tuple[dict[str, Any], Value, str, str]] = {
    "an output that is not there": (
        {"ssd": {**PRIORS, "boxes": "bxoes"}},
        sizes(),
        "reads 'bxoes', which is no output",
        "did you mean 'boxes'?",
    ),
    "too few priors": (
        {"ssd": {**PRIORS, "sizes": [[8], [30]]}},
        sizes(),
        "the options make 46 priors, 'boxes' is [batch, 86, 4]",
        "correct the sizes of the maps, or what is at each of their cells",
    ),
    "a background that is not there": (
        {"ssd": {**PRIORS, "background": 3}},
        sizes(),
        "background: 3, found 3 classes",
        "name the class that means nothing is there, or none",
    ),
    "five numbers for a box": (
        {"decoded": {}},
        sizes(boxes=("batch", 86, 5)),
        "takes 'boxes' of shape [batch, n, 4], found [batch, 86, 5]",
        "name another output, or correct the options",
    ),
    "another number of scores": (
        {"decoded": {"scores": "flat"}},
        sizes(flat=("batch", 85)),
        "takes 'boxes' of shape [batch, 85, 4], found [batch, 86, 4]",
        "name another output, or correct the options",
    ),
    "labels beside a score for each class": (
        {"decoded": {"labels": "labels", "classes": 3}},
        sizes(),
        "'scores' has a score for each",
        "remove labels and classes",
    ),
    "labels that are no integers": (
        {"decoded": {"scores": "flat", "labels": "flat", "classes": 3}},
        sizes(),
        "takes 'flat' as integers, found float32",
        "name the output of class indices",
    ),
    "softmax over one score": (
        {"decoded": {"scores": "flat", "activation": "softmax"}},
        sizes(),
        "has one for each box",
        "use activation: sigmoid or none",
    ),
    "cells that are not as many": (
        {"anchor_free": {"image": [32, 32], "strides": [8]}},
        sizes(),
        "the options make 16 cells, 'boxes' is [batch, 86, 4]",
        "correct the sizes of the maps, or what is at each of their cells",
    ),
    "a yolo of several outputs": (
        {"yolo": {}},
        sizes(),
        "takes one output, found boxes, scores, flat, labels",
        "name it under output",
    ),
    "a yolo the wrong way round": (
        {"yolo": {"output": "boxes"}},
        sizes(boxes=("batch", 84, 4)),
        "finds 0 class scores in [batch, 84, 4]",
        "expected at least 1; is transposed: true meant?",
    ),
    "a yolo of rank 2": (
        {"yolo": {"output": "flat"}},
        sizes(),
        "takes a floating point tensor [batch, n, numbers]",
        "name the output that holds the rows of boxes",
    ),
}


@pytest.mark.parametrize(("options", "value", "message", "hint"), WRONG.values(), ids=WRONG.keys())
def test_outputs_that_do_not_fit_are_refused(
    options: dict[str, Any], value: Value, message: str, hint: str
) -> None:
    with pytest.raises(FlowError) as caught:
        BoxDecode.model_validate({"box_decode": options}).flow(value)
    assert message in caught.value.message
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of ssd, anchor_free, yolo, decoded; found none"),
        ({"yolo": {}, "decoded": {}}, "found yolo and decoded"),
        ({"ssd": {"image": [8, 8], "sizes": [[4]]}}, "expected maps, strides or both"),
        ({"ssd": {"image": [8, 8], "strides": [8]}}, "exactly one of sizes and scales, found none"),
        ({"ssd": {**PRIORS, "sizes": [[8]]}}, "sizes has 1 entries, expected 2 for 2 maps"),
        ({"ssd": {**PRIORS, "ratios": [[2], [2]]}}, "ratios go with scales"),
        (
            {"ssd": {"image": [8, 8], "strides": [8], "scales": [0.1]}},
            "scales has 1 entries, expected 2 for 1 maps",
        ),
        ({"decoded": {"labels": "labels"}}, "labels and classes go together"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        BoxDecode.model_validate({"box_decode": options})


def test_its_json_schema_knows_every_family() -> None:
    schema = TypeAdapter(BoxDecode).json_schema()
    inner = str(schema)
    for family in ("Ssd", "AnchorFree", "Yolo", "Decoded"):
        assert family in inner


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("ssd", {**PRIORS, "activation": "sigmoid", "max_growth": 62.5}),
        ("anchor_free", {"image": [40, 64], "strides": [8], "objectness": "object"}),
        ("decoded", {**TORCHVISION, "format": "xywh"}),
    ],
)
def test_what_is_copied_stays_within_88_columns_up_to_the_answer(
    rng: np.random.Generator, family: str, options: dict[str, Any]
) -> None:
    from compiler.processing.copying import Copied
    from specs.ops._boxes import detection_entries
    from specs.ops.box_convert import BoxConvert
    from specs.ops.nms import Nms
    from specs.ops.scale_boxes_back import ScaleBoxesBack

    copied, (value, _) = Copied(), outputs(rng, 86 if family == "ssd" else 40)
    steps = [
        BoxDecode.model_validate({"box_decode": {family: options}}),
        BoxConvert(to="xyxy", units="pixels", image=(40, 64)),
        Nms(),
        ScaleBoxesBack(),
        BoxConvert(to="xywh"),
    ]
    for step in steps:
        for function in step.emit(value).functions:
            copied.add(function)
        value = step.flow(value)
    yolo = BoxDecode.model_validate({"box_decode": {"yolo": {}}})
    for function in (*yolo.emit(value).functions, detection_entries):
        copied.add(function)
    lines = "\n".join(copied.functions.values()).split("\n")
    assert max(map(len, lines)) <= 88
