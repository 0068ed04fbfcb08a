"""Which nodes compute sizes, positions and masks: float32 values that are born of integers.

A size of 2049 or a position of 3001 has no float16 of its own, and such values end up in shapes,
angles and indices. These nodes cost nothing, so they stay in float32.
"""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections import ChainMap

import onnx
from onnx import TensorProto

from compiler.precision._cost import is_costly
from compiler.precision._graphs import local_types
from compiler.precision._types import subgraphs

__all__ = ["born_of_integers"]

INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64})
"""8-bit integers are pictures: every value is exact in float16, and in bfloat16."""
_Types = ChainMap[str, onnx.TypeProto]
_Marks = ChainMap[str, str]
BORN, CONSTANT, DATA = "born", "constant", "data"


def born_of_integers(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the nodes that cast integers to float32, and of those that take nothing else.

    Args:
        graph: with the types of all values.
    """
    found: set[str] = set()
    _walk(graph, ChainMap(), ChainMap(), found)
    return frozenset(found)


def _walk(graph: onnx.GraphProto, outer: _Types, marks: _Marks, found: set[str]) -> None:
    types = outer.new_child(local_types(graph))
    marks = marks.new_child({tensor.name: CONSTANT for tensor in graph.initializer})
    for node in graph.node:
        for inner in subgraphs(node):
            _walk(inner, types, marks, found)
        mark = _mark(node, types, marks)
        marks.update(dict.fromkeys(node.output, mark))
        if mark == BORN:
            found.add(node.name)


def _mark(node: onnx.NodeProto, types: _Types, marks: _Marks) -> str:
    outputs = [_dtype(types, name) for name in node.output if name]
    if TensorProto.FLOAT not in outputs or any(subgraphs(node)):
        return DATA
    if node.op_type == "Cast" and _dtype(types, node.input[0]) in INTEGERS:
        return BORN
    floats = [name for name in node.input if name and _dtype(types, name) == TensorProto.FLOAT]
    sources = {marks.get(name, DATA) for name in floats}
    if BORN in sources and DATA not in sources and not is_costly(node):
        return BORN
    return CONSTANT if sources == {CONSTANT} else DATA


def _dtype(types: _Types, name: str) -> int:
    return types[name].tensor_type.elem_type if name in types else 0
