"""``pad``: a frame around an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import check_fill, need_image
from specs.ops._frames import Edge, framed
from specs.ops._geometry import padded, size_now
from specs.ops._sizes import graph_size
from specs.values import Dim, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pad"]

Frame = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Length = Annotated[int, Field(ge=0, le=100_000, strict=True)]
Multiple = Annotated[int, Field(ge=1, le=100_000, strict=True)]


class Pad(Op):
    """Put a frame around an image."""

    name: ClassVar[str] = "pad"
    shorthand: ClassVar[str] = "all"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    left: Length = 0
    """Columns before the first."""
    top: Length = 0
    """Rows before the first."""
    right: Length = 0
    """Columns after the last."""
    bottom: Length = 0
    """Rows after the last."""
    all: Length | None = None
    """The same on every side, in place of the four."""
    to_multiple_of: Multiple = 1
    """More rows below and columns on the right, until height and width are multiples of this."""
    mode: Edge = "constant"
    """What the frame is: one colour, the outermost pixels, or the mirror image without them."""
    fill: float | tuple[float, ...] = 0.0
    """The frame's value, or one for each channel, on the scale of the pixels at this step."""

    @model_validator(mode="after")
    def _check(self) -> Pad:
        sides = {"left", "top", "right", "bottom"} & self.model_fields_set
        rounds = self.to_multiple_of > 1
        if (self.all is not None and sides) or not (self.all is not None or sides or rounds):
            raise ValueError(
                "expected all, or some of left, top, right and bottom, or to_multiple_of"
            )
        if self.mode != "constant" and self.fill != 0:
            raise ValueError(f"fill goes with mode: constant, found {self.mode}")
        return self

    def flow(self, value: Value) -> Value:
        height, width, channels = need_image("pad", value)
        if self.mode == "constant":
            value = check_fill("pad", value, self.fill)
        left, top, right, bottom = self._sides()
        shape = (self._total(height, top + bottom), self._total(width, left + right), channels)
        return value.but(shape=shape)

    def emit(self, value: Value) -> Emitted:
        del value
        left, top, right, bottom = self._sides()
        frame = f"(({top}, {bottom}), ({left}, {right}), (0, 0))"
        shape, now = frame, frame
        functions = (pad,) if self.mode == "constant" else (pad_pixels,)
        if self.to_multiple_of > 1:
            shape = f"to_multiple({{x}}.shape[:2], {frame}, {self.to_multiple_of})"
            now = f"to_multiple(size_now({{at}}), {frame}, {self.to_multiple_of})"
            functions = (*functions, to_multiple, size_now)
        comment = f"Put a frame around: {left} left, {top} above, {right} right, {bottom} below."
        if self.to_multiple_of > 1:
            comment = f"{comment[:-1]}; sides become multiples of {self.to_multiple_of}."
        last = self._color() if self.mode == "constant" else f'"{self.mode}"'
        return Emitted(
            f"{functions[0].__name__}({{x}}, {shape}, {last})",
            comment,
            (*functions, frame_added),
            geometry=f"frame_added({{at}}, {now})",
        )

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one image
        left, top, right, bottom = self._sides()
        height, width = (
            self._graph_total(graph, now, more)
            for now, more in zip(graph_size(graph, x), (top + bottom, left + right), strict=True)
        )
        corner = (graph.ints(-top), graph.ints(-left))
        fill = tuple(self._fill())
        size, dtype = (height, width), value.dtype
        return Fused(framed(graph, x, corner, size, edge=self.mode, fill=fill, dtype=dtype))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        left, top, right, bottom = self._sides()
        below, after = (-(n + more) % self.to_multiple_of for n, more in self._lengths(x))
        frame = [left, top, right + after, bottom + below]
        fill = self._fill()
        colors = fill * x.shape[2] if len(fill) == 1 else fill
        planes = [
            # Pillow's images of one channel, "L" and "F", take every mode.
            lib.vision.pad(Image.fromarray(x[..., n]), frame, color, self.mode)
            for n, color in enumerate(colors)
        ]
        return np.stack([np.asarray(plane) for plane in planes], axis=2)

    def _lengths(self, x: Any) -> tuple[tuple[int, int], tuple[int, int]]:
        left, top, right, bottom = self._sides()
        return (x.shape[0], top + bottom), (x.shape[1], left + right)

    def _sides(self) -> tuple[int, int, int, int]:
        if self.all is not None:
            return self.all, self.all, self.all, self.all
        return self.left, self.top, self.right, self.bottom

    def _fill(self) -> list[float]:
        return list(self.fill) if isinstance(self.fill, tuple) else [self.fill]

    def _color(self) -> str:
        fill = self._fill()
        return f"({', '.join(map(repr, fill))})" if len(fill) > 1 else repr(fill[0])

    def _total(self, size: Dim, more: int) -> Dim:
        """The framed length; an open one stays open."""
        if not isinstance(size, int):
            return size
        return size + more + -(size + more) % self.to_multiple_of

    def _graph_total(self, graph: Graph, size: str, more: int) -> str:
        multiple = graph.ints(self.to_multiple_of)
        whole = graph.add("Add", size, graph.ints(more + self.to_multiple_of - 1))
        return graph.add("Mul", graph.add("Div", whole, multiple), multiple)


def pad(
    x: NDArray[Any],
    frame: Frame,
    fill: float | tuple[float, ...],
) -> NDArray[Any]:
    """Put rows and columns around; ``fill`` is one value or one by channel."""
    shape = [size + sum(more) for size, more in zip(x.shape, frame, strict=True)]
    whole = np.full(shape, fill, x.dtype)
    (top, _), (left, _), _ = frame
    whole[top : top + x.shape[0], left : left + x.shape[1]] = x
    return whole


def pad_pixels(x: NDArray[Any], frame: Frame, mode: Any) -> NDArray[Any]:
    """Put a frame around of the outermost pixels, or of the mirror image."""
    return np.pad(x, frame, mode)


def to_multiple(now: tuple[int, ...], frame: Frame, multiple: int) -> Frame:
    """Return a frame that grows below and on the right to a multiple."""
    (top, bottom), (left, right), _ = frame
    below = bottom + -(now[0] + top + bottom) % multiple
    return (top, below), (left, right + -(now[1] + left + right) % multiple), (0, 0)


def frame_added(at: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Return where the pixels are in a frame."""
    (top, bottom), (left, right), _ = frame
    size = (int(at[6]) + top + bottom, int(at[7]) + left + right)
    return padded(at, (top, left), size)
