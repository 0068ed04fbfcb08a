"""``clip``: bounds for every element."""

from __future__ import annotations

import builtins
from typing import Any, ClassVar

import numpy as np
from pydantic import model_validator

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import FLOATS, need_values
from specs.values import FlowError, Value

__all__ = ["Clip"]

NARROW = {"float16": "float32", "uint8": "int32", "int8": "int32", "int16": "int32"}
"""Types that some engine has no Max and Min for, and one that holds all of their values."""


class Clip(Op):
    """Replace what is below ``min`` by ``min`` and what is above ``max`` by ``max``.

    NaN stays NaN, as in numpy and PyTorch; in the graph it is the engine's.
    """

    name: ClassVar[str] = "clip"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess", "postprocess"})

    min: float | None = None
    """The lower bound."""
    max: float | None = None
    """The upper bound."""

    @model_validator(mode="after")
    def _check(self) -> Clip:
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both, found none")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is more than max {self.max:g}")
        return self

    def flow(self, value: Value) -> Value:
        need_values("clip", value)
        if value.dtype not in FLOATS:
            self._check_integers(value)
        return value.but(
            low=self._bound(value.low, self.min), high=self._bound(value.high, self.max)
        )

    def emit(self, value: Value) -> Emitted:
        low, high = self._bounds(value)
        comment = f"Keep every element within {low} and {high}."
        return Emitted(f"np.clip({{x}}, {low}, {high})", comment)

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor or image
        narrow = NARROW.get(value.dtype)
        wide = graph.cast(x, narrow) if narrow else x
        # Clip with one bound makes the largest number of infinity on some engines.
        for op, bound in zip(("Max", "Min"), self._bounds(value), strict=True):
            if bound is not None:
                limit = graph.constant(bound, narrow or value.dtype)
                wide = graph.add(op, wide, limit)
        return Fused(graph.cast(wide, value.dtype) if narrow else wide)

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        return lib.torch.from_numpy(x).clamp(*self._bounds(value)).numpy()

    def _bounds(self, value: Value) -> tuple[float | None, float | None]:
        """Both bounds as numbers of the elements' kind."""
        number = float if value.dtype in FLOATS else int
        low, high = (None if b is None else number(b) for b in (self.min, self.max))
        return low, high

    def _check_integers(self, value: Value) -> None:
        limits = np.iinfo(value.dtype) if value.dtype != "bool" else None
        for bound in (self.min, self.max):
            if bound is None:
                continue
            if limits is None or not bound.is_integer() or not limits.min <= bound <= limits.max:
                message = f"clip has the bound {bound:g}, the elements are {value.dtype}"
                raise FlowError(message, "put - cast: float32 before clip")

    def _bound(self, bound: float | None, own: float | None) -> float | None:
        """The result's bound: its own where the value's is not known."""
        if bound is None:
            return own
        low = bound if self.min is None else builtins.max(bound, self.min)
        return low if self.max is None else builtins.min(low, self.max)
