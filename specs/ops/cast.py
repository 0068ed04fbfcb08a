"""``cast``: the element type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_values
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cast"]

Dtype = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


class Cast(Op):
    """Convert the elements.

    From floating point to integers, fractions are cut off, what is out of range becomes the
    nearest value and NaN becomes 0.
    """

    name: ClassVar[str] = "cast"
    shorthand: ClassVar[str] = "dtype"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess", "postprocess"})

    dtype: Dtype
    """The element type wanted."""

    def flow(self, value: Value) -> Value:
        need_values("cast", value)
        if self.dtype.startswith("float"):
            return value.but(dtype=self.dtype)
        limits = (0, 1) if self.dtype == "bool" else (*_limits(self.dtype),)
        low, high = (None if bound is None else int(bound) for bound in (value.low, value.high))
        kept = low is not None and high is not None and limits[0] <= low and high <= limits[1]
        return value.but(dtype=self.dtype, low=low if kept else None, high=high if kept else None)

    def emit(self, value: Value) -> Emitted:
        del value
        return Emitted(f'convert({{x}}, "{self.dtype}")', f"Convert to {self.dtype}.", (convert,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one value
        whole = not self.dtype.startswith("float") and self.dtype != "bool"
        if not (whole and value.dtype.startswith("float")):
            return Fused(graph.pixels(x, self.dtype))
        wide = x if value.dtype == "float64" else graph.cast(x, "float32")
        return Fused(self._nearest(graph, wide, "float64" if wide is x else "float32"))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        torch = lib.torch
        wanted, tensor = getattr(torch, self.dtype), torch.from_numpy(x)
        if not tensor.is_floating_point() or wanted.is_floating_point or self.dtype == "bool":
            return tensor.to(wanted).numpy()
        low, high = _limits(self.dtype)
        tensor = tensor.double().nan_to_num(nan=0.0)
        inside = tensor.clamp(low, high).masked_fill(tensor >= high, 0).to(wanted)
        return inside.masked_fill(tensor >= high, high).numpy()

    def _nearest(self, graph: Graph, x: str, dtype: str) -> str:
        """Floats as whole numbers; the largest one of a type need not be a float."""
        low, high = _limits(self.dtype)
        number = graph.add("Where", graph.add("IsNaN", x), graph.constant(0, dtype), x)
        above = graph.add("GreaterOrEqual", number, graph.constant(high, dtype))
        kept = graph.add("Where", above, graph.constant(0, dtype), number)
        inside = graph.add("Max", kept, graph.constant(low, dtype))
        if graph.whole_floats and self.dtype == "uint8":
            floor = graph.add("Floor", inside)
            return graph.add("Where", above, graph.constant(high, dtype), floor)
        most = graph.constant(high, self.dtype)
        return graph.add("Where", above, most, graph.cast(inside, self.dtype))


def _limits(dtype: str) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def convert(x: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Convert elements; a float beyond an integer type becomes its nearest value."""
    if x.dtype.kind != "f" or np.dtype(dtype).kind not in "iu":
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    inside = np.nan_to_num(x.astype(np.float64)).clip(limits.min, limits.max)
    with np.errstate(invalid="ignore"):
        # int64's largest value is no float64: what is rounded up to it would overflow.
        return np.where(inside >= limits.max, limits.max, inside.astype(dtype))
