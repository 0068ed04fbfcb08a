"""``quantize_output``: floating point to 8-bit integers with a scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_float_tensor
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["QuantizeOutput"]


class QuantizeOutput(Op):
    """Give ``round(x / scale) + zero_point`` as 8-bit integers, a quarter of the bytes.

    As ONNX's QuantizeLinear: half to even, and what is out of range becomes the nearest value. NaN
    becomes ``zero_point``, which stands for 0. Back: ``(y - zero_point) * scale``. Computed in
    float32.
    """

    name: ClassVar[str] = "quantize_output"
    shorthand: ClassVar[str] = "scale"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    scale: Annotated[float, Field(gt=0)]
    """What one step of the integers is worth."""
    zero_point: int = 0
    """The integer that stands for 0."""
    dtype: Literal["uint8", "int8"] = "uint8"
    """The element type."""

    @model_validator(mode="after")
    def _check(self) -> QuantizeOutput:
        low, high = self._limits
        if not low <= self.zero_point <= high:
            raise ValueError(f"zero_point is {self.zero_point}, {self.dtype} has {low} to {high}")
        if not np.finfo(np.float32).tiny <= self.scale <= np.finfo(np.float32).max:
            raise ValueError(f"scale is {self.scale:g}, which float32 cannot hold")
        return self

    @property
    def _limits(self) -> tuple[int, int]:
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    def flow(self, value: Value) -> Value:
        need_float_tensor("quantize_output", value)
        low, high = self._limits
        return value.but(dtype=self.dtype, low=low, high=high, probability=False, step=None)

    def emit(self, value: Value) -> Emitted:
        del value
        call = f'quantize_output({{x}}, {self.scale!r}, {self.zero_point}, "{self.dtype}")'
        return Emitted(call, f"Quantize to {self.dtype}.", (quantize_output,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        # Plain arithmetic: engines read QuantizeLinear as a mark of their own int8 kernels.
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        x = x if value.dtype == "float32" else graph.cast(x, "float32")
        x = graph.add("Where", graph.add("IsNaN", x), graph.constant(0.0), x)
        x = graph.add("Round", graph.add("Div", x, graph.constant(self.scale)))
        low, high = (graph.constant(limit - self.zero_point) for limit in self._limits)
        x = graph.add("Clip", x, low, high)
        return Fused(graph.cast(graph.add("Add", x, graph.constant(self.zero_point)), self.dtype))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        del value
        torch = lib.torch
        steps = (torch.from_numpy(x).float() / torch.tensor(self.scale)).round()
        levels = (steps.nan_to_num(0.0) + self.zero_point).clamp(*self._limits)
        return levels.to(getattr(torch, self.dtype)).numpy()


def quantize_output(
    x: NDArray[Any],
    scale: float,
    zero_point: int,
    dtype: str,
) -> NDArray[Any]:
    """Round x / scale, half to even, add the zero point and saturate."""
    limits = np.iinfo(dtype)
    with np.errstate(over="ignore"):
        steps = np.rint(x.astype(np.float32) / np.float32(scale))
    levels = np.nan_to_num(steps) + zero_point
    return levels.clip(limits.min, limits.max).astype(dtype)
