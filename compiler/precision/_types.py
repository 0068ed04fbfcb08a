"""Which of a node's inputs and outputs may change from float32 to a narrower type.

ONNX's own operator schemas decide, at the graph's opset: a type variable changes where its
constraint allows the narrower type. What a schema fixes to float32 (the scales of Resize, the
boxes of NonMaxSuppression), and every operator without a schema, stays as it is.
"""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, defs

__all__ = ["NAMES", "Plan", "Types", "least_opset", "plan", "subgraphs"]

Types = Mapping[str, onnx.TypeProto]

NAMES: dict[int, str] = {
    TensorProto.FLOAT: "float",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}
"""ONNX's names of the types in a schema's constraints."""
FROM_ATTRIBUTE = frozenset({"Cast", "ConstantOfShape"})
"""Ops whose output's type an attribute says, which is changed with it."""
UNFIT = frozenset({"BitCast", "MeanVarianceNormalization"})
"""Ops that their schemas allow narrower types and their definitions do not: one keeps the width in
bits, the other adds a float32 constant."""


@dataclass(frozen=True)
class Plan:
    """Types that a node's float32 inputs and outputs get; None for all that are not float32."""

    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]

    @property
    def narrow(self) -> bool:
        """Whether anything changes."""
        return any(dtype not in (None, TensorProto.FLOAT) for dtype in self.inputs + self.outputs)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g


def plan(
    node: onnx.NodeProto, types: Types, dtype: int, opsets: Mapping[str, int], *, keep: bool
) -> Plan:
    """The types that a node gets in a graph that is converted to ``dtype``.

    Args:
        node: not one with subgraphs, whose values stay float32.
        types: types of all values as they were.
        dtype: of ``onnx.TensorProto``, FLOAT16 or BFLOAT16.
        opsets: versions by domain.
        keep: leave everything in float32.
    """
    own = node.domain in ("", "ai.onnx")
    schema = None if keep or not own or not _plain(node, types) else _schema(node, opsets)
    variables = _variables(node, types, dtype, schema) if schema else frozenset[str]()
    ins = _formals(node.input, schema.inputs if schema else ())
    outs = _formals(node.output, schema.outputs if schema else ())
    return Plan(
        tuple(_new(types, name, formal in variables, dtype) for name, formal in ins),
        tuple(_new(types, name, formal in variables, dtype) for name, formal in outs),
    )


def least_opset(nodes: Sequence[onnx.NodeProto], dtype: int, opset: int) -> int:
    """The lowest opset, ``opset`` or above, at which every one of ``nodes`` takes ``dtype``."""
    return max((_admits(node, dtype, opset) for node in nodes), default=opset)


def _admits(node: onnx.NodeProto, dtype: int, opset: int) -> int:
    for version in range(opset, defs.onnx_opset_version() + 1):
        schema = _schema(node, {"": version})
        if schema is None or _allowed(schema, schema.inputs[0].type_str, dtype):
            return version
    return opset


def _schema(node: onnx.NodeProto, opsets: Mapping[str, int]) -> defs.OpSchema | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in opsets:
        return None
    try:
        return defs.get_schema(node.op_type, opsets[domain], domain)
    except defs.SchemaError:
        return None


def _plain(node: onnx.NodeProto, types: Types) -> bool:
    """Whether all values are tensors of known types: no sequences, nothing behind a custom op."""
    names = [name for name in (*node.input, *node.output) if name]
    return all(name in types and types[name].HasField("tensor_type") for name in names)


def _variables(
    node: onnx.NodeProto, types: Types, dtype: int, schema: defs.OpSchema
) -> frozenset[str]:
    """The type variables that become ``dtype``."""
    taken = {formal for name, formal in _formals(node.input, schema.inputs) if name}
    given = {
        formal for name, formal in _formals(node.output, schema.outputs) if _float(types, name)
    }
    if node.op_type in FROM_ATTRIBUTE:
        taken |= given
    if node.op_type in UNFIT or not given <= taken:
        return frozenset()  # what decides an output's type is not seen here
    return frozenset(formal for formal in taken if _allowed(schema, formal, dtype))


def _allowed(schema: defs.OpSchema, formal: str, dtype: int) -> bool:
    constraints = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    return f"tensor({NAMES[dtype]})" in constraints.get(formal, ())


def _formals(
    names: Sequence[str], formals: Sequence[defs.OpSchema.FormalParameter]
) -> list[tuple[str, str]]:
    """Each actual name with its formal's type; the last formal may be variadic."""
    last = len(formals) - 1
    return [
        (name, formals[min(i, last)].type_str if formals else "") for i, name in enumerate(names)
    ]


def _new(types: Types, name: str, changes: bool, dtype: int) -> int | None:
    if not _float(types, name):
        return None
    return dtype if changes else TensorProto.FLOAT


def _float(types: Types, name: str) -> bool:
    kind = types.get(name) if name else None
    return kind is not None and kind.tensor_type.elem_type == TensorProto.FLOAT
