"""``clip``: bounds for every element."""

from __future__ import annotations

import builtins
from typing import ClassVar

import numpy as np
from pydantic import model_validator

from specs.ops._base import Emitted, Op, Stage
from specs.ops._checks import FLOATS, need_values
from specs.values import FlowError, Value

__all__ = ["Clip"]


class Clip(Op):
    """Replace what is below ``min`` by ``min`` and what is above ``max`` by ``max``."""

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
        number = float if value.dtype in FLOATS else int
        low, high = (None if b is None else number(b) for b in (self.min, self.max))
        comment = f"Keep every element within {low} and {high}."
        return Emitted(f"np.clip({{x}}, {low}, {high})", comment)

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
