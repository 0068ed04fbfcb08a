"""``softmax``: scores to probabilities that add up to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_scores
from specs.values import FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Softmax"]


class Softmax(Op):
    """Turn scores into probabilities; float16 is computed in float32.

    A NaN or an infinite score makes every probability beside it NaN, as in PyTorch; minus infinity
    alone is a probability of 0.
    """

    name: ClassVar[str] = "softmax"
    shorthand: ClassVar[str] = "axis"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    axis: int = -1
    """The axis that adds up to 1, counted with the batch, which is axis 0."""

    def flow(self, value: Value) -> Value:
        need_scores("softmax", value)
        rank = len(value.shape)
        if not -rank <= self.axis < rank or self.axis % rank == 0:
            message = f"softmax has axis {self.axis}, the tensor is {show_shape(value.shape)}"
            raise FlowError(message, "axis 0 is the batch; use axis: -1 for the last one")
        dtype = "float64" if value.dtype == "float64" else "float32"
        return value.but(dtype=dtype, low=0.0, high=1.0, probability=True)

    def emit(self, value: Value) -> Emitted:
        del value
        comment = "Turn scores into probabilities."
        return Emitted(f"softmax({{x}}, {self.axis})", comment, (softmax,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        wide = graph.cast(x, "float32") if value.dtype == "float16" else x
        return Fused(graph.add("Softmax", wide, axis=self.axis))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        tensor = lib.torch.from_numpy(x)
        wide = tensor.float() if value.dtype == "float16" else tensor
        return lib.torch.softmax(wide, self.axis).numpy()


def softmax(x: NDArray[Any], axis: int) -> NDArray[Any]:
    """exp(x) / sum(exp(x)) along ``axis``, shifted so that nothing overflows."""
    x = x.astype(np.promote_types(x.dtype, np.float32))
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)
