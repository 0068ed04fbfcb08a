"""The portable graph: made reproducible, given the spec's names, described."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from specs.manifest import Graph
from specs.schema import Spec, TensorSpec

__all__ = [
    "clean",
    "describe",
    "external_files",
    "graph_inputs",
    "least_ir_version",
    "name_dims",
    "opset_in",
    "opset_of",
    "read",
    "save",
    "set_ir_version",
    "shape_of",
]

INDICES = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32})
"""Types of shapes and indices, which exporters keep among the weights."""
EXTERNAL_ABOVE = 1_500_000_000
"""Bytes of weights above which they lie beside the graph: protobuf ends at 2 GiB."""


def graph_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller fills: without initializers that are listed among them."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [item for item in proto.graph.input if item.name not in weights]


def shape_of(value: onnx.ValueInfoProto) -> list[int | str | None]:
    """Sizes, names, and None for dimensions that the graph leaves open."""
    return [_dim(dim) for dim in value.type.tensor_type.shape.dim]


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value
    return dim.dim_param or None


def opset_of(proto: onnx.ModelProto) -> int:
    """Version of the default operator set; 0 where the graph imports none."""
    return next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)


def read(file: Path) -> onnx.ModelProto:
    """The graph in a file, with its weights."""
    return onnx.load(str(file))


def opset_in(file: Path) -> int:
    """The version in a file, whose weights are not read."""
    return opset_of(onnx.load(str(file), load_external_data=False))


def clean(proto: onnx.ModelProto) -> None:
    """Drop what differs between two builds of one thing: paths, stack traces, build numbers."""
    proto.producer_version = ""
    proto.doc_string = ""
    del proto.metadata_props[:]
    for function in proto.functions:
        _clean_nodes(function.node)
        function.doc_string = ""
        del function.metadata_props[:]
    _clean_graph(proto.graph)


def _clean_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    _clean_nodes(graph.node)


def _clean_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _clean_graph(attribute.g)


def name_dims(proto: onnx.ModelProto, spec: Spec) -> None:
    """Give the graph's open and machine-named dimensions the spec's names.

    An exporter may call the batch ``s77``, and leave sizes of outputs open or call them
    ``3*s53``. A named dimension of an input takes the spec's name everywhere. An open dimension
    takes what the spec says; one that carries a name of its own keeps it, so that the contract
    check sees it. Sizes that the graph fixes are never touched.
    """
    names: dict[str, str] = {}
    for value, tensor in zip(graph_inputs(proto), spec.inputs.values(), strict=False):
        _name_value(value, tensor, names)
    for value in (*graph_inputs(proto), *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _substitute(dim.dim_param, names)
    known = set(spec.dynamic_axes)
    for value, tensor in zip(proto.graph.output, spec.outputs.values(), strict=False):
        _name_output(value, tensor, known)


def _name_value(value: onnx.ValueInfoProto, tensor: TensorSpec, names: dict[str, str]) -> None:
    for dim, wanted in zip(value.type.tensor_type.shape.dim, tensor.shape, strict=False):
        if dim.dim_param and isinstance(wanted, str):
            names.setdefault(dim.dim_param, wanted)
        elif not dim.dim_param and not dim.HasField("dim_value"):
            _set(dim, wanted)


def _name_output(value: onnx.ValueInfoProto, tensor: TensorSpec, known: set[str]) -> None:
    """Dims that no input's name explains take the spec's word: parity runs them."""
    for dim, wanted in zip(value.type.tensor_type.shape.dim, tensor.shape, strict=False):
        if dim.HasField("dim_value"):
            continue
        used = set(re.findall(r"[A-Za-z_]\w*", dim.dim_param))
        if not used & known or (isinstance(wanted, str) and wanted not in known):
            _set(dim, wanted)


def _set(dim: onnx.TensorShapeProto.Dimension, wanted: int | str) -> None:
    if isinstance(wanted, str):
        dim.dim_param = wanted
    else:
        dim.dim_value = wanted


def _substitute(expression: str, names: dict[str, str]) -> str:
    return re.sub(r"[A-Za-z_]\w*", lambda match: names.get(match[0], match[0]), expression)


def set_ir_version(proto: onnx.ModelProto, wanted: int | None) -> None:
    """Write the IR version that the spec asks for, where the operator sets allow it."""
    if wanted is not None and wanted >= least_ir_version(proto):
        proto.ir_version = wanted


def least_ir_version(proto: onnx.ModelProto) -> int:
    """The lowest IR version that the graph's operator sets and functions may come with."""
    least = onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    # Before 4 every initializer had to be an input, before 8 there were no functions.
    return max(least, 4, 8 if proto.functions else 0)


def save(proto: onnx.ModelProto, file: Path, *, external: bool | None) -> None:
    """Write the graph deterministically; with weights beside it where ``external`` or too large."""
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if external or (external is None and size > EXTERNAL_ABOVE):
        location = f"{file.name}.data"
        for tensor in proto.graph.initializer:
            # Shapes, axes and scales are vectors: ONNX Runtime reads them while it loads a graph,
            # and only from the graph itself.
            if len(tensor.dims) > 1 and tensor.HasField("raw_data"):
                set_external_data(tensor, location)
        onnx.save_model(proto, str(file))
        return
    file.write_bytes(proto.SerializeToString(deterministic=True))


def external_files(file: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights; none where it cannot be read."""
    try:
        proto = onnx.load(str(file), load_external_data=False)
    except Exception:  # noqa: BLE001 - whoever loads it for use says what is wrong
        return []
    names = {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [file.parent / name for name in sorted(names)]


def describe(proto: onnx.ModelProto, exporter: str) -> Graph:
    """What the manifest says of the graph."""
    nodes = Counter(_op_name(node) for node in _nodes(proto.graph))
    weights = [tensor for tensor in proto.graph.initializer if tensor.data_type not in INDICES]
    parameters = sum(_elements(tensor) for tensor in weights)
    return Graph(
        exporter=exporter,
        opset=opset_of(proto),
        ir_version=proto.ir_version,
        nodes=dict(sorted(nodes.items())),
        parameters=parameters,
    )


def _op_name(node: onnx.NodeProto) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
