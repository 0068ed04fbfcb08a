"""``scale``: multiply and add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_values
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scale"]


class Scale(Op):
    """Multiply every element by ``factor``, then add ``offset``; the result is float32."""

    name: ClassVar[str] = "scale"
    shorthand: ClassVar[str] = "factor"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess", "postprocess"})

    factor: float = 1.0
    """What every element is multiplied by."""
    offset: float = 0.0
    """What is added afterwards."""

    def flow(self, value: Value) -> Value:
        need_values("scale", value)
        bounds = [
            None if bound is None else bound * self.factor + self.offset
            for bound in (value.low, value.high)
        ]
        low, high = bounds if self.factor >= 0 else bounds[::-1]
        step = None if value.step is None else value.step * abs(self.factor)
        return value.but(dtype="float32", low=low, high=high, probability=False, step=step)

    def emit(self, value: Value) -> Emitted:
        del value
        call = f"scale({{x}}, {self.factor!r}, {self.offset!r})"
        added = f" and add {self.offset!r}" if self.offset else ""
        return Emitted(call, f"Multiply by {self.factor!r}{added}.", (scale,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one value
        wide = graph.cast(x, "float32")
        product = graph.add("Mul", wide, graph.constant(self.factor))
        return Fused(graph.add("Add", product, graph.constant(self.offset)))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        return (lib.torch.from_numpy(x).float() * self.factor + self.offset).numpy()


def scale(x: NDArray[Any], factor: float, offset: float) -> NDArray[Any]:
    """Multiply and add in float32."""
    return x.astype(np.float32) * np.float32(factor) + np.float32(offset)
