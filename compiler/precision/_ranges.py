"""Which nodes give values that a narrower type cannot hold, seen in the float32 graph."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto

from compiler.precision._graphs import inferred, local_types
from compiler.precision._taps import Extent, extents
from runtime.tensors import Tensors

__all__ = ["beyond"]

LIMITS: dict[int, tuple[float, float]] = {
    TensorProto.FLOAT16: (2.0**-25, 65520.0),
    TensorProto.BFLOAT16: (2.0**-134, (2 - 2.0**-8) * 2.0**127),
}
"""Magnitudes that round to zero (up to the first) and to infinity (from the second), IEEE 754
round to even: half of the smallest subnormal, and the largest value plus half of its last bit."""


def beyond(proto: onnx.ModelProto, dtype: int, items: Iterable[Tensors]) -> frozenset[str]:
    """Names of the nodes that give or take a value that overflows, or vanishes as a whole.

    Args:
        proto: the float32 graph; its subgraphs are not looked into.
        dtype: FLOAT16 or BFLOAT16 of ``onnx.TensorProto``.
        items: inputs to run it on.

    Returns:
        Nothing where ONNX Runtime cannot run the graph with taps: bisection does without.
    """
    types = local_types(inferred(proto).graph)
    names = [name for node in proto.graph.node for name in node.output if _is_float(types, name)]
    try:
        found = extents(proto, names, items)
    except Exception:  # noqa: BLE001 - ONNX Runtime's many kinds; this only saves runs
        return frozenset()
    bad = {name for name, extent in found.items() if not _fits(extent, dtype)}
    return frozenset(
        node.name for node in proto.graph.node if bad.intersection([*node.input, *node.output])
    )


def _is_float(types: dict[str, onnx.TypeProto], name: str) -> bool:
    return name in types and types[name].tensor_type.elem_type == TensorProto.FLOAT


def _fits(extent: Extent, dtype: int) -> bool:
    """Whether neither end overflows, and the larger one does not vanish.

    An infinity of the float32 graph's own is none of the conversion's.
    """
    low, high = LIMITS[dtype]
    ends = [abs(end) for end in (extent.low, extent.high) if np.isfinite(end)]
    peak = max(ends, default=0.0)
    return peak == 0 or low < peak < high
