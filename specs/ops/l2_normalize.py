"""``l2_normalize``: vectors of length 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_float_tensor
from specs.values import FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["L2Normalize"]


class L2Normalize(Op):
    """Divide every vector, the last axis, by its length: ``x / max(sqrt(sum(x * x)), eps)``.

    What ``torch.nn.functional.normalize`` gives: zeros stay zeros, and a vector whose squares
    overflow becomes zeros. float16 is computed in float32. NaN makes its vector NaN.
    """

    name: ClassVar[str] = "l2_normalize"
    shorthand: ClassVar[str] = "eps"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    eps: Annotated[float, Field(gt=0)] = 1e-12
    """The smallest length to divide by."""

    def flow(self, value: Value) -> Value:
        need_float_tensor("l2_normalize", value)
        if len(value.shape) == 1:
            message = f"l2_normalize takes vectors [batch, width], found {show_shape(value.shape)}"
            raise FlowError(message, "the only axis is the batch")
        dtype = "float64" if value.dtype == "float64" else "float32"
        low = 0.0 if value.low is not None and value.low >= 0 else -1.0
        return value.but(dtype=dtype, low=low, high=1.0, probability=False, step=None)

    def emit(self, value: Value) -> Emitted:
        del value
        comment = "Divide every vector by its length."
        return Emitted(f"l2_normalize({{x}}, {self.eps!r})", comment, (l2_normalize,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        dtype = "float64" if value.dtype == "float64" else "float32"
        wide = x if value.dtype == dtype else graph.cast(x, dtype)
        length = graph.add("ReduceL2", wide, graph.ints(len(value.shape) - 1), keepdims=1)
        least = graph.constant(self.eps, dtype)
        return Fused(graph.add("Div", wide, graph.add("Max", length, least)))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        tensor = lib.torch.from_numpy(x)
        wide = tensor.float() if value.dtype == "float16" else tensor
        return lib.torch.nn.functional.normalize(wide, p=2.0, dim=-1, eps=self.eps).numpy()


def l2_normalize(x: NDArray[Any], eps: float) -> NDArray[Any]:
    """Divide every vector, the last axis, by its length or ``eps`` if that is more."""
    x = x.astype(np.promote_types(x.dtype, np.float32))
    with np.errstate(over="ignore"):
        length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.maximum(length, x.dtype.type(eps))
