"""``to_image``: a tensor to a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from specs.ops._base import Emitted, Op, Stage
from specs.values import FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ToImage"]

RANK = 4
"""Batch, height, width and channels."""


class ToImage(Op):
    """Turn values from 0 to 255 into a picture, uint8 RGB; what is beyond is clipped, NaN is 0."""

    name: ClassVar[str] = "to_image"
    shorthand: ClassVar[str] = "layout"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    layout: Literal["CHW", "HWC"] = "CHW"
    """Where the tensor has its channels: [batch, channels, height, width], or last."""
    rounding: Literal["nearest", "down"] = "nearest"
    """To the nearest whole number (a half to even), or down as torchvision's to_pil_image."""

    def flow(self, value: Value) -> Value:
        shape = show_shape(value.shape)
        if value.kind != "tensor" or len(value.shape) != RANK:
            wanted = "[batch, channels, height, width]"
            raise FlowError(f"to_image takes a tensor {wanted}, found {value}")
        channels = value.shape[1 if self.layout == "CHW" else 3]
        if channels not in (1, 3):
            other = "HWC" if self.layout == "CHW" else "CHW"
            hint = f"try to_image: {{layout: {other}}}"
            message = f"to_image takes 1 or 3 channels, found {channels} in {self.layout} {shape}"
            raise FlowError(message, hint)
        if value.high is not None and 0 < value.high <= 1:
            message = f"to_image takes values from 0 to 255, found values up to {value.high:g}"
            raise FlowError(message, "put - scale: 255 before to_image")
        return Value("answer_image", "uint8", value.shape, "HWC", "RGB", 0, 255)

    def emit(self, value: Value) -> Emitted:
        del value
        comment = "Turn the values into uint8 pictures [height, width, 3]."
        function = images_first if self.layout == "CHW" else images_last
        call = f'{function.__name__}({{x}}, "{self.rounding}")'
        return Emitted(call, comment, (function,))


def images_first(x: NDArray[Any], rounding: str) -> NDArray[Any]:
    """[batch, channels, height, width] to pictures."""
    return images_last(x.transpose(0, 2, 3, 1), rounding)


def images_last(x: NDArray[Any], rounding: str) -> NDArray[Any]:
    """[batch, height, width, channels] to pictures; grey ones get three channels."""
    whole = np.rint(x) if rounding == "nearest" else np.floor(x)
    pixels = np.nan_to_num(whole).clip(0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=3) if x.shape[3] == 1 else pixels
