"""Cutting and framing in the graph, by the numbers of the rows and columns to take.

Taking rows by number does what Slice and Pad do, for sizes that are known when it runs, with a
result whose size is known before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from specs.ops._graph import Graph
    from specs.ops._sizes import GraphSize

__all__ = ["Edge", "framed", "graph_range"]

Edge = Literal["constant", "edge", "reflect"]
"""What is beyond an image: a colour, its outermost pixels, or its mirror image without them."""


def graph_range(graph: Graph, length: str | int) -> str:
    """Return the int64 vector 0, 1, … below ``length``, a number or the name of a vector [1]."""
    if isinstance(length, int):
        return graph.constant(np.arange(length), "int64")
    zero, one = graph.constant(0, "int64"), graph.constant(1, "int64")
    return graph.add("Range", zero, graph.add("Squeeze", length), one)


def framed(  # noqa: PLR0913 - a frame has that many parts
    graph: Graph,
    x: str,
    corner: GraphSize,
    size: tuple[str | int, str | int],
    *,
    edge: Edge = "constant",
    fill: tuple[float, ...] = (0.0,),
    dtype: str = "uint8",
) -> str:
    """Take a window of images ``x`` [batch, height, width, channels].

    Args:
        graph: takes the nodes.
        x: the images.
        corner: names of vectors [1] of int64: the window's first row and column; below zero
            where it begins beyond the image.
        size: the window's height and width, numbers or names of vectors [1] of int64.
        edge: what is beyond the image.
        fill: the colour there: one number, or one for each channel.
        dtype: the images' type.
    """
    inside: list[str] = []
    for axis, (start, length) in enumerate(zip(corner, size, strict=True), start=1):
        wanted = graph.add("Add", graph_range(graph, length), start)
        last = graph.add("Sub", graph.size(x, axis), graph.ints(1))
        at = _mirrored(graph, wanted, last) if edge == "reflect" else wanted
        taken = graph.add("Min", graph.add("Max", at, graph.ints(0)), last)
        inside.append(graph.add("Equal", wanted, taken))
        x = graph.add("Gather", x, taken, axis=axis)
    if edge != "constant":
        return x
    rows = graph.add("Unsqueeze", inside[0], graph.ints(1, 2))
    mask = graph.add("And", rows, graph.add("Unsqueeze", inside[1], graph.ints(1)))
    kept = "float32" if graph.whole_floats and dtype == "uint8" else dtype
    return graph.add("Where", mask, x, graph.constant(fill, kept))


def _mirrored(graph: Graph, wanted: str, last: str) -> str:
    """Go to and fro between the first and the last: ... 2 1 0 1 2 ... last-1 last last-1 ..."""
    period = graph.add("Max", graph.add("Mul", last, graph.ints(2)), graph.ints(1))
    away = graph.add("Abs", wanted)
    turns = graph.add("Mul", graph.add("Div", away, period), period)
    rest = graph.add("Sub", away, turns)
    return graph.add("Min", rest, graph.add("Sub", period, rest))
