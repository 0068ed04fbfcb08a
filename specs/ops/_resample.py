"""Resizing as two matrix products, with the weights computed in the graph from the sizes.

Every number that a weight comes from is a whole one below 2^24 where the weight is not zero, so
that float32 holds it exactly; what is rounded is the division at the end. Weights are [target,
source] along the height, and [source, target] along the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specs.ops._frames import graph_range
from specs.ops._sizes import graph_size

if TYPE_CHECKING:
    from specs.ops._graph import Graph
    from specs.ops._sizes import GraphSize, Size

__all__ = ["EXACT", "Filter", "Side", "resample"]

SUPPORT = {"bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}
"""Half the width of Pillow's filters, in pixels of the smaller image."""
EXACT = (*SUPPORT, "area")
"""What can be in the graph.

``nearest`` and ``box`` jump where a sample lies between two pixels; which one Pillow takes there
hangs on rounding errors of its float64 sums, which no engine's graph repeats.
"""
TORCH_CUBIC, PILLOW_CUBIC = -0.75, -0.5
"""Keys' parameter of the cubic kernel, in PyTorch and in Pillow (``bicubic_filter``)."""


@dataclass(frozen=True)
class Filter:
    """How pixels are weighed: the filter, and whether it widens when shrinking."""

    method: str
    antialias: bool


@dataclass(frozen=True)
class Side:
    """One axis of a resize.

    Args:
        graph: takes the nodes.
        axis: 0 for the height, 1 for the width: where the target's pixels are in the weights.
        length: the source's length, a vector [1] of int64.
        target: the target's, the same.
        filter: how pixels are weighed.
    """

    graph: Graph
    axis: int
    length: str
    target: str
    filter: Filter

    def weights(self) -> str:
        """The matrix."""
        if self.filter.method == "area":
            return self._area()
        return self._filtered() if self.filter.antialias else self._plain()

    def _filtered(self) -> str:
        """Pillow's ``precompute_coeffs``: the filter widens by the factor of shrinking."""
        graph = self.graph
        base, rest, twice = self._split(self._middles())
        wider = self._float(
            graph.add("Mul", graph.add("Max", self.length, self.target), graph.ints(2))
        )
        away = self._times(graph.add("Sub", self._columns(), self._spread(base)), twice)
        shift = self._spread(graph.add("Sub", self.target, rest))
        x = graph.add("Div", graph.add("Add", away, shift), wider)
        weights = _kernel(graph, self.filter.method, graph.add("Abs", x))
        total = graph.add("ReduceSum", weights, graph.ints(1 - self.axis), keepdims=1)
        return graph.add("Div", weights, total)

    def _plain(self) -> str:
        """PyTorch's ``interpolate(align_corners=False)``: two or four pixels, whatever the size."""
        graph = self.graph
        center = graph.add("Sub", self._middles(), self.target)
        if self.filter.method == "bilinear":
            last = graph.add("Sub", self.length, graph.ints(1))
            limit = graph.add("Mul", graph.add("Mul", last, self.target), graph.ints(2))
            center = graph.add("Min", graph.add("Max", center, graph.ints(0)), limit)
            return _triangle(graph, self._distance(center, 0))
        base = graph.add("Add", center, graph.add("Mul", self.target, graph.ints(2)))
        return self._replicated(base)

    def _distance(self, center: str, shift: int) -> str:
        """From every source pixel to a center given in halves of the target's pixels."""
        graph = self.graph
        base, rest, twice = self._split(center)
        whole = graph.add("Sub", base, graph.ints(shift))
        away = graph.add("Sub", self._columns(), self._spread(whole))
        part = graph.add("Div", self._spread(rest), self._float(twice))
        return graph.add("Abs", graph.add("Sub", away, part))

    def _replicated(self, center: str) -> str:
        """The cubic kernel; pixels beyond the ends repeat the first and the last.

        ``center`` is one pixel too far, so that it is above zero and integers divide as they do
        in Python.
        """
        graph = self.graph
        weights = _cubic(graph, self._distance(center, 1), TORCH_CUBIC)
        base, rest, twice = self._split(center)
        part = graph.add("Div", self._spread(rest), self._float(twice))
        whole = graph.add("Sub", base, graph.ints(1))
        last = graph.add("Sub", self.length, graph.ints(1))
        before = graph.add("Add", self._spread(whole), part)
        after = graph.add("Sub", self._spread(graph.add("Sub", last, whole)), part)
        for end, away in ((graph.ints(0), before), (last, after)):
            here = graph.add("Equal", self._columns(), self._float(end))
            beyond = graph.add("Mul", self._beyond(away), graph.cast(here, "float32"))
            weights = graph.add("Add", weights, beyond)
        return weights

    def _beyond(self, away: str) -> str:
        """What the kernel gives the two pixels beyond an end that is ``away``."""
        graph = self.graph
        first, second = (
            _cubic(graph, graph.add("Add", away, graph.constant(n)), TORCH_CUBIC) for n in (1, 2)
        )
        return graph.add("Add", first, second)

    def _area(self) -> str:
        """The share of a target's pixel that each of the source's covers."""
        graph = self.graph
        start = graph.add("Mul", self._rows(), self.length)
        base = graph.add("Div", start, self.target)
        rest = self._spread(graph.add("Sub", start, graph.add("Mul", base, self.target)))
        left = self._times(graph.add("Sub", self._columns(), self._spread(base)), self.target)
        length, target = self._float(self.length), self._float(self.target)
        low = graph.add("Max", rest, left)
        high = graph.add("Min", graph.add("Add", rest, length), graph.add("Add", left, target))
        return graph.add("Div", graph.add("Relu", graph.add("Sub", high, low)), length)

    def _rows(self) -> str:
        """The target's pixels by number."""
        return graph_range(self.graph, self.target)

    def _middles(self) -> str:
        """Where each target pixel's middle is, in halves of the target's pixels."""
        graph = self.graph
        odd = graph.add("Add", graph.add("Mul", self._rows(), graph.ints(2)), graph.ints(1))
        return graph.add("Mul", odd, self.length)

    def _split(self, center: str) -> tuple[str, str, str]:
        """Whole pixels, what is left of each, and twice the target's length."""
        graph = self.graph
        twice = graph.add("Mul", self.target, graph.ints(2))
        base = graph.add("Div", center, twice)
        return base, graph.add("Sub", center, graph.add("Mul", base, twice)), twice

    def _columns(self) -> str:
        """The source's pixels by number, float32, along their axis."""
        graph = self.graph
        return graph.add(
            "Unsqueeze", self._float(graph_range(graph, self.length)), graph.ints(self.axis)
        )

    def _spread(self, rows: str) -> str:
        """One number for each target pixel, float32, along their axis."""
        return self.graph.add("Unsqueeze", self._float(rows), self.graph.ints(1 - self.axis))

    def _float(self, x: str) -> str:
        return self.graph.cast(x, "float32")

    def _times(self, x: str, whole: str) -> str:
        return self.graph.add("Mul", x, self._float(whole))


def resample(  # noqa: PLR0913 - a resize has that many parts
    graph: Graph, x: str, goal: GraphSize, how: Filter, *, fixed: Size | None, dtype: str
) -> str:
    """Resize ``x`` [batch, height, width, channels] to ``goal``, as whole numbers where uint8.

    Args:
        graph: takes the nodes.
        x: the images.
        goal: the new height and width.
        how: the filter.
        fixed: the new height and width, where they are known.
        dtype: the images' type. uint8 is rounded after each pass with antialias, as Pillow does,
            else once; half of a grey level goes up.
    """
    planes = graph.cast(graph.add("Transpose", x, perm=[0, 3, 1, 2]), "float32")
    passes = _Passes(graph, planes, graph_size(graph, x), how)
    if dtype == "uint8" and how.antialias and how.method != "area":
        result = passes.rounded(goal)
    else:
        result = passes.once(goal)
        result = passes.levels(result) if dtype == "uint8" else result
    if fixed:
        result = graph.add("Reshape", result, graph.ints(0, 0, *fixed))
    return graph.pixels(graph.add("Transpose", result, perm=[0, 2, 3, 1]), dtype)


@dataclass(frozen=True)
class _Passes:
    """Products of ``planes`` [batch, channels, height, width], float32, with weights."""

    graph: Graph
    planes: str
    now: GraphSize
    how: Filter

    def once(self, goal: GraphSize) -> str:
        """Both passes, without rounding between them."""
        return self._down(self._across(self.planes, goal), goal)

    def rounded(self, goal: GraphSize) -> str:
        """Both passes, rounded after each, in Pillow's order.

        Pillow 13 does the height first where it shrinks by more than twice as many pixels as the
        width, and the width first elsewhere. Both orders are in the graph; the one that is not
        taken makes a single pixel, so that it costs next to nothing.
        """
        graph, one = self.graph, self.graph.ints(1)
        first = self._height_first(goal)
        tall: GraphSize = (
            graph.add("Where", first, goal[0], one),
            graph.add("Where", first, goal[1], one),
        )
        wide: GraphSize = (
            graph.add("Where", first, one, goal[0]),
            graph.add("Where", first, one, goal[1]),
        )
        by_height = self.levels(self._across(self.levels(self._down(self.planes, tall)), tall))
        by_width = self.levels(self._down(self.levels(self._across(self.planes, wide)), wide))
        return graph.add("Where", first, by_height, by_width)

    def levels(self, x: str) -> str:
        """Whole grey levels; the cubic kernel and lanczos overshoot."""
        graph = self.graph
        rounded = graph.add("Floor", graph.add("Add", x, graph.constant(0.5)))
        if self.how.method not in ("bicubic", "lanczos"):
            return rounded
        return graph.add("Clip", rounded, graph.constant(0), graph.constant(255))

    def _height_first(self, goal: GraphSize) -> str:
        graph = self.graph
        less = [graph.add("Sub", a, b) for a, b in zip(self.now, goal, strict=True)]
        more = graph.add("Greater", less[0], graph.add("Mul", less[1], graph.ints(2)))
        return graph.add("And", more, graph.add("Greater", less[0], graph.ints(0)))

    def _down(self, x: str, goal: GraphSize) -> str:
        weights = Side(self.graph, 0, self.now[0], goal[0], self.how).weights()
        return self.graph.add("MatMul", weights, x)

    def _across(self, x: str, goal: GraphSize) -> str:
        weights = Side(self.graph, 1, self.now[1], goal[1], self.how).weights()
        return self.graph.add("MatMul", x, weights)


def _kernel(graph: Graph, method: str, x: str) -> str:
    """Pillow's filter (``Resample.c``) at distances ``x``."""
    if method == "bilinear":
        return _triangle(graph, x)
    if method == "bicubic":
        return _cubic(graph, x, PILLOW_CUBIC)
    # Zero has no quotient; so near to it, it is 1 in float32.
    near = graph.add("Clip", x, graph.constant(1e-6), graph.constant(SUPPORT[method]))
    window = _sinc(graph, near)
    if method == "lanczos":
        third = graph.add("Div", near, graph.constant(SUPPORT[method]))
        return graph.add("Mul", window, _sinc(graph, third))
    cosine = graph.add("Cos", graph.add("Mul", near, graph.constant(math.pi)))
    hamming = graph.add("Add", graph.add("Mul", cosine, graph.constant(0.46)), graph.constant(0.54))
    return graph.add("Mul", window, hamming)


def _triangle(graph: Graph, x: str) -> str:
    return graph.add("Relu", graph.add("Sub", graph.constant(1), x))


def _sinc(graph: Graph, x: str) -> str:
    angle = graph.add("Mul", x, graph.constant(math.pi))
    return graph.add("Div", graph.add("Sin", angle), angle)


def _cubic(graph: Graph, x: str, a: float) -> str:
    """Keys' kernel at distances ``x``."""
    x = graph.add("Min", graph.add("Abs", x), graph.constant(2))
    near = _polynomial(graph, x, (a + 2, -(a + 3), 0, 1))
    far = _polynomial(graph, x, (a, -5 * a, 8 * a, -4 * a))
    return graph.add("Where", graph.add("Less", x, graph.constant(1)), near, far)


def _polynomial(graph: Graph, x: str, factors: tuple[float, ...]) -> str:
    first, *rest = factors
    result = graph.constant(first)
    for factor in rest:
        result = graph.add("Add", graph.add("Mul", result, x), graph.constant(factor))
    return result
