"""A float16 or bfloat16 graph as every CPU runs it: computed in float32, rounded after each node.

Engines on CPUs cannot judge such a graph. ONNX Runtime 1.31 has no bfloat16 kernels on the CPU, and
computes float16 in float32 without rounding in between, so that 70,000 passes where a GPU gives
infinity. The emulation rounds every value to its type and back, which is what a kernel does that
accumulates in float32.
"""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections import ChainMap
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from compiler.graph import save
from compiler.precision._cost import DATA_MOVERS
from compiler.precision._graphs import all_graphs, initial, local_types, typed
from compiler.precision._types import subgraphs

__all__ = ["emulate", "emulate_file"]

NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
FLOAT = TensorProto.FLOAT
_Types = ChainMap[str, onnx.TypeProto]


def emulate_file(graph: Path, file: Path) -> None:
    """Write the emulation of the graph in ``graph`` to ``file``."""
    save(emulate(onnx.load(str(graph))), file, external=None)


def emulate(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with the same inputs and outputs whose narrow values are float32, rounded.

    Args:
        proto: a valid graph without local functions; not changed.
    """
    new = typed(proto)
    inputs = {value.name: value.type.tensor_type.elem_type for value in new.graph.input}
    outputs = {value.name: value.type.tensor_type.elem_type for value in new.graph.output}
    _emulate(new.graph, ChainMap())
    _keep_edges(new.graph, inputs, outputs)
    return new


def _emulate(graph: onnx.GraphProto, outer: _Types) -> None:
    types = outer.new_child(local_types(graph))
    nodes = [new for node in graph.node for new in _rounded(node, types)]
    del graph.node[:]
    graph.node.extend(nodes)
    for tensor in graph.initializer:
        if tensor.data_type in NARROW:
            tensor.CopyFrom(initial(tensor, FLOAT, tensor.name))
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = FLOAT


def _rounded(node: onnx.NodeProto, types: _Types) -> list[onnx.NodeProto]:
    """A node in float32, and after it the roundings of what it gives."""
    for inner in subgraphs(node):
        _emulate(inner, types)
    dtypes = [types[name].tensor_type.elem_type if name in types else 0 for name in node.output]
    _widen_attributes(node)
    if node.op_type in DATA_MOVERS - {"Cast", "CastLike", "DequantizeLinear"}:
        return [node]  # what only moves is rounded already
    after: list[onnx.NodeProto] = []
    for place, (name, dtype) in enumerate(zip(node.output, dtypes, strict=True)):
        if dtype in NARROW:
            node.output[place] = f"{name}.exact"
            after += _round(name, dtype)
    return [node, *after]


def _round(name: str, dtype: int) -> list[onnx.NodeProto]:
    there = helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=dtype)
    back = helper.make_node("Cast", [f"{name}.rounded"], [name], to=FLOAT)
    return [there, back]


def _widen_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype", "output_dtype") and attribute.i in NARROW:
            attribute.i = FLOAT
        if attribute.HasField("t") and attribute.t.data_type in NARROW:
            attribute.t.CopyFrom(initial(attribute.t, FLOAT, attribute.t.name))


def _keep_edges(graph: onnx.GraphProto, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    """Inputs and outputs that are narrow themselves stay so, with a cast inside."""
    before = {name: dtype for name, dtype in inputs.items() if dtype in NARROW}
    after = {name: dtype for name, dtype in outputs.items() if dtype in NARROW}
    for inner in all_graphs(graph):
        for node in inner.node:
            _rename(node, before, after)
    casts = [helper.make_node("Cast", [name], [f"{name}.wide"], to=FLOAT) for name in before]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    graph.node.extend(
        helper.make_node("Cast", [f"{name}.wide"], [name], to=dtype)
        for name, dtype in after.items()
    )
    for value in (*graph.input, *graph.output):
        if value.name in before | after:
            value.type.tensor_type.elem_type = (before | after)[value.name]


def _rename(node: onnx.NodeProto, before: dict[str, int], after: dict[str, int]) -> None:
    for place, name in enumerate(node.input):
        if name in before or name in after:
            node.input[place] = f"{name}.wide"
    for place, name in enumerate(node.output):
        if name in after:
            node.output[place] = f"{name}.wide"
