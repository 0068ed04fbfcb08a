"""Which share of a graph's computation is in which type, read from the graph alone."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, inliner, shape_inference

from compiler.precision._cost import DATA_MOVERS, INTEGER_OPS, Shape, macs, operands
from compiler.precision._graphs import stripped
from specs.engines import Precision
from specs.errors import ExportError

__all__ = ["compute_shares", "node_costs"]

PRECISIONS: dict[int, Precision] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.DOUBLE: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}
"""float64 counts as fp32: it is no lower precision either."""
EIGHT_BITS = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4})
"""Types behind a DequantizeLinear that engines multiply in 8 bits."""


@dataclass(frozen=True)
class _Value:
    """What is known of one value: its element type and, where inference found it, its shape."""

    dtype: int
    shape: Shape | None


_Scope = ChainMap[str, _Value]
_Makers = ChainMap[str, onnx.NodeProto]


def compute_shares(graph: Path, sizes: Mapping[str, int]) -> dict[Precision, float]:
    """The share of the multiply-accumulates that is computed in each type.

    A node of a Q/DQ graph counts as int8 where all of its operands come through DequantizeLinear.

    Args:
        graph: an ONNX file.
        sizes: sizes of the dynamic axes by name; the others, and the batch, count 1.

    Returns:
        Shares above 0 by type, which sum to 1; {} for a graph that computes nothing.
    """
    totals: dict[Precision, float] = defaultdict(float)
    for precision, cost in node_costs(graph, sizes).values():
        totals[precision] += cost
    whole = sum(totals.values())
    return {name: cost / whole for name, cost in sorted(totals.items()) if cost > 0}


def node_costs(graph: Path, sizes: Mapping[str, int]) -> dict[str, tuple[Precision, float]]:
    """Type and cost of every node that multiplies and accumulates, by node name.

    A graph without any such node gives its other computing nodes, with the elements of their
    outputs as costs. A node without a name of its own is called by its first output. Bodies of
    Loop and Scan count once, both branches of If count. A size that depends on data counts 1, so
    that no node drops out.

    Args:
        graph: an ONNX file.
        sizes: sizes of the dynamic axes by name; the others, and the batch, count 1.

    Raises:
        ExportError: the graph's shapes contradict each other; code ``precision``.
    """
    proto = _inferred(graph, sizes)
    found = list(_walk(proto.graph, ChainMap(), ChainMap()))
    names = Counter(item.name for item in found)
    if any(item.macs for item in found):
        costs = [(item, item.macs) for item in found if item.macs]
    else:
        costs = [(item, item.elements) for item in found if item.elements]
    return {
        item.name if names[item.name] == 1 and item.name else item.output: (item.precision, cost)
        for item, cost in costs
    }


@dataclass(frozen=True)
class _Node:
    name: str
    output: str
    precision: Precision
    macs: float
    elements: float


def _inferred(graph: Path, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """The graph without functions and large weights, at those sizes, with all shapes inferred."""
    proto = stripped(onnx.load(str(graph)))
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    for value in proto.graph.input:
        _fix(value, sizes)
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")  # may say "3*height", which no longer holds
    del proto.graph.value_info[:]
    try:
        return shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # onnx's own kinds, and protobuf's
        reason = str(error).strip().splitlines()[0]
        message = f"the shapes in {graph.name} cannot be inferred: {reason}"
        hint = "check the graph with onnx.checker"
        raise ExportError(message, hint=hint, code="precision") from error


def _fix(value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if not dim.HasField("dim_value"):
            dim.dim_value = sizes.get(dim.dim_param, 1)


def _walk(graph: onnx.GraphProto, outer: _Scope, makers: _Makers) -> Iterator[_Node]:
    scope = outer.new_child(_values(graph))
    makers = makers.new_child({name: node for node in graph.node for name in node.output})
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _walk(attribute.g, scope, makers)
        item = _describe(node, scope, makers)
        if item is not None:
            yield item


def _values(graph: onnx.GraphProto) -> dict[str, _Value]:
    known = {
        value.name: _Value(value.type.tensor_type.elem_type, _shape(value))
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    weights = {t.name: _Value(t.data_type, tuple(t.dims)) for t in graph.initializer}
    return {**known, **weights}


def _shape(value: onnx.ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in tensor.shape.dim)


def _describe(node: onnx.NodeProto, scope: _Scope, makers: _Makers) -> _Node | None:
    if node.op_type in DATA_MOVERS:
        return None
    precision = _precision(node, scope, makers)
    if precision is None:
        return None
    names = [name for name in (*node.input, *node.output) if name in scope]
    shapes = {name: scope[name].shape for name in names}
    results = [shapes.get(name) for name in node.output if name]
    elements = sum(prod(shape) for shape in results if shape is not None)
    return _Node(node.name, node.output[0], precision, macs(node, shapes), elements)


def _precision(node: onnx.NodeProto, scope: _Scope, makers: _Makers) -> Precision | None:
    """The type that a node computes in; None where it is no type of ``Precision``."""
    if node.op_type in INTEGER_OPS:
        return "int8"
    names = operands(node)
    types = [scope[name].dtype for name in names if name in scope]
    if names and all(_quantized(name, scope, makers) for name in names):
        return "int8"
    return next((PRECISIONS[dtype] for dtype in types if dtype in PRECISIONS), None)


def _quantized(name: str, scope: _Scope, makers: _Makers) -> bool:
    """Whether a value comes through DequantizeLinear, and nothing but moves since."""
    while name in makers:
        node = makers[name]
        if node.op_type == "DequantizeLinear":
            source = scope.get(node.input[0])
            return source is not None and source.dtype in EIGHT_BITS
        if node.op_type not in DATA_MOVERS or not node.input:
            return False
        name = node.input[0]
    return False
