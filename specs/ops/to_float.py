"""``to_float``: grey levels from 0 to 255 to numbers from 0 to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_values
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ToFloat"]


class ToFloat(Op):
    """Turn uint8 into float32 from 0 to 1, as torchvision's ``ToDtype(float32, scale=True)``.

    It multiplies by float32's nearest to 1 / 255, which differs from dividing in the last digit.
    """

    name: ClassVar[str] = "to_float"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    def flow(self, value: Value) -> Value:
        need_values("to_float", value)
        if value.dtype != "uint8":
            message = f"to_float takes uint8, found {value.dtype}"
            raise FlowError(message, "remove it, or use scale: the factor that you mean")
        step = None if value.step is None else value.step / 255
        high = None if value.high is None else value.high / 255
        return value.but(dtype="float32", low=value.low, high=high, step=step)

    def emit(self, value: Value) -> Emitted:
        del value
        return Emitted("to_float({x})", "Turn 0 to 255 into 0 to 1.", (to_float,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one value
        return Fused(graph.add("Mul", graph.cast(x, "float32"), graph.constant(1 / 255)))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        tensor = lib.torch.from_numpy(x)
        return lib.vision.to_dtype(tensor, lib.torch.float32, scale=True).numpy()


def to_float(x: NDArray[Any]) -> NDArray[Any]:
    """Multiply by 1 / 255 in float32."""
    return x.astype(np.float32) * np.float32(1 / 255)
