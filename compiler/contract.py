"""The contract: what the spec asks of the graph, compared with the graph that was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from compiler.graph import graph_inputs, least_ir_version, opset_of, shape_of
from specs.errors import ContractError
from specs.schema import Spec, TensorSpec

__all__ = ["check_contract", "differences"]

NEWEST_IR = 13
"""The newest IR version that ONNX Runtime 1.31 reads; onnx 1.23 writes 14 by default."""


def check_contract(proto: onnx.ModelProto, spec: Spec) -> None:
    """Raise ``ContractError`` with every difference between graph and spec."""
    found = list(differences(proto, spec))
    if found:
        lines = "\n  ".join(message for message, _ in found)
        hints = "; ".join(dict.fromkeys(hint for _, hint in found if hint))
        message = f"the exported graph is not what the spec asks for:\n  {lines}"
        raise ContractError(message, hint=hints or "correct the spec or the model")


def differences(proto: onnx.ModelProto, spec: Spec) -> Iterator[tuple[str, str]]:
    """Each difference with its hint."""
    yield from _versions(proto, spec)
    sizes = {name: axis.min for name, axis in spec.dynamic_axes.items() if axis.min == axis.max}
    yield from _tensors("input", graph_inputs(proto), spec.inputs, sizes)
    yield from _tensors("output", proto.graph.output, spec.outputs, sizes)


def _versions(proto: onnx.ModelProto, spec: Spec) -> Iterator[tuple[str, str]]:
    export, opset = spec.export, opset_of(proto)
    # A graph that came as ONNX has the opset it has, unless the spec names one.
    asked = bool(spec.model.exporters) or "opset" in export.model_fields_set
    if asked and opset != export.opset:
        hint = "use export: {exporter: torchscript}" if export.exporter == "dynamo" else ""
        yield f"opset: asked {export.opset}, found {opset}", hint
    if export.ir_version is not None and proto.ir_version != export.ir_version:
        hint = f"opset {opset} needs IR version {least_ir_version(proto)} or higher"
        yield f"IR version: asked {export.ir_version}, found {proto.ir_version}", hint
    if proto.ir_version > NEWEST_IR:
        found = f"IR version: found {proto.ir_version}, ONNX Runtime reads up to {NEWEST_IR}"
        yield found, f"write the file with ir_version={NEWEST_IR} or lower"


def _tensors(
    kind: str,
    values: Sequence[onnx.ValueInfoProto],
    wanted: Mapping[str, TensorSpec],
    sizes: Mapping[str, int],
) -> Iterator[tuple[str, str]]:
    """Differences of all inputs or outputs; ``sizes`` are the named dimensions of one size."""
    names = [value.name for value in values]
    if names != list(wanted):
        hint = f"name the spec's {kind}s in the model's order: {', '.join(names)}"
        yield f"{kind}s: asked {list(wanted)}, found {names}", hint
        return
    for value, tensor in zip(values, wanted.values(), strict=True):
        yield from _tensor(f"{kind} '{value.name}'", value, tensor, sizes)


def _tensor(
    what: str, value: onnx.ValueInfoProto, wanted: TensorSpec, sizes: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    if not value.type.HasField("tensor_type"):
        yield f"{what}: asked a tensor, found {value.type.WhichOneof('value')}", ""
        return
    dtype = _dtype(value)
    if dtype != wanted.dtype:
        yield f"{what} dtype: asked {wanted.dtype}, found {dtype}", f"set dtype: {dtype}"
    shape = shape_of(value)
    if len(shape) != len(wanted.shape):
        yield f"{what} rank: asked {list(wanted.shape)}, found {shape}", ""
        return
    for axis, (found, asked) in enumerate(zip(shape, wanted.shape, strict=True)):
        if found != asked and (found is None or found != sizes.get(str(asked))):
            yield f"{what} axis {axis}: asked {asked}, found {found}", _dim_hint(found, asked)


def _dtype(value: onnx.ValueInfoProto) -> str:
    number = value.type.tensor_type.elem_type
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number))
    except KeyError:
        return onnx.TensorProto.DataType.Name(number).lower()


def _dim_hint(found: int | str | None, asked: int | str) -> str:
    if isinstance(asked, str) and isinstance(found, int):
        return (
            f"the exporter froze '{asked}' at {found}: the forward pass reads a size as a number "
            "(int(x.shape[0]), a view with fixed sizes); write it with -1 or x.shape, "
            f"or ask for the fixed size {found}"
        )
    return f"ask for {found}" if found is not None else ""
