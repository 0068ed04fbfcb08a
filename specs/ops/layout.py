"""``layout``: the order of an image's axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from specs.ops._base import Emitted, Op, Stage
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Layout"]


class Layout(Op):
    """Reorder an image's axes: channels first (what PyTorch's models take) or last."""

    name: ClassVar[str] = "layout"
    shorthand: ClassVar[str] = "to"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    to: Literal["CHW", "HWC"]
    """The order wanted."""

    def flow(self, value: Value) -> Value:
        if value.kind != "image":
            hint = "put - decode_image: RGB first, or remove layout"
            raise FlowError(f"layout takes an image, found {value}", hint)
        if value.layout == self.to:
            return value
        first, *middle, last = value.shape
        shape = (last, first, *middle) if self.to == "CHW" else (*middle, last, first)
        return value.but(shape=shape, layout=self.to)

    def emit(self, value: Value) -> Emitted:
        if value.layout == self.to:
            return Emitted("{x}", f"The layout is {self.to} already.")
        function = channels_first if self.to == "CHW" else channels_last
        comment = f"Put the channels {'first' if self.to == 'CHW' else 'last'}: {self.to}."
        return Emitted(f"{function.__name__}({{x}})", comment, (function,))


def channels_first(x: NDArray[Any]) -> NDArray[Any]:
    """[height, width, channels] to [channels, height, width]."""
    return x.transpose(2, 0, 1)


def channels_last(x: NDArray[Any]) -> NDArray[Any]:
    """[channels, height, width] to [height, width, channels]."""
    return x.transpose(1, 2, 0)
