"""What ONNX Runtime made of a graph, read from the graph that its optimiser writes."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from compiler.precision._cost import Shape, macs
from runtime.engines import Layer
from runtime.engines._ort_built import BuiltFile, read_built
from runtime.engines._ort_options import OrtOptions
from runtime.engines._ort_providers import CPU, providers_for
from runtime.engines._ort_session import Opening, assigned_nodes, open_session
from specs.engines import Device, Precision
from specs.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["layers_of"]

PRECISIONS: dict[str, Precision] = {
    "tensor(float)": "fp32",
    "tensor(double)": "fp32",
    "tensor(float16)": "fp16",
    "tensor(bfloat16)": "bf16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "int8",
}
"""By ONNX Runtime's types; float64 counts as fp32: it is no lower precision either."""
NAMES: dict[int, str] = {
    TensorProto.FLOAT: "tensor(float)",
    TensorProto.DOUBLE: "tensor(double)",
    TensorProto.FLOAT16: "tensor(float16)",
    TensorProto.BFLOAT16: "tensor(bfloat16)",
    TensorProto.INT8: "tensor(int8)",
    TensorProto.UINT8: "tensor(uint8)",
}
INTEGER_OPS = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"})
"""Ops that take floats and multiply 8-bit integers."""
CONVERSIONS = frozenset({"Cast", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
"""Ops between two types, which compute in none."""
FUSED: dict[str, tuple[str, tuple[int, ...]]] = {
    "DynamicQuantizeLSTM": ("LSTM", (0, 1, 2)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "MultiHeadAttention": ("Attention", (0, 1, 2)),
    "NhwcConv": ("Conv", (0, 1)),
    "NhwcFusedConv": ("Conv", (0, 1)),
    "QGemm": ("Gemm", (0, 3)),
    "TransposeMatMul": ("MatMul", (0, 1)),
}
"""ONNX Runtime's own ops: the standard op that costs the same, and which inputs it multiplies."""
PROJECTED = frozenset({"Attention", "QAttention"})
"""ONNX Runtime's attention with the projection of its input, of domain com.microsoft."""
ONNX_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class _Values:
    """ONNX Runtime's type and the shape of every value, as far as it tells."""

    types: dict[str, str]
    shapes: dict[str, Shape | None]


def layers_of(file: Path, device: Device, options: OrtOptions) -> tuple[Layer, ...]:
    """The nodes of the optimised graph, in its order, with place, type and cost.

    Costs are at batch 1; other sizes that the graph leaves open count 1.

    Args:
        file: what the engine loads.
        device: where it was asked to run.
        options: the target's options, without TensorRT, whose parts cannot be read.

    Raises:
        EngineError: as ``Engine.open``.
    """
    options = options.model_copy(update={"allow_cpu_nodes": device != "cpu"})
    built = read_built(file)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "optimized.onnx"
        opening = Opening(
            file, device, options, built=built, record=True, save=saved, external=True
        )
        session = open_session(opening)
        assigned = {node.name: place for place, node in assigned_nodes(session) if node.name}
        proto = onnx.load(str(saved), load_external_data=False)
        values = _values(proto, saved.with_name("told.onnx"), device, options)
    places = _Places(assigned, _makers(file), providers_for(device, options)[0])
    batch = _batch(proto)
    items = batch if isinstance(batch, int) else 1
    return tuple(_layer(node, values, places, device, items) for node in _nodes(proto.graph))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of the bodies of If, Loop and Scan after their own."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _layer(
    node: onnx.NodeProto, values: _Values, places: _Places, device: Device, items: int
) -> Layer:
    place = places.of(node)
    return Layer(
        name=node.name or next(iter(node.output), node.op_type),
        op=node.op_type,
        device="cpu" if place == CPU else device,
        place=place,
        precision=_precision(node, values),
        cost=_cost(node, values.shapes) / items,
    )


# --- place


@dataclass(frozen=True)
class _Places:
    """Which provider a node of the optimised graph runs on.

    ONNX Runtime shares the nodes out before it fuses those of one provider. A fused node has a new
    name, but gives the value that the last of its nodes gave.
    """

    assigned: dict[str, str]
    makers: dict[str, str]
    first: str

    def of(self, node: onnx.NodeProto) -> str:
        """The provider; the session's first one for what it put in itself, such as copies."""
        names = [node.name, *(self.makers.get(output, "") for output in node.output)]
        return next((self.assigned[name] for name in names if name in self.assigned), self.first)


def _makers(file: Path) -> dict[str, str]:
    """Which node makes a value, in the graph as it was given."""
    graph = onnx.load(str(file), load_external_data=False).graph
    return {output: node.name for node in _nodes(graph) for output in node.output}


# --- type


def _precision(node: onnx.NodeProto, values: _Values) -> str:
    if node.op_type in INTEGER_OPS:
        return "int8"
    if node.op_type in CONVERSIONS:
        return ""
    types = [values.types.get(name, "") for name in (*node.input, *node.output)]
    return next((PRECISIONS[found] for found in types if found in PRECISIONS), "")


def _values(proto: onnx.ModelProto, file: Path, device: Device, options: OrtOptions) -> _Values:
    """Let ONNX Runtime infer, since only it knows its own ops: every value becomes an output."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    types = {name: NAMES.get(tensor.data_type, "") for name, tensor in weights.items()}
    shapes: dict[str, Shape | None] = {name: tuple(item.dims) for name, item in weights.items()}
    for item in _told(proto, file, device, options):
        types[item.name] = item.type
        shapes[item.name] = tuple(dim if isinstance(dim, int) else 1 for dim in item.shape)
    return _Values(types, shapes)


def _told(
    proto: onnx.ModelProto, file: Path, device: Device, options: OrtOptions
) -> list[ort.NodeArg]:
    """Inputs and every node's outputs with their types and shapes, at batch 1 where it is open."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    for node in copy.graph.node:
        fresh = [name for name in node.output if name and name not in known]
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fresh)
    file.write_bytes(copy.SerializeToString())  # beside the weights that it names
    sizes = {batch: 1} if isinstance(batch := _batch(copy), str) else {}
    built = BuiltFile(onnxruntime="", optimized=True)
    try:
        session = open_session(Opening(file, device, options, sizes, built))
    except EngineError:
        return []  # copies between devices do not always load again; weights still tell types
    return [*session.get_inputs(), *session.get_outputs()]


def _batch(proto: onnx.ModelProto) -> int | str:
    """Size or name of the first input's first dimension; 1 where it has none."""
    for value in proto.graph.input[:1]:
        for dim in value.type.tensor_type.shape.dim[:1]:
            return dim.dim_param or dim.dim_value or 1
    return 1


# --- cost


def _cost(node: onnx.NodeProto, shapes: dict[str, Shape | None]) -> float:
    if node.op_type in PROJECTED and node.domain not in ONNX_DOMAINS:
        return _projected(node, shapes)
    if node.op_type not in FUSED:
        return macs(node, shapes)
    op, places = FUSED[node.op_type]
    inputs = [node.input[place] for place in places if place < len(node.input)]
    plain = helper.make_node(op, inputs, node.output)
    plain.attribute.extend(item for item in node.attribute if item.name == "transA")
    return macs(plain, shapes)


def _projected(node: onnx.NodeProto, shapes: dict[str, Shape | None]) -> float:
    """Inputs [batch, length, width] times weights, then Q K^T and its product with V."""
    values, weights = shapes.get(node.input[0]), shapes.get(node.input[1])
    out = shapes.get(node.output[0])
    if values is None or weights is None or out is None:
        return 0.0
    return float(prod(values[:2]) * prod(weights) + 2 * prod(out) * values[1])
