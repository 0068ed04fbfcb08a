"""``color_order``: RGB or BGR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from specs.ops._base import Emitted, Op, Stage
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ColorOrder"]


class ColorOrder(Op):
    """Reorder an image's channels; models trained with OpenCV take BGR."""

    name: ClassVar[str] = "color_order"
    shorthand: ClassVar[str] = "to"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    to: Literal["RGB", "BGR"]
    """The order wanted."""

    def flow(self, value: Value) -> Value:
        if value.kind != "image":
            hint = "put - decode_image: RGB first"
            raise FlowError(f"color_order takes an image, found {value}", hint)
        if value.color not in ("RGB", "BGR"):
            message = f"color_order takes an RGB or BGR image, found {value.color}"
            raise FlowError(message, "decode with - decode_image: RGB, or remove color_order")
        return value.but(color=self.to)

    def emit(self, value: Value) -> Emitted:
        if value.color == self.to:
            return Emitted("{x}", f"The order of colours is {self.to} already.")
        axis = 0 if value.layout == "CHW" else 2
        comment = f"Turn {value.color} into {self.to}."
        return Emitted(f"flip_channels({{x}}, {axis})", comment, (flip_channels,))


def flip_channels(x: NDArray[Any], axis: int) -> NDArray[Any]:
    """Reverse the channels along ``axis``."""
    return x[::-1] if axis == 0 else x[:, :, ::-1]
