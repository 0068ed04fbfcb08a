"""``to_image``: a tensor to a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import FLOATS
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
        batch, *sides = value.shape
        height, width = sides[1:] if self.layout == "CHW" else sides[:2]
        return Value("answer_image", "uint8", (batch, height, width, 3), "HWC", "RGB", 0, 255)

    def emit(self, value: Value) -> Emitted:
        del value
        comment = "Turn the values into uint8 pictures [height, width, 3]."
        function = images_first if self.layout == "CHW" else images_last
        call = f'{function.__name__}({{x}}, "{self.rounding}")'
        return Emitted(call, comment, (function,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        dtype = "float64" if value.dtype == "float64" else "float32"
        x = x if value.dtype == dtype else graph.cast(x, dtype)
        if value.dtype in FLOATS:
            x = graph.add("Where", graph.add("IsNaN", x), graph.constant(0, dtype), x)
            x = graph.add("Round" if self.rounding == "nearest" else "Floor", x)
        x = graph.add("Clip", x, graph.constant(0, dtype), graph.constant(255, dtype))
        x = graph.add("Transpose", x, perm=(0, 2, 3, 1)) if self.layout == "CHW" else x
        grey = value.shape[1 if self.layout == "CHW" else 3] == 1
        x = graph.add("Concat", x, x, x, axis=3) if grey else x
        return Fused(graph.cast(x, "uint8"))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        pixels = lib.torch.from_numpy(x).double()
        pixels = pixels.permute(0, 2, 3, 1) if self.layout == "CHW" else pixels
        whole = pixels.round() if self.rounding == "nearest" else pixels.floor()
        whole = whole.nan_to_num(0.0).clamp(0, 255).to(lib.torch.uint8)
        return whole.expand(*whole.shape[:3], 3).numpy()


def images_first(x: NDArray[Any], rounding: str) -> NDArray[Any]:
    """[batch, channels, height, width] to pictures."""
    return images_last(x.transpose(0, 2, 3, 1), rounding)


def images_last(x: NDArray[Any], rounding: str) -> NDArray[Any]:
    """[batch, height, width, channels] to pictures; grey ones get three channels."""
    whole = np.rint(x) if rounding == "nearest" else np.floor(x)
    pixels = np.nan_to_num(whole).clip(0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=3) if x.shape[3] == 1 else pixels
