"""How large an image becomes when it is resized: in Python, and as whole numbers in the graph.

The Python functions are copied into ``processing.py``. Sizes are (height, width).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.ops._geometry import padded, resized
from specs.ops._source import check_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specs.ops._graph import Graph

__all__ = [
    "GraphSize",
    "Size",
    "fit_letterbox",
    "fit_longer_side",
    "fit_shorter_side",
    "graph_corner",
    "graph_letterbox",
    "graph_longer_side",
    "graph_shorter_side",
    "graph_size",
    "letterbox_corner",
    "letterboxed",
]

Size = tuple[int, int]
GraphSize = tuple[str, str]
"""Names of two vectors [1] of int64: height and width."""


def fit_shorter_side(now: tuple[int, ...], side: int, limit: int = 0) -> Size:
    """Return the size at which the shorter side has ``side`` pixels (torchvision's).

    The longer one becomes int(side * longer / shorter); above ``limit``, if any, it is
    ``limit``, and the shorter one int(limit * side / longer). A thin strip must not
    grow to a huge one: more than MAX_PIXELS are refused.
    """
    shorter, longer = min(now), side * max(now) // min(now)
    largest = min(limit or longer, longer)
    height, width = (max(1, largest * (side * n // shorter) // longer) for n in now)
    check_pixels(height, width, "resized, the image would have")
    return height, width


def fit_longer_side(now: tuple[int, ...], side: int) -> Size:
    """Return the size at which the longer side has ``side`` pixels (torchvision's)."""
    height, width = (max(1, side * n // max(now)) for n in now)
    return height, width


def fit_letterbox(now: tuple[int, ...], frame: Size) -> Size:
    """Return the largest size in ``frame`` of the same shape; halves go to even."""
    high = frame[0] * now[1] <= frame[1] * now[0]
    share, whole = (frame[0], now[0]) if high else (frame[1], now[1])
    parts = (divmod(n * share, whole) for n in now)
    height, width = (max(1, n + (2 * rest + n % 2 > whole)) for n, rest in parts)
    return height, width


def letterbox_corner(inner: Size, frame: Size, *, center: bool) -> Size:
    """Return (top, left) of the image in its frame; an odd row goes below."""
    if not center:
        return 0, 0
    return (frame[0] - inner[0]) // 2, (frame[1] - inner[1]) // 2


def letterboxed(at: NDArray[Any], frame: Size, *, center: bool) -> NDArray[Any]:
    """Return where the pixels are after a resize into a frame."""
    inner = fit_letterbox((int(at[6]), int(at[7])), frame)
    corner = letterbox_corner(inner, frame, center=center)
    return padded(resized(at, inner), corner, frame)


def graph_size(graph: Graph, x: str) -> GraphSize:
    """Height and width of the images ``x`` [batch, height, width, channels]."""
    return graph.size(x, 1), graph.size(x, 2)


def graph_shorter_side(graph: Graph, now: GraphSize, side: int, limit: int = 0) -> GraphSize:
    """``fit_shorter_side``, without its refusal."""
    shorter = graph.add("Min", *now)
    high, wide = (_share(graph, n, graph.ints(side), shorter) for n in now)
    if not limit:
        return high, wide
    longer = graph.add("Max", high, wide)
    largest = graph.add("Min", longer, graph.ints(limit))
    return _positive_share(graph, high, largest, longer), _positive_share(
        graph, wide, largest, longer
    )


def graph_longer_side(graph: Graph, now: GraphSize, side: int) -> GraphSize:
    """``fit_longer_side``."""
    longer, wanted = graph.add("Max", *now), graph.ints(side)
    height, width = now
    return _positive_share(graph, height, wanted, longer), _positive_share(
        graph, width, wanted, longer
    )


def graph_letterbox(graph: Graph, now: GraphSize, frame: Size) -> GraphSize:
    """``fit_letterbox``."""
    height, width = now
    rows, columns = graph.ints(frame[0]), graph.ints(frame[1])
    by_height = graph.add("Mul", rows, width)
    high = graph.add("LessOrEqual", by_height, graph.add("Mul", columns, height))
    share = graph.add("Where", high, rows, columns)
    whole = graph.add("Where", high, height, width)
    return _even_share(graph, height, share, whole), _even_share(graph, width, share, whole)


def graph_corner(graph: Graph, inner: GraphSize, frame: Size, *, center: bool) -> GraphSize:
    """Where the frame begins in the image: ``letterbox_corner``, below zero."""
    if not center:
        return graph.ints(0), graph.ints(0)
    top, left = (
        graph.add("Neg", graph.add("Div", graph.add("Sub", graph.ints(whole), part), graph.ints(2)))
        for part, whole in zip(inner, frame, strict=True)
    )
    return top, left


def _share(graph: Graph, n: str, share: str, whole: str) -> str:
    """``n * share // whole``."""
    return graph.add("Div", graph.add("Mul", n, share), whole)


def _positive_share(graph: Graph, n: str, share: str, whole: str) -> str:
    return graph.add("Max", _share(graph, n, share, whole), graph.ints(1))


def _even_share(graph: Graph, n: str, share: str, whole: str) -> str:
    """``n * share / whole``, rounded, halves to even, 1 at least."""
    product = graph.add("Mul", n, share)
    down = graph.add("Div", product, whole)
    rest = graph.add("Sub", product, graph.add("Mul", down, whole))
    odd = graph.add("Sub", down, graph.add("Mul", _half(graph, down), graph.ints(2)))
    above = graph.add("Add", graph.add("Mul", rest, graph.ints(2)), odd)
    up = graph.cast(graph.add("Greater", above, whole), "int64")
    return graph.add("Max", graph.add("Add", down, up), graph.ints(1))


def _half(graph: Graph, n: str) -> str:
    return graph.add("Div", n, graph.ints(2))
