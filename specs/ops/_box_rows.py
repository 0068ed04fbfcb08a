"""The families ``yolo`` and ``decoded`` of ``box_decode``: the model wrote whole boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from specs.ops._base import Emitted, Graph, Libraries, Symbols
from specs.ops._box_family import (
    OP,
    Family,
    Heads,
    Name,
    as_float,
    drop_class,
    float_part,
    float_symbol,
    pair,
    part,
)
from specs.ops._boxes import (
    BOX,
    boxes_value,
    columns,
    convert_boxes,
    convert_in_graph,
    literal,
    need_shape,
    symbol,
)
from specs.ops._checks import FLOATS
from specs.ops.sigmoid import sigmoid
from specs.values import Dim, FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Decoded", "Yolo"]

Format = Literal["xyxy", "xywh", "cxcywh"]
Units = Literal["pixels", "fraction"]
HEAD_RANK = 3


class Yolo(Family):
    """One output with a row for each box: the box, maybe objectness, then a score for each class.

    As YOLOv5 and YOLOX write it, ``[batch, n, 5 + classes]``, and, with ``transposed: true`` and
    ``objectness: false``, YOLOv8 and later, ``[batch, 4 + classes, n]``. A class's score is
    multiplied by the objectness.
    """

    output: Name | None = None
    """The output; needed where the model has several."""
    transposed: bool = False
    """The rows lie along the last axis: [batch, numbers, n]."""
    objectness: bool = True
    """The fifth number says whether there is anything."""
    classes: Annotated[int, Field(ge=1, strict=True)] | None = None
    """How many class scores follow; by default all that is left. Others (masks) are left out."""
    format: Format = "cxcywh"
    """How the boxes are written."""
    units: Units = "pixels"
    """What their numbers count: pixels of the model's input, or fractions of it."""
    activation: Literal["sigmoid", "none"] = "none"
    """What turns objectness and scores into probabilities; none where the model did."""

    @property
    def before(self) -> int:
        """Numbers before the class scores."""
        return BOX + self.objectness

    def flow(self, value: Value) -> Value:
        found = self._output(value)
        if found.dtype not in FLOATS or len(found.shape) != HEAD_RANK:
            wanted = "[batch, numbers, n]" if self.transposed else "[batch, n, numbers]"
            message = f"{OP} takes a floating point tensor {wanted}, found {found}"
            raise FlowError(message, "name the output that holds the rows of boxes")
        batch, rows, numbers = found.shape
        if self.transposed:
            rows, numbers = numbers, rows
        scores: tuple[Dim, ...] = (batch, rows, self._classes(numbers, found))
        return boxes_value(scores, self.units, probability=self.activation != "none")

    def _output(self, value: Value) -> Value:
        if value.kind == "tensor" and self.output is None:
            return value
        if self.output is None:
            names = ", ".join(value.fields) or str(value)
            message = f"{OP} takes one output, found {names}"
            raise FlowError(message, "name it under output")
        return part(value, self.output)

    def _classes(self, numbers: Dim, found: Value) -> Dim:
        if isinstance(numbers, str):
            return self.classes or "classes"
        left = numbers - self.before
        if left < (self.classes or 1):
            message = f"{OP} finds {max(left, 0)} class scores in {show_shape(found.shape)}"
            other = "false" if self.transposed else "true"
            hint = f"expected {self.classes or 'at least 1'}; is transposed: {other} meant?"
            raise FlowError(message, hint)
        return self.classes or left

    def emit(self, value: Value) -> Emitted:
        del value
        x = f'{{x}}["{self.output}"]' if self.output else "{x}"
        options = {
            "transposed": self.transposed,
            "objectness": self.objectness,
            "classes": self.classes,
            "format": self.format,
            "activation": self.activation,
        }
        comment = "Take the boxes and the scores of their classes from the rows."
        return Emitted(f"split_rows({x}, ROWS)", comment, (split_rows,), {"ROWS": literal(options)})

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> dict[str, str]:
        found = self._output(value)
        rows = symbol(x, self.output or "")
        rows = rows if found.dtype == "float32" else graph.cast(rows, "float32")
        rows = graph.add("Transpose", rows, perm=[0, 2, 1]) if self.transposed else rows
        boxes = convert_in_graph(graph, columns(graph, rows, 0, BOX), self.format, "xyxy")
        last = self.before + self.classes if self.classes else int(np.iinfo(np.int64).max)
        scores = self._activated(graph, columns(graph, rows, self.before, last))
        if self.objectness:
            one = self._activated(graph, columns(graph, rows, BOX, BOX + 1))
            scores = graph.add("Mul", scores, one)
        return {"boxes": boxes, "scores": scores}

    def _activated(self, graph: Graph, x: str) -> str:
        return graph.add("Sigmoid", x) if self.activation == "sigmoid" else x

    def reference(self, x: Any, value: Value, lib: Libraries) -> dict[str, Any]:
        rows = lib.torch.from_numpy(x[self.output] if self.output else x).float()
        rows = rows.permute(0, 2, 1) if self.transposed else rows
        numbers = rows[..., 4:].sigmoid() if self.activation == "sigmoid" else rows[..., 4:]
        scores = numbers[..., 1:] * numbers[..., :1] if self.objectness else numbers
        boxes = lib.ops.box_convert(rows[..., :4].contiguous(), self.format, "xyxy")
        return {"boxes": boxes.numpy(), "scores": scores[..., : self.classes].numpy()}


class Decoded(Heads):
    """Whole boxes and their scores, in two outputs or three.

    ``scores`` is [batch, n, classes]; or [batch, n], for the only class, or for that which
    ``labels`` [batch, n] names, as torchvision's detectors have it: rows without a detection have
    a score of 0 or less, and ``nms`` drops them.
    """

    labels: Name | None = None
    """An output [batch, n] of integers: the class of each row."""
    classes: Annotated[int, Field(ge=1, strict=True)] | None = None
    """How many classes ``labels`` tells apart."""
    format: Format = "xyxy"
    """How the boxes are written."""
    units: Units = "pixels"
    """What their numbers count: pixels of the model's input, or fractions of it."""

    @model_validator(mode="after")
    def _check(self) -> Decoded:
        if (self.labels is None) != (self.classes is None):
            raise ValueError("labels and classes go together: classes says how many there are")
        return self

    def flow(self, value: Value) -> Value:
        if not self._flat(value):
            if self.labels:
                message = f"labels name each row's class, but '{self.scores}' has a score for each"
                raise FlowError(message, "remove labels and classes")
            return self.result(self.flow_scores(value, "n"), self.units)
        if self.activation == "softmax":
            message = f"softmax needs a score for each class, '{self.scores}' has one for each box"
            raise FlowError(message, "use activation: sigmoid or none")
        batch, rows = float_part(value, self.scores).shape
        need_shape(OP, self.boxes, float_part(value, self.boxes), ("batch", rows, BOX))
        if self.labels:
            self._check_labels(part(value, self.labels), rows)
        return self.result((batch, rows, self.kept(self.classes or 1)), self.units)

    def _check_labels(self, labels: Value, rows: Dim) -> None:
        """They are integers, one for each row."""
        need_shape(OP, self.labels or "", labels, ("batch", rows))
        if not labels.dtype.startswith(("int", "uint")):
            message = f"{OP} takes '{self.labels}' as integers, found {labels.dtype}"
            raise FlowError(message, "name the output of class indices")

    def _flat(self, value: Value) -> bool:
        """Whether each row has one score."""
        return len(float_part(value, self.scores).shape) < HEAD_RANK

    def emit(self, value: Value) -> Emitted:
        boxes = f'as_float({{x}}["{self.boxes}"])'
        scores, more = self._emit_spread(value)
        functions = (as_float, *more)
        if self.format != "xyxy":
            boxes = f'convert_boxes({boxes}, "{self.format}", "xyxy")'
            functions = (convert_boxes, *functions)
        comment = "Take the boxes and the scores of their classes."
        return Emitted(pair({"boxes": boxes, "scores": scores}), comment, functions)

    def _emit_spread(self, value: Value) -> tuple[str, tuple[Callable[..., Any], ...]]:
        """A Python expression of the finished scores, and what it calls."""
        if not self._flat(value):
            return self.emit_scores(f'{{x}}["{self.scores}"]')
        text, functions = self.activated(f'as_float({{x}}["{self.scores}"])')
        labels = f'{{x}}["{self.labels}"]' if self.labels else "None"
        spread = f"spread_scores({text}, {labels}, {self.classes or 1})"
        functions = (*functions, spread_scores)
        if self.background is None:
            return spread, functions
        return f"drop_class({spread}, {self.background})", (*functions, drop_class)

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> dict[str, str]:
        boxes = float_symbol(graph, x, value, self.boxes)
        corners = convert_in_graph(graph, boxes, self.format, "xyxy")
        # An answer must not be the model's own output: that name is taken.
        corners = graph.add("Identity", corners) if corners == symbol(x, self.boxes) else corners
        if not self._flat(value):
            scores = self.fuse_scores(graph, x, value)
            return {"boxes": corners, "scores": scores}
        scores = graph.add("Unsqueeze", float_symbol(graph, x, value, self.scores), graph.ints(2))
        scores = self.fuse_activation(graph, scores)
        if self.labels:
            labels = graph.cast(symbol(x, self.labels), "int64")
            own = graph.add("Unsqueeze", labels, graph.ints(2))
            hit = graph.add("Equal", own, graph.ints(*range(self.classes or 1)))
            scores = graph.add("Where", hit, scores, graph.constant(0.0))
        return {"boxes": corners, "scores": self.fuse_background(graph, scores)}

    def reference(self, x: Any, value: Value, lib: Libraries) -> dict[str, Any]:
        torch = lib.torch
        boxes = torch.from_numpy(x[self.boxes]).float()
        corners = lib.ops.box_convert(boxes, self.format, "xyxy").numpy()
        if not self._flat(value):
            return {"boxes": corners, "scores": self.reference_scores(x, lib)}
        scores = self.activate(torch.from_numpy(x[self.scores]).float(), lib)[..., None]
        if self.labels:
            labels = torch.from_numpy(x[self.labels])[..., None]
            scores = torch.where(labels == torch.arange(self.classes), scores, 0.0)
        return {"boxes": corners, "scores": self.without_background(scores).numpy()}


def split_rows(
    rows: NDArray[Any],
    options: Mapping[str, Any],
) -> dict[str, NDArray[Any]]:
    """Return corners [batch, n, 4] and scores [batch, n, classes] of rows."""
    if options["transposed"]:
        rows = rows.swapaxes(1, 2)
    rows = np.asarray(rows, np.float32)
    numbers = rows[..., 4:]
    if options["activation"] == "sigmoid":
        numbers = sigmoid(numbers)
    scores = numbers[..., 1:] * numbers[..., :1] if options["objectness"] else numbers
    boxes = convert_boxes(rows[..., :4], options["format"], "xyxy")
    return {"boxes": boxes, "scores": scores[..., : options["classes"]]}


def spread_scores(
    scores: NDArray[Any],
    labels: NDArray[Any] | None,
    classes: int,
) -> NDArray[Any]:
    """Return scores [batch, n, classes] of rows [batch, n] that have one class each."""
    if labels is None:
        return scores[..., None]
    own = labels[..., None] == np.arange(classes)
    return np.where(own, scores[..., None], 0)
