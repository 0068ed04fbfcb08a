"""How many multiply-accumulates a node does, from the shapes of what goes in and comes out."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx

__all__ = ["DATA_MOVERS", "INTEGER_OPS", "Shape", "is_costly", "macs", "operands"]

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape | None]

INTEGER_OPS = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
DATA_MOVERS = frozenset(
    {
        "Cast",
        "CastLike",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "DepthToSpace",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "If",
        "Loop",
        "Pad",
        "QuantizeLinear",
        "Reshape",
        "Scan",
        "Shape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Ops that compute nothing: they move values, or change how these are stored."""


def operands(node: onnx.NodeProto) -> list[str]:
    """The values that a node multiplies, or for other nodes all that it takes.

    Biases, masks and sizes are left out: an engine adds a bias in a wider type.
    """
    chosen = _OPERANDS.get(node.op_type)
    places = range(len(node.input)) if chosen is None else chosen
    return [node.input[i] for i in places if i < len(node.input) and node.input[i]]


def is_costly(node: onnx.NodeProto) -> bool:
    """Whether a node multiplies and accumulates."""
    return node.op_type in _COUNTS


def macs(node: onnx.NodeProto, shapes: Shapes) -> float:
    """Multiply-accumulates of one node: 0 where it has none, 1 where a shape is not known."""
    count = _COUNTS.get(node.op_type)
    if count is None:
        return 0.0
    wanted = [*operands(node), *node.output[:1]]
    if node.op_type in RECURRENT:
        wanted.pop()  # may be left out, and is not needed
    known = [shape for name in wanted if (shape := shapes.get(name)) is not None]
    return float(count(node, known)) if len(known) == len(wanted) else 1.0


def _conv(_: onnx.NodeProto, shapes: list[Shape]) -> int:
    """Each output takes (channels in / groups) * kernel values: the size of one filter."""
    return prod(shapes[-1]) * prod(shapes[1][1:])


def _conv_transpose(_: onnx.NodeProto, shapes: list[Shape]) -> int:
    """Each input goes to (channels out / groups) * kernel places."""
    return prod(shapes[0]) * prod(shapes[1][1:])


def _matmul(_: onnx.NodeProto, shapes: list[Shape]) -> int:
    return prod(shapes[-1]) * (shapes[0][-1] if shapes[0] else 1)


def _gemm(node: onnx.NodeProto, shapes: list[Shape]) -> int:
    turned = any(item.name == "transA" and item.i for item in node.attribute)
    return prod(shapes[-1]) * shapes[0][0 if turned else 1]


def _recurrent(_: onnx.NodeProto, shapes: list[Shape]) -> int:
    """Per step and item one product with W and one with R, of all gates and directions."""
    values, weights, recurrence = shapes[:3]
    return prod(values[:2]) * (prod(weights) + prod(recurrence))


def _attention(_: onnx.NodeProto, shapes: list[Shape]) -> int:
    """Q K^T, then the product with V: both over all keys."""
    queries, keys, out = shapes[0], shapes[1], shapes[-1]
    return (prod(queries) + prod(out)) * keys[-2]


def _einsum(node: onnx.NodeProto, shapes: list[Shape]) -> int:
    """One product per combination of all indices."""
    text = next(item.s.decode() for item in node.attribute if item.name == "equation")
    terms = text.replace(" ", "").split("->")[0].split(",")
    if len(terms) < 2 or "..." in text:  # noqa: PLR2004 - one operand is no product
        return 0
    pairs = [
        pair for term, shape in zip(terms, shapes, strict=False) for pair in _each(term, shape)
    ]
    return prod(dict(pairs).values())


def _each(term: str, shape: Shape) -> list[tuple[str, int]]:
    return list(zip(term, shape, strict=True))


_OPERANDS: dict[str, tuple[int, ...]] = {
    "Attention": (0, 1, 2),
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "DeformConv": (0, 1),
    "GRU": (0, 1, 2),
    "Gemm": (0, 1),
    "LSTM": (0, 1, 2),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "RNN": (0, 1, 2),
}
_COUNTS: dict[str, Callable[[onnx.NodeProto, list[Shape]], int]] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "DeformConv": _conv,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
}
