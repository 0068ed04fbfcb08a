"""``five_crop``: the four corners and the middle of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_image
from specs.ops._frames import framed
from specs.ops._geometry import cropped
from specs.ops._sizes import graph_size
from specs.ops._source import BadInput
from specs.ops.center_crop import center_corner, center_start
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specs.ops._sizes import GraphSize

__all__ = ["FiveCrop"]

Length = Annotated[int, Field(ge=1, le=100_000, strict=True)]
CROPS = 5


class FiveCrop(Op):
    """Cut out the four corners and the middle: [5, height, width, channels].

    In torchvision's order: top left, top right, bottom left, bottom right, middle. The model's
    input is [batch, 5, channels, height, width]. A smaller image is refused.
    """

    name: ClassVar[str] = "five_crop"
    shorthand: ClassVar[str] = "size"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    size: Length | tuple[Length, Length]
    """Side of a square, or height and width."""

    def flow(self, value: Value) -> Value:
        *now, channels = need_image("five_crop", value)
        sides = self._sides()
        if any(isinstance(n, int) and n < side for n, side in zip(now, sides, strict=True)):
            message = f"five_crop takes {sides[0]}x{sides[1]} out of {now[0]}x{now[1]}"
            raise FlowError(message, "resize to at least that, or crop less")
        return value.but(shape=(CROPS, *sides, channels))

    def emit(self, value: Value) -> Emitted:
        del value
        height, width = self._sides()
        return Emitted(
            f"five_crop({{x}}, {height}, {width})",
            f"Cut {height}x{width} (height x width) out of the corners and the middle.",
            (five_crop, five_cropped),
            geometry=f"five_cropped({{at}}, ({height}, {width}))",
        )

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one image
        crops = [
            graph.add("Unsqueeze", self._crop(graph, x, corner, value.dtype), graph.ints(1))
            for corner in self._corners(graph, graph_size(graph, x))
        ]
        return Fused(graph.add("Concat", *crops, axis=1))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        planes = lib.torch.from_numpy(x).permute(2, 0, 1)
        crops = lib.vision.five_crop(planes, list(self._sides()))
        return lib.torch.stack(crops).permute(0, 2, 3, 1).numpy()

    def _sides(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def _crop(self, graph: Graph, x: str, corner: GraphSize, dtype: str) -> str:
        return framed(graph, x, corner, self._sides(), edge="edge", dtype=dtype)

    def _corners(self, graph: Graph, now: GraphSize) -> list[GraphSize]:
        zero = graph.ints(0)
        pairs = list(zip(now, self._sides(), strict=True))
        bottom, right = (graph.add("Sub", n, graph.ints(size)) for n, size in pairs)
        top, left = (center_start(graph, n, size) for n, size in pairs)
        return [(zero, zero), (zero, right), (bottom, zero), (bottom, right), (top, left)]


def five_crop(x: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Cut out the four corners and the middle, [5, height, width, channels]."""
    check_crop(x.shape[:2], (height, width))
    top, left = center_corner(x.shape[:2], (height, width))
    crops = [
        x[:height, :width],
        x[:height, -width:],
        x[-height:, :width],
        x[-height:, -width:],
        x[top : top + height, left : left + width],
    ]
    return np.stack(crops)


def check_crop(now: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuse an image that is smaller than a crop."""
    if now[0] < size[0] or now[1] < size[1]:
        found = f"the image has {now[1]}x{now[0]} pixels where it is cropped"
        message = f"{found}, at least {size[1]}x{size[0]} are needed"
        raise BadInput("too_small", message, "send a larger image")


def five_cropped(at: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return where the pixels of the middle are; the corners are elsewhere."""
    now = (int(at[6]), int(at[7]))
    check_crop(now, size)
    return cropped(at, center_corner(now, size), size)
