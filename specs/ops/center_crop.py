"""``center_crop``: the middle of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_image
from specs.ops._frames import framed
from specs.ops._geometry import cropped
from specs.ops._sizes import graph_size
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CenterCrop", "center_corner", "center_start"]

Length = Annotated[int, Field(ge=1, le=100_000, strict=True)]


class CenterCrop(Op):
    """Cut the middle out as torchvision does; a smaller image is framed with zeros first."""

    name: ClassVar[str] = "center_crop"
    shorthand: ClassVar[str] = "size"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    size: Length | tuple[Length, Length]
    """Side of a square, or height and width."""

    def flow(self, value: Value) -> Value:
        *_, channels = need_image("center_crop", value)
        low = None if value.low is None else min(value.low, 0)
        high = None if value.high is None else max(value.high, 0)
        return value.but(shape=(*self.sides(), channels), low=low, high=high)

    def emit(self, value: Value) -> Emitted:
        del value
        height, width = self.sides()
        comment = f"Cut {height}x{width} (height x width) out of the middle."
        return Emitted(
            f"center_crop({{x}}, {height}, {width})",
            comment,
            (center_crop, center_cropped),
            geometry=f"center_cropped({{at}}, ({height}, {width}))",
        )

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one image
        sides = self.sides()
        top, left = (
            center_start(graph, now, size)
            for now, size in zip(graph_size(graph, x), sides, strict=True)
        )
        return Fused(framed(graph, x, (top, left), sides, dtype=value.dtype))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        planes = lib.torch.from_numpy(x).permute(2, 0, 1)
        return lib.vision.center_crop(planes, list(self.sides())).permute(1, 2, 0).numpy()

    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


def center_corner(now: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Return the first row and column; below zero where the image is smaller.

    Half a pixel is rounded to even, as torchvision does; what a smaller image lacks is
    put around it, an odd row below.
    """
    top, left = (
        -((most - n) // 2) if n < most else round((n - most) / 2)
        for n, most in zip(now, size, strict=True)
    )
    return top, left


def center_crop(x: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Cut the middle out, with zeros around it where ``x`` is smaller."""
    top, left = center_corner(x.shape[:2], (height, width))
    if x.shape[0] < height or x.shape[1] < width:
        above, before = max(-top, 0), max(-left, 0)
        below = max(height - x.shape[0] - above, 0)
        after = max(width - x.shape[1] - before, 0)
        x = np.pad(x, ((above, below), (before, after), (0, 0)))
        top, left = max(top, 0), max(left, 0)
    return x[top : top + height, left : left + width]


def center_cropped(at: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return where the pixels are after the crop."""
    return cropped(at, center_corner((int(at[6]), int(at[7])), size), size)


def center_start(graph: Graph, now: str, size: int) -> str:
    """``center_corner`` for one side, a vector [1] of int64."""
    two = graph.ints(2)
    spare = graph.add("Sub", now, graph.ints(size))
    half = graph.add("Div", spare, two)
    odd = graph.add("Max", graph.add("Sub", spare, graph.add("Mul", half, two)), graph.ints(0))
    # Half a pixel goes to the even neighbour; below zero, Div rounds towards zero already.
    uneven = graph.add("Sub", half, graph.add("Mul", graph.add("Div", half, two), two))
    return graph.add("Add", half, graph.add("Mul", odd, uneven))
