"""Raises the opset where the operators that do the work take bfloat16 from a later one on."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import onnx
from onnx import version_converter

from compiler.graph import least_ir_version, opset_of
from compiler.precision._cost import is_costly
from compiler.precision._graphs import all_graphs
from compiler.precision._types import NAMES, least_opset
from specs.errors import ExportError

__all__ = ["raised", "raised_to"]


def raised(proto: onnx.ModelProto, dtype: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph at an opset whose costly operators take ``dtype``, and a note where it rose.

    Raises:
        ExportError: ONNX cannot convert it to that opset.
    """
    costly = [n for g in all_graphs(proto.graph) for n in g.node if is_costly(n)]
    before = opset_of(proto)
    wanted = least_opset(costly, dtype, before)
    if wanted == before:
        return proto, ()
    late = {node.op_type for node in costly if least_opset([node], dtype, before) > before}
    why = f"it gives {', '.join(sorted(late))} a form in {NAMES[dtype]}"
    return raised_to(proto, wanted, why), (f"opset raised from {before} to {wanted}: {why}",)


def raised_to(proto: onnx.ModelProto, opset: int, why: str) -> onnx.ModelProto:
    """The graph at another opset, by ONNX's own converter.

    Raises:
        ExportError: it cannot be converted; says ``why`` it had to be.
    """
    try:
        new = version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises RuntimeError, protobuf its own kinds
        reason = str(error).strip().splitlines()[0]
        message = f"the graph's opset {opset_of(proto)} cannot be raised to {opset}: {reason}"
        hint = f"export with opset: {opset}, because {why}"
        raise ExportError(message, hint=hint, code="precision") from error
    new.ir_version = max(proto.ir_version, least_ir_version(new))
    return new
