"""``identity``: nothing."""

from __future__ import annotations

from typing import Any, ClassVar

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.values import Value

__all__ = ["Identity"]


class Identity(Op):
    """Leave the value as it is; as the only step of ``postprocess``, answer raw tensors."""

    name: ClassVar[str] = "identity"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess", "postprocess"})

    def flow(self, value: Value) -> Value:
        return value

    def emit(self, value: Value) -> Emitted:
        del value
        return Emitted("{x}", "Leave the value as it is.")

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        return Fused(x)

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        return x
