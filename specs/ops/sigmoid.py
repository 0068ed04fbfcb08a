"""``sigmoid``: scores to probabilities, each on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_scores
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Sigmoid"]


class Sigmoid(Op):
    """Turn every score into a probability of its own; float16 is computed in float32."""

    name: ClassVar[str] = "sigmoid"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    def flow(self, value: Value) -> Value:
        need_scores("sigmoid", value)
        dtype = "float64" if value.dtype == "float64" else "float32"
        return value.but(dtype=dtype, low=0.0, high=1.0, probability=True)

    def emit(self, value: Value) -> Emitted:
        del value
        comment = "Turn every score into a probability."
        return Emitted("sigmoid({x})", comment, (sigmoid,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        wide = graph.cast(x, "float32") if value.dtype == "float16" else x
        return Fused(graph.add("Sigmoid", wide))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        tensor = lib.torch.from_numpy(x)
        return lib.torch.sigmoid(tensor.float() if value.dtype == "float16" else tensor).numpy()


def sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-x)), in the form that cannot overflow."""
    x = x.astype(np.promote_types(x.dtype, np.float32))
    return np.exp(-np.logaddexp(0, -x))
