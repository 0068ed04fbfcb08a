"""The family ``anchor_free`` of ``box_decode``: boxes that are told from the cells of a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Graph, Libraries, Symbols
from specs.ops._box_family import (
    OP,
    Activation,
    Heads,
    Name,
    Size,
    as_float,
    ceil_maps,
    counted,
    drop_class,
    float_part,
    float_symbol,
    pair,
)
from specs.ops._boxes import columns, convert_boxes, convert_in_graph, need_shape
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AnchorFree"]

Strides = Annotated[tuple[Annotated[int, Field(ge=1, strict=True)], ...], Field(min_length=1)]
HEAD_RANK = 3


class AnchorFree(Heads):
    """Boxes from the cells of grids, by map, row and column, in pixels of the model's input.

    ``ltrb``: distances from the cell's point to the left, top, right and bottom edges (FCOS, arXiv
    1904.01355; YOLOv8). ``cxcywh``: the centre's distance from the cell's point, and the logarithms
    of width and height (YOLOX, arXiv 2107.08430, with ``offset: 0``).
    """

    image: Size
    """Height and width of the model's input in pixels."""
    strides: Strides
    """Pixels from one cell of a map to the next; a map is the image over it, rounded up."""
    form: Literal["ltrb", "cxcywh"] = "ltrb"
    """What the four numbers are."""
    counts: Literal["strides", "pixels"] = "strides"
    """What they count."""
    offset: float = 0.5
    """Where in its cell the point is: 0.5 in the middle, 0 at the corner."""
    objectness: Name | None = None
    """An output [batch, n] or [batch, n, 1] that says whether there is anything (centre-ness)."""
    combine: Literal["product", "geometric_mean"] = "product"
    """How it joins a class's score; FCOS takes the geometric mean."""
    activation: Activation = "sigmoid"
    """What turns scores and objectness into probabilities; none where the model did."""

    @property
    def grids(self) -> list[Size]:
        """Heights and widths of the maps."""
        return ceil_maps(self.image, self.strides)

    @property
    def count(self) -> int:
        """How many cells there are."""
        return sum(rows * columns for rows, columns in self.grids)

    def flow(self, value: Value) -> Value:
        for name in (self.boxes, self.scores):
            counted(value, name, self.count, "cells")
        if self.objectness:
            found = float_part(value, self.objectness)
            tail = (1,) if len(found.shape) == HEAD_RANK else ()
            need_shape(OP, self.objectness, found, ("batch", self.count, *tail))
        return self.result(self.flow_scores(value, self.count), "pixels")

    def emit(self, value: Value) -> Emitted:
        del value
        scores, functions = self._emit_joined()
        strides = list(self.strides)
        decode = f'decode_cells({{x}}["{self.boxes}"], CELLS, "{self.form}", "{self.counts}")'
        return Emitted(
            pair({"boxes": decode, "scores": scores}),
            f"Decode the boxes of {self.count} cells, in pixels of the model's input.",
            (decode_cells, grid_cells, *functions),
            {"CELLS": f"grid_cells({self.grids}, {strides}, {self.offset})"},
        )

    def _emit_joined(self) -> tuple[str, tuple[Callable[..., Any], ...]]:
        """A Python expression of the finished scores, and what it calls."""
        scores, functions = self.activated(f'as_float({{x}}["{self.scores}"])')
        functions = (as_float, *functions)
        if self.objectness:
            one, _ = self.activated(f'as_float({{x}}["{self.objectness}"])')
            scores = f'join_scores({scores}, {one}, "{self.combine}")'
            functions = (*functions, join_scores)
        if self.background is None:
            return scores, functions
        return f"drop_class({scores}, {self.background})", (*functions, drop_class)

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> dict[str, str]:
        cells = grid_cells(self.grids, list(self.strides), self.offset)
        unit = cells[:, 2:] if self.counts == "strides" else np.ones_like(cells[:, 2:])
        stride, points = graph.constant(unit), graph.constant(cells[:, :2])
        numbers = float_symbol(graph, x, value, self.boxes)
        first, last = columns(graph, numbers, 0, 2), columns(graph, numbers, 2, 4)
        if self.form == "ltrb":
            start = graph.add("Sub", points, graph.add("Mul", first, stride))
            end = graph.add("Add", points, graph.add("Mul", last, stride))
            boxes = graph.add("Concat", start, end, axis=2)
        else:
            centers = graph.add("Add", points, graph.add("Mul", first, stride))
            sizes = graph.add("Mul", graph.add("Exp", last), stride)
            joined = graph.add("Concat", centers, sizes, axis=2)
            boxes = convert_in_graph(graph, joined, "cxcywh", "xyxy")
        return {"boxes": boxes, "scores": self._fuse_joined(graph, x, value)}

    def _fuse_joined(self, graph: Graph, x: Symbols, value: Value) -> str:
        scores = self.fuse_activation(graph, float_symbol(graph, x, value, self.scores))
        if self.objectness:
            one = self.fuse_activation(graph, float_symbol(graph, x, value, self.objectness))
            if len(value.fields[self.objectness].shape) < HEAD_RANK:
                one = graph.add("Unsqueeze", one, graph.ints(-1))
            scores = graph.add("Mul", scores, one)
            if self.combine == "geometric_mean":
                scores = graph.add("Sqrt", scores)
        return self.fuse_background(graph, scores)

    def reference(self, x: Any, value: Value, lib: Libraries) -> dict[str, Any]:
        torch = lib.torch
        numbers = torch.from_numpy(x[self.boxes]).float()
        points, strides = self._torch_points(torch)
        if self.counts == "pixels":
            strides = torch.ones_like(strides)
        if self.form == "ltrb":
            left, top, right, bottom = (numbers * strides).unbind(-1)
            px, py = points.unbind(-1)
            boxes = torch.stack([px - left, py - top, px + right, py + bottom], dim=-1)
        else:
            centers, sizes = numbers[..., :2] * strides + points, numbers[..., 2:].exp() * strides
            boxes = lib.ops.box_convert(torch.cat([centers, sizes], dim=-1), "cxcywh", "xyxy")
        return {"boxes": boxes.numpy(), "scores": self._torch_joined(x, lib)}

    def _torch_points(self, torch: Any) -> tuple[Any, Any]:
        """Points [n, 2] (x, y) and strides [n, 1]."""
        points: list[Any] = []
        strides: list[Any] = []
        for (high, wide), stride in zip(self.grids, self.strides, strict=True):
            down = (torch.arange(high) + self.offset) * stride
            right = (torch.arange(wide) + self.offset) * stride
            y, x = torch.meshgrid(down, right, indexing="ij")
            points.append(torch.stack([x.flatten(), y.flatten()], dim=1).float())
            strides.append(torch.full((high * wide, 1), float(stride)))
        return torch.cat(points), torch.cat(strides)

    def _torch_joined(self, x: Any, lib: Libraries) -> Any:
        scores = self.activate(lib.torch.from_numpy(x[self.scores]).float(), lib)
        if self.objectness:
            one = self.activate(lib.torch.from_numpy(x[self.objectness]).float(), lib)
            scores = scores * one.reshape(*scores.shape[:2], 1)
            scores = scores.sqrt() if self.combine == "geometric_mean" else scores
        return self.without_background(scores).numpy()


def grid_cells(
    grids: list[tuple[int, int]],
    strides: list[int],
    offset: float,
) -> NDArray[Any]:
    """Return each cell's point and stride [n, 3] (x, y, stride), in pixels."""
    found: list[NDArray[Any]] = []
    for (high, wide), stride in zip(grids, strides, strict=True):
        y, x = (np.mgrid[:high, :wide].reshape(2, -1) + offset) * stride
        found.append(np.stack([x, y, np.full_like(x, stride)], axis=1))
    return np.concatenate(found).astype(np.float32)


def decode_cells(
    numbers: NDArray[Any],
    cells: NDArray[Any],
    form: str,
    counts: str,
) -> NDArray[Any]:
    """Return the corners [batch, n, 4] of boxes that are told from cells of a grid."""
    numbers = numbers.astype(np.float32)
    points = cells[:, :2]
    unit = cells[:, 2:] if counts == "strides" else np.float32(1)
    first, last = numbers[..., :2], numbers[..., 2:]
    if form == "ltrb":
        return np.concatenate([points - first * unit, points + last * unit], axis=-1)
    boxes = np.concatenate([points + first * unit, np.exp(last) * unit], axis=-1)
    return convert_boxes(boxes, "cxcywh", "xyxy")


def join_scores(
    scores: NDArray[Any],
    objectness: NDArray[Any],
    combine: str,
) -> NDArray[Any]:
    """Return scores [batch, n, classes] joined with each box's objectness."""
    joined = scores * objectness.reshape(*scores.shape[:2], 1)
    return np.sqrt(joined) if combine == "geometric_mean" else joined
