"""``color_order``: what an image's channels mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._colors import FORMULAS, convert_colors, convert_floats, graph_colors, reorder
from specs.ops.layout import channels_first, channels_last
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ColorOrder"]

KNOWN = ("RGB", "BGR", "L", "YCbCr")


class ColorOrder(Op):
    """Turn an image's channels into others; models trained with OpenCV take BGR.

    ``GRAY`` is ITU-R 601 luma in one channel, ``YCbCr`` JPEG's; uint8 exactly as Pillow's
    ``convert``. From grey, the channels of RGB and BGR are equal.
    """

    name: ClassVar[str] = "color_order"
    shorthand: ClassVar[str] = "to"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    to: Literal["RGB", "BGR", "GRAY", "YCbCr"]
    """What is wanted."""

    def flow(self, value: Value) -> Value:
        if value.kind != "image":
            hint = "put - decode_image: RGB first"
            raise FlowError(f"color_order takes an image, found {value}", hint)
        if value.dtype not in ("uint8", "float32") and self._pair(value):
            message = f"color_order takes uint8 or float32 to {self.to}, found {value.dtype}"
            raise FlowError(message, "put color_order before the cast")
        if value.color not in KNOWN:
            message = f"color_order takes an image of known colours, found {value.color or 'none'}"
            raise FlowError(message, "decode with - decode_image: RGB, or remove color_order")
        channels = 1 if self._wanted() == "L" else 3
        *crops, a, b, c = value.shape
        shape = (*crops, channels, b, c) if value.layout == "CHW" else (*crops, a, b, channels)
        return value.but(color=self._wanted(), shape=shape)

    def emit(self, value: Value) -> Emitted:
        if value.color == self._wanted():
            return Emitted("{x}", f"The colours are {self.to} already.")
        axis, pair = self._axis(value), self._pair(value)
        expression = "{x}"
        functions: list[Callable[..., Any]] = []
        if self._flips(value)[0]:
            expression = f"reorder({expression}, {axis})"
            functions.append(reorder)
        if pair:
            functions.append(convert_colors)
            if axis != -1:
                functions += [channels_first, channels_last]
                expression = f"channels_last({expression})"
            expression = f'convert_colors({expression}, "{pair[0]}", "{pair[1]}")'
            expression = f"channels_first({expression})" if axis != -1 else expression
        if self._flips(value)[1]:
            expression = f"reorder({expression}, {axis})"
            functions.append(reorder)
        comment = f"Turn {value.color} into {self.to}."
        return Emitted(expression, comment, tuple(functions))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one image
        if value.color == self._wanted():
            return Fused(x)
        axis, pair, flips = self._axis(value), self._pair(value), self._flips(value)
        # ONNX counts the batch as well, and Gather takes axes from the end.
        x = graph.add("Gather", x, graph.ints(2, 1, 0), axis=axis) if flips[0] else x
        x = graph_colors(graph, x, pair, axis, value.dtype) if pair else x
        x = graph.add("Gather", x, graph.ints(2, 1, 0), axis=axis) if flips[1] else x
        return Fused(x)

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        axis, pair, flips = self._axis(value), self._pair(value), self._flips(value)
        tensor = lib.torch.from_numpy(x)
        tensor = tensor.flip(axis) if flips[0] else tensor
        if pair:
            last = tensor.movedim(axis, -1)
            function = _by_pillow if x.dtype == np.uint8 else convert_floats
            tensor = function(last, *pair, lib.torch).movedim(-1, axis)
        return (tensor.flip(axis) if flips[1] else tensor).numpy()

    def _wanted(self) -> Literal["RGB", "BGR", "L", "YCbCr"]:
        return "L" if self.to == "GRAY" else self.to

    def _axis(self, value: Value) -> int:
        return -3 if value.layout == "CHW" else -1

    def _pair(self, value: Value) -> tuple[str, str] | None:
        """The conversion beside the order of the channels, if any."""
        old, new = ("RGB" if color == "BGR" else color for color in (value.color, self._wanted()))
        return (old, new) if (old, new) in FORMULAS else None

    def _flips(self, value: Value) -> tuple[bool, bool]:
        """Whether the channels are reversed before and after."""
        if value.color == self._wanted():
            return False, False
        return value.color == "BGR", self._wanted() == "BGR"


def _by_pillow(x: Any, old: str, new: str, torch: Any) -> Any:
    """Each picture of [..., height, width, channels] with Pillow."""
    pictures = [
        Image.frombytes(old, picture.shape[1::-1], picture.numpy().tobytes()).convert(new)
        for picture in x.reshape(-1, *x.shape[-3:])
    ]
    array = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(array.reshape(*x.shape[:-1], -1))
