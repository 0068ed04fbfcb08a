"""Boxes and detections: what their ops share. Copied into ``processing.py`` where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from specs.ops._graph import Graph, Symbols
from specs.values import Dim, FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BOX",
    "boxes_value",
    "columns",
    "convert_boxes",
    "convert_in_graph",
    "detection_entries",
    "literal",
    "need_boxes",
    "need_shape",
    "pick_rows",
    "symbol",
]

BOX = 4
"""Numbers of a box."""


def boxes_value(scores: tuple[Dim, ...], units: Any, *, probability: bool) -> Value:
    """The type of candidate boxes as corners, for scores of the shape ``scores``.

    Its own shape is that of the scores [batch, n, classes], so that the last size counts classes.
    """
    boxes = Value("tensor", "float32", (*scores[:2], BOX))
    low, high = (0.0, 1.0) if probability else (None, None)
    found = Value("tensor", "float32", scores, low=low, high=high, probability=probability)
    fields = {"boxes": boxes, "scores": found}
    return Value("boxes", "float32", scores, fields=fields, boxes="xyxy", units=units)


def need_boxes(op: str, value: Value, *, corners: bool = False) -> None:
    """``value`` holds boxes, before or after non-maximum suppression; as ``corners`` if asked."""
    if value.kind not in ("boxes", "detections"):
        raise FlowError(f"{op} takes boxes, found {value}", f"put - box_decode before {op}")
    if corners and value.boxes != "xyxy":
        message = f"{op} takes boxes as corners (xyxy), found {value.boxes}"
        raise FlowError(message, f"put - box_convert: xyxy before {op}")


def need_shape(op: str, name: str, value: Value, want: tuple[Dim, ...]) -> None:
    """``value`` is an array whose sizes are those of ``want``; a name there stands for any size."""
    found = value.shape
    pairs = zip(found, want, strict=False)
    good = len(found) == len(want) and all(
        isinstance(wanted, str) or isinstance(size, str) or size == wanted for size, wanted in pairs
    )
    if not good:
        message = f"{op} takes '{name}' of shape {show_shape(want)}, found {show_shape(found)}"
        raise FlowError(message, "name another output, or correct the options")


def literal(options: Mapping[str, bool | float | str | None]) -> str:
    """A Python expression of a dict of plain values."""
    values = {key: f'"{x}"' if isinstance(x, str) else repr(x) for key, x in options.items()}
    return "{" + ", ".join(f'"{key}": {text}' for key, text in values.items()) + "}"


def symbol(x: Symbols, name: str = "") -> str:
    """The tensor of one part in the graph; the lone one where the value has no parts."""
    return x if isinstance(x, str) else x[name]


def columns(graph: Graph, x: str, start: int, stop: int, axis: int = 2) -> str:
    """Part of an axis of a tensor in the graph."""
    return graph.add("Slice", x, graph.ints(start), graph.ints(stop), graph.ints(axis))


def pick_rows(graph: Graph, x: str, rows: str) -> str:
    """The rows [batch, k] of ``x`` [batch, n, ...], in the graph."""
    index = graph.add("Unsqueeze", rows, graph.ints(-1))
    return graph.add("GatherND", x, index, batch_dims=1)


def convert_in_graph(graph: Graph, x: str, have: str, want: str) -> str:
    """Boxes [batch, n, 4] in another form, in the graph."""
    if have == want:
        return x
    first, last = columns(graph, x, 0, 2), columns(graph, x, 2, BOX)
    half = graph.constant(0.5)
    if have == "cxcywh":
        first = graph.add("Sub", first, graph.add("Mul", last, half))
    size = graph.add("Sub", last, first) if have == "xyxy" else last
    if want == "xyxy":
        return graph.add("Concat", first, graph.add("Add", first, size), axis=2)
    if want == "cxcywh":
        first = graph.add("Add", first, graph.add("Mul", size, half))
    return graph.add("Concat", first, size, axis=2)


def convert_boxes(x: NDArray[Any], have: str, want: str) -> NDArray[Any]:
    """Return boxes [..., 4] in another form: xyxy, xywh or cxcywh."""
    if have == want:
        return x
    first, last = x[..., :2], x[..., 2:]
    if have == "cxcywh":
        first = first - last * np.float32(0.5)
    size = last - first if have == "xyxy" else last
    if want == "xyxy":
        return np.concatenate([first, first + size], axis=-1)
    if want == "cxcywh":
        first = first + size * np.float32(0.5)
    return np.concatenate([first, size], axis=-1)


def detection_entries(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one item's detections as the entries of an answer, best first."""
    labels = found.get("labels")
    rows = zip(found["classes"], found["scores"], found["boxes"], strict=True)
    return [
        {"index": int(index)}
        | ({"label": labels[int(index)]} if labels else {})
        | {"score": float(score), "box": [float(edge) for edge in box]}
        for index, score, box in rows
    ]
