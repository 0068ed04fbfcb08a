"""``pad``: a frame of one colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from specs.ops._base import Emitted, Op, Stage
from specs.ops._checks import need_image
from specs.values import Dim, FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pad"]

Frame = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Length = Annotated[int, Field(ge=0, le=100_000, strict=True)]


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
    fill: float | tuple[float, ...] = 0.0
    """The frame's value, or one for each channel, on the scale of the pixels at this step."""

    @model_validator(mode="after")
    def _check(self) -> Pad:
        sides = {"left", "top", "right", "bottom"} & self.model_fields_set
        if (self.all is None) == (not sides):
            raise ValueError("expected all, or some of left, top, right and bottom")
        return self

    def flow(self, value: Value) -> Value:
        height, width, channels = need_image("pad", value)
        fill = self._fill()
        if len(fill) not in (1, channels):
            message = f"pad has {len(fill)} fill values, the image has {channels} channels"
            raise FlowError(message, f"give one value, or {channels}")
        if value.dtype == "uint8" and not all(v.is_integer() and 0 <= v <= 255 for v in fill):  # noqa: PLR2004
            message = f"pad fills a uint8 image with {self.fill}"
            raise FlowError(message, "use whole numbers from 0 to 255")
        left, top, right, bottom = self._sides()
        shape = (_add(height, top + bottom), _add(width, left + right), channels)
        low = None if value.low is None else min(value.low, *fill)
        high = None if value.high is None else max(value.high, *fill)
        return value.but(shape=shape, low=low, high=high)

    def emit(self, value: Value) -> Emitted:
        del value
        left, top, right, bottom = self._sides()
        frame = f"(({top}, {bottom}), ({left}, {right}), (0, 0))"
        fill = self._fill()
        color = f"({', '.join(map(repr, fill))})" if len(fill) > 1 else repr(fill[0])
        comment = f"Put a frame around: {left} left, {top} above, {right} right, {bottom} below."
        return Emitted(f"pad({{x}}, {frame}, {color})", comment, (pad,))

    def _sides(self) -> tuple[int, int, int, int]:
        if self.all is not None:
            return self.all, self.all, self.all, self.all
        return self.left, self.top, self.right, self.bottom

    def _fill(self) -> list[float]:
        return list(self.fill) if isinstance(self.fill, tuple) else [self.fill]


def _add(size: Dim, amount: int) -> Dim:
    """``size + amount``; an open size stays open."""
    return size + amount if isinstance(size, int) else size


def pad(
    x: NDArray[Any],
    frame: Frame,
    fill: float | tuple[float, ...],
) -> NDArray[Any]:
    """Put a frame of rows and columns around; ``fill`` is one value or one by channel."""
    shape = [size + sum(more) for size, more in zip(x.shape, frame, strict=True)]
    padded = np.full(shape, fill, x.dtype)
    (top, _), (left, _), _ = frame
    padded[top : top + x.shape[0], left : left + x.shape[1]] = x
    return padded
