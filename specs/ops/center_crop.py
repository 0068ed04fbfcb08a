"""``center_crop``: the middle of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Op, Stage
from specs.ops._checks import need_image
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CenterCrop"]

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
        return value.but(shape=(*self._sides(), channels), low=low, high=high)

    def emit(self, value: Value) -> Emitted:
        del value
        height, width = self._sides()
        comment = f"Cut {height}x{width} (height x width) out of the middle."
        return Emitted(f"center_crop({{x}}, {height}, {width})", comment, (center_crop,))

    def _sides(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size


def center_crop(x: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Cut the middle out, with zeros around it where ``x`` is smaller."""
    below, right = max(height - x.shape[0], 0), max(width - x.shape[1], 0)
    if below or right:
        frame = ((below // 2, below - below // 2), (right // 2, right - right // 2))
        x = np.pad(x, (*frame, (0, 0)))
    # Half a pixel is rounded to even, as torchvision does.
    top = round((x.shape[0] - height) / 2)
    left = round((x.shape[1] - width) / 2)
    return x[top : top + height, left : left + width]
