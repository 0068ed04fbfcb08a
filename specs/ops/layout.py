"""``layout``: the order of an image's axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
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
        *crops, a, b, c = value.shape
        order = (c, a, b) if self.to == "CHW" else (b, c, a)
        return value.but(shape=(*crops, *order), layout=self.to)

    def emit(self, value: Value) -> Emitted:
        if value.layout == self.to:
            return Emitted("{x}", f"The layout is {self.to} already.")
        function = channels_first if self.to == "CHW" else channels_last
        comment = f"Put the channels {'first' if self.to == 'CHW' else 'last'}: {self.to}."
        return Emitted(f"{function.__name__}({{x}})", comment, (function,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one image
        if value.layout == self.to:
            return Fused(x)
        return Fused(graph.add("Transpose", x, perm=[0, *(n + 1 for n in self._order(value))]))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        if value.layout == self.to:
            return x
        return lib.torch.from_numpy(x).permute(self._order(value)).numpy()

    def _order(self, value: Value) -> list[int]:
        """Where each of the new axes was, without the batch."""
        crops = len(value.shape) - 3
        moved = (2, 0, 1) if self.to == "CHW" else (1, 2, 0)
        return [*range(crops), *(crops + axis for axis in moved)]


def channels_first(x: NDArray[Any]) -> NDArray[Any]:
    """[..., height, width, channels] to [..., channels, height, width]."""
    return np.moveaxis(x, -1, -3)


def channels_last(x: NDArray[Any]) -> NDArray[Any]:
    """[..., channels, height, width] to [..., height, width, channels]."""
    return np.moveaxis(x, -3, -1)
