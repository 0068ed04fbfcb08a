"""Looks at the values inside a float32 graph while it runs, one item after the other."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from compiler.graph import save
from runtime.tensors import Array, Tensors

__all__ = ["Extent", "extents", "values"]


@dataclass(frozen=True)
class Extent:
    """The smallest and the largest value; NaN where one was."""

    low: float
    high: float


def extents(
    proto: onnx.ModelProto, names: Sequence[str], items: Iterable[Tensors]
) -> dict[str, Extent]:
    """Extents of the named float32 values over all items.

    Only two numbers per value leave the graph, so memory does not grow with the items.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    outputs = [tap for name in names for tap in _tap(probe, name)]
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for found in _run(probe, outputs, items):
        lows, highs, lost = np.asarray(found, np.float64).reshape(-1, 3).T
        low = np.minimum(low, np.where(lost, np.nan, lows))
        high = np.maximum(high, np.where(lost, np.nan, highs))
    pairs = zip(names, low, high, strict=True)
    return {name: Extent(float(a), float(b)) for name, a, b in pairs}


def _tap(proto: onnx.ModelProto, name: str) -> list[str]:
    """Outputs for the smallest and the largest value, and whether there is a NaN: 3 scalars."""
    nan, number = f"{name}.IsNaN", f"{name}.IsNaN.number"
    proto.graph.node.append(helper.make_node("IsNaN", [name], [nan]))
    # ReduceMin and ReduceMax may step over a NaN.
    proto.graph.node.append(helper.make_node("Cast", [nan], [number], to=TensorProto.FLOAT))
    taps = [(name, "ReduceMin"), (name, "ReduceMax"), (number, "ReduceMax")]
    outputs = [f"{source}.{op}" for source, op in taps]
    for (source, op), output in zip(taps, outputs, strict=True):
        proto.graph.node.append(helper.make_node(op, [source], [output], keepdims=0))
        _add_output(proto, output, [])
    return outputs


def values(
    proto: onnx.ModelProto, names: Sequence[str], items: Iterable[Tensors]
) -> Iterator[dict[str, Array]]:
    """The named float32 values themselves, of one item at a time."""
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    there = {value.name for value in probe.graph.output}
    for name in names:
        if name not in there:
            _add_output(probe, name, None)
    for found in _run(probe, names, items):
        yield dict(zip(names, found, strict=True))


def _add_output(proto: onnx.ModelProto, name: str, shape: list[int] | None) -> None:
    proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _run(
    proto: onnx.ModelProto, outputs: Sequence[str], items: Iterable[Tensors]
) -> Iterator[list[Array]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Fusions would change what the graph's values are.
    options.graph_optimization_level = ort.GraphOptimizationLevel(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "taps.onnx")
        save(proto, file, external=None)
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for item in items:
            yield list(session.run(list(outputs), item))
