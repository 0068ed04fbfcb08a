"""What every conversion does to a graph before: functions inlined, nodes named, types inferred."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, inliner, numpy_helper, shape_inference

from compiler.graph import clean, least_ir_version, save
from compiler.precision._types import subgraphs
from specs.errors import ExportError

__all__ = [
    "all_graphs",
    "inferred",
    "initial",
    "local_types",
    "opsets_of",
    "prepared",
    "stripped",
    "typed",
    "write",
]

LEAST_OPSET = 13
"""For a graph without operators of ONNX's own, which gets its first: casts of every type."""
KEPT_VALUES = 1024
"""Elements up to which a weight's values stay for shape inference, which reads shapes alone."""


def prepared(file: Path) -> onnx.ModelProto:
    """The graph of a file: local functions inlined, every node named, constants made weights."""
    proto = onnx.load(str(file))
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    if "" not in opsets_of(proto):
        proto.opset_import.add(version=LEAST_OPSET)
    _name_nodes(proto)
    for graph in all_graphs(proto.graph):
        _lift_constants(graph)
        _forget_weights(graph)
    return proto


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and its subgraphs, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def opsets_of(proto: onnx.ModelProto) -> dict[str, int]:
    """Versions of the operator sets by domain, "" for ONNX's own."""
    return {
        "" if item.domain == "ai.onnx" else item.domain: item.version for item in proto.opset_import
    }


def inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the values of large weights, with the types and shapes of all values."""
    return shape_inference.infer_shapes(stripped(proto), data_prop=True)


def typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the types and shapes of all values, weights and all."""
    copy = inferred(proto)
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(proto.graph.initializer)
    return copy


def stripped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the values of large weights.

    Shape inference reads small integers alone, and protobuf ends at 2 GiB.
    """
    copy = onnx.ModelProto(ir_version=proto.ir_version)
    copy.opset_import.extend(proto.opset_import)
    copy.functions.extend(proto.functions)
    copy.graph.name = proto.graph.name
    copy.producer_name, copy.domain = proto.producer_name, proto.domain
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(copy.graph, field).extend(getattr(proto.graph, field))
    for tensor in proto.graph.initializer:
        if prod(tensor.dims) <= KEPT_VALUES:
            copy.graph.initializer.append(tensor)
        else:
            new = copy.graph.initializer.add(name=tensor.name, data_type=tensor.data_type)
            new.dims.extend(tensor.dims)
    return copy


def local_types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    """Types of the values of one graph, without its subgraphs'."""
    known = {v.name: v.type for v in (*graph.value_info, *graph.input, *graph.output)}
    for tensor in graph.initializer:
        known[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return known


def initial(tensor: onnx.TensorProto, dtype: int, name: str) -> onnx.TensorProto:
    """A weight's values, rounded to another type."""
    import numpy as np

    wanted = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    with np.errstate(over="ignore"):
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(wanted), name)


def write(proto: onnx.ModelProto, file: Path) -> None:
    """Write the graph and check the file.

    Raises:
        ExportError: ONNX's checker refuses it.
    """
    clean(proto)
    proto.ir_version = max(proto.ir_version, least_ir_version(proto))
    save(proto, file, external=None)
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except Exception as error:  # the checker's own kind, protobuf's and shape inference's
        message = f"the converted graph is no valid ONNX: {str(error).strip().splitlines()[0]}"
        hint = "take precision: fp32, or report it with the spec"
        raise ExportError(message, hint=hint, code="precision") from error


def _name_nodes(proto: onnx.ModelProto) -> None:
    """Give each node without a name of its own the one of its first output."""
    seen: set[str] = set()
    for graph in all_graphs(proto.graph):
        for node in graph.node:
            if not node.name or node.name in seen:
                node.name = _unused(f"{node.op_type}_{next(filter(None, node.output), '')}", seen)
            seen.add(node.name)


def _unused(name: str, seen: set[str]) -> str:
    while name in seen:
        name += "_"
    return name


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Make weights of the float32 Constant nodes, so that there is one kind of constant."""
    outputs = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        tensor = _constant(node)
        if tensor is None or node.output[0] in outputs:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)


def _forget_weights(graph: onnx.GraphProto) -> None:
    """Weights say their types themselves; what is said beside them would be wrong soon."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.value_info if value.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
            return tensor
        if attribute.name in ("value_float", "value_floats"):
            several = attribute.name == "value_floats"
            values = list(attribute.floats) if several else [attribute.f]
            dims = [len(values)] if several else []
            return onnx.helper.make_tensor(node.output[0], TensorProto.FLOAT, dims, values)
    return None
