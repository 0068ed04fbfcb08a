"""int8: Q/DQ pairs with calibrated ranges, or ranges found at run time.

ONNX Runtime's quantizer does the rewriting; the ranges are ours (`_calibrate`). Which integers an
engine wants:

- ONNX Runtime on the CPU and OpenVINO: uint8 activations with a zero point, int8 weights without,
  int32 biases (onnxruntime.ai, "Quantize ONNX models", on the choice of types for x86).
- TensorRT, and ONNX Runtime on a GPU, which hands Q/DQ graphs to it: int8 for both without a zero
  point, float biases, inputs of the multiplying operators only, no pair shared between nodes
  (docs.nvidia.com/deeplearning/tensorrt, "Working with Quantized Types"; microsoft/onnxruntime
  pull request 9720, which added the options for TensorRT).
"""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from compiler.graph import opset_of
from compiler.precision._base import Converted, Request
from compiler.precision._calibrate import calibrated
from compiler.precision._cost import INTEGER_OPS, is_costly, operands
from compiler.precision._graphs import all_graphs, local_types, prepared, typed, write
from compiler.precision._opset import raised_to
from compiler.precision._taps import Extent
from compiler.quiet import quiet
from runtime.machine import int8_saturates
from specs.engines import Device
from specs.errors import DeploycError, ExportError

if TYPE_CHECKING:
    from onnxruntime.quantization.calibrate import TensorsData

__all__ = ["quantize"]

LEAST_OPSET = {"static": 13, "dynamic": 11}
"""QuantizeLinear and DequantizeLinear take one scale per channel from 13 on, and
DynamicQuantizeLinear came with 11."""
DYNAMIC_ENGINES = frozenset({"onnxruntime"})
"""Engines with kernels for DynamicQuantizeLinear and MatMulInteger; TensorRT's parser has none
(microsoft/onnxruntime issue 21169)."""
WHY = {
    "static": "the quantizer has no form for it",
    "dynamic": "mode: dynamic takes MatMul and Gemm with constant weights",
}
TOLD = 5
"""How many nodes a note names."""
MULTIPLYING = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class _Scheme:
    """How an engine wants its integers.

    Args:
        symmetric: activations are int8 without a zero point, and not uint8 with one.
        ops: op types to quantize; () for all that the quantizer knows.
        options: the quantizer's own.
    """

    symmetric: bool
    ops: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict[str, Any])


SEVEN_BITS = (
    "weights of 7 bits: sums of 8-bit products may saturate on this processor, which tells of no "
    "VNNI (quantize.reduce_range)"
)
CPU = _Scheme(symmetric=False)
GPU = _Scheme(
    symmetric=True,
    ops=MULTIPLYING,
    options={
        "ActivationSymmetric": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": list(MULTIPLYING),
        "QuantizeBias": False,
    },
)


def quantize(request: Request) -> Converted:
    """Convert to int8, statically or dynamically.

    Raises:
        ExportError: the quantizer refuses the graph, nothing could be quantized, an ``exclude``
            matches no node, or the engine takes no dynamic quantisation; code ``quantize``.
    """
    if reduced := _seven_bits(request):
        asked = request.quantize.model_copy(update={"reduce_range": True})
        request = replace(request, quantize=asked)
    mode = request.quantize.mode
    if mode == "dynamic" and request.engine not in DYNAMIC_ENGINES:
        message = f"{request.engine} cannot run dynamically quantized graphs"
        hint = "take quantize: {mode: static}, or engine: onnxruntime"
        raise ExportError(message, hint=hint, code="quantize")
    proto = prepared(request.graph)
    excluded = _excluded(proto, request.quantize.exclude)
    proto, notes = _at_opset(proto, LEAST_OPSET[mode])
    run = _static if mode == "static" else _dynamic
    quantized = _translated(run, proto, request, excluded)
    _restore(quantized, proto)
    _check(quantized)
    file = f"{request.graph.stem}.int8.onnx"
    write(quantized, request.folder / file)
    said = (SEVEN_BITS,) if reduced else ()
    return Converted(file, notes=(*notes, *_notes(quantized, request, excluded), *said))


def _seven_bits(request: Request) -> bool:
    """Whether weights get 7 bits without the spec's asking: this machine's sums saturate."""
    unasked = request.quantize.reduce_range is None
    return unasked and not _on_gpu(request.engine, request.device) and int8_saturates()


def _on_gpu(engine: str, device: Device) -> bool:
    return engine == "tensorrt" or device == "cuda"


def _excluded(proto: onnx.ModelProto, patterns: Collection[str]) -> list[str]:
    """Names of the nodes that the patterns match, each from its beginning to its end."""
    names = [node.name for graph in all_graphs(proto.graph) for node in graph.node]
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if re.fullmatch(pattern, name)}
        if not matched:
            message = f"quantize.exclude: '{pattern}' matches no node of the graph"
            raise ExportError(message, hint=_nearest(pattern, names), code="quantize")
        found |= matched
    return [name for name in names if name in found]


def _nearest(pattern: str, names: list[str]) -> str:
    close = difflib.get_close_matches(pattern, names, n=1)
    example = f"did you mean '{close[0]}'?" if close else f"the first one is '{names[0]}'"
    return f"a pattern matches whole node names: {example}"


def _at_opset(proto: onnx.ModelProto, least: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    before = opset_of(proto)
    if before >= least:
        return proto, ()
    why = "quantized graphs need it"
    return raised_to(proto, least, why), (f"opset raised from {before} to {least}: {why}",)


def _translated(
    run: Callable[[onnx.ModelProto, Request, list[str]], onnx.ModelProto],
    proto: onnx.ModelProto,
    request: Request,
    excluded: list[str],
) -> onnx.ModelProto:
    """The quantizer's result, its errors made ours and its chatter kept away."""
    try:
        with quiet():
            return run(proto, request, excluded)
    except DeploycError:
        raise
    except Exception as error:  # the quantizer and ONNX Runtime raise a dozen kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"the graph cannot be quantized: {reason}"
        hint = "name the node that it stumbles over in quantize.exclude, or take another precision"
        raise ExportError(message, hint=hint, code="quantize") from error


def _static(proto: onnx.ModelProto, request: Request, excluded: list[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    scheme = GPU if _on_gpu(request.engine, request.device) else CPU
    ops = list(scheme.ops) or _all_ops()
    graph = typed(_folded(proto))
    names = _activations(graph.graph, ops)
    ranges = calibrated(graph, names, request.calibration, request.quantize)
    graph.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")  # types are inferred
    quantizer = QDQQuantizer(
        graph,
        per_channel=request.quantize.per_channel,
        reduce_range=bool(request.quantize.reduce_range),
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if scheme.symmetric else QuantType.QUInt8,
        tensors_range=_as_tensors_data(ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=ops,
        extra_options=dict(scheme.options),
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _all_ops() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


def _as_tensors_data(ranges: dict[str, Extent]) -> TensorsData:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    # Whatever the method was: the quantizer takes ranges as they come under this name.
    data = {
        name: TensorData(lowest=np.float32(extent.low), highest=np.float32(extent.high))
        for name, extent in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def _activations(graph: onnx.GraphProto, ops: Collection[str]) -> list[str]:
    """The float32 values, weights aside, that nodes of these types take and give."""
    types = local_types(graph)
    weights = {tensor.name for tensor in graph.initializer}
    names = (
        name
        for node in graph.node
        if node.op_type in ops
        for name in (*node.input, *node.output)
        if name in types and types[name].tensor_type.elem_type == TensorProto.FLOAT
    )
    return [name for name in dict.fromkeys(names) if name not in weights]


def _folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Batch norms folded into the convolutions before them, which is what is quantized.

    torch's exporters have done so; a graph from elsewhere goes through ONNX Runtime's portable
    optimisations, which keep node names.
    """
    if not any(node.op_type == "BatchNormalization" for node in proto.graph.node):
        return proto
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel(1)  # basic
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(proto, str(before))
        options.optimized_model_filepath = str(after)
        ort.InferenceSession(str(before), options, providers=["CPUExecutionProvider"])
        return onnx.load(str(after))


def _dynamic(proto: onnx.ModelProto, request: Request, excluded: list[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # A Gemm becomes a MatMul of this name and an Add, before it is looked up.
    turned = [f"{name}_MatMul" for name in excluded]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "dynamic.onnx")
        quantize_dynamic(
            proto,
            str(file),
            op_types_to_quantize=["MatMul"],
            per_channel=request.quantize.per_channel,
            reduce_range=bool(request.quantize.reduce_range),
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded + turned,
        )
        return onnx.load(str(file))


def _restore(quantized: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """What the quantizer and the optimiser changed besides: producer, domains, types of values."""
    quantized.producer_name = proto.producer_name
    quantized.ir_version = max(quantized.ir_version, proto.ir_version)
    used = {node.domain for graph in all_graphs(quantized.graph) for node in graph.node}
    kept = [item for item in quantized.opset_import if item.domain in used | {""}]
    del quantized.opset_import[:]
    quantized.opset_import.extend(kept)
    del quantized.graph.value_info[:]


def _check(quantized: onnx.ModelProto) -> None:
    """Something must be quantized."""
    ops = {node.op_type for node in quantized.graph.node}
    if not ops & {"QuantizeLinear", "DynamicQuantizeLinear"}:
        message = "nothing in the graph could be quantized"
        hint = "look at quantize.exclude, or take another precision"
        raise ExportError(message, hint=hint, code="quantize")


def _notes(quantized: onnx.ModelProto, request: Request, excluded: list[str]) -> list[str]:
    notes = [f"not quantized, as quantize.exclude asks: {_told(excluded)}"] if excluded else []
    left = [name for name in _in_float(quantized.graph) if name not in set(excluded)]
    if left:
        notes.append(f"not quantized, because {WHY[request.quantize.mode]}: {_told(left)}")
    return notes


def _in_float(graph: onnx.GraphProto) -> list[str]:
    """Multiplying nodes with an operand that nothing dequantizes."""
    fed = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in graph.node
        if is_costly(node)
        and node.op_type not in INTEGER_OPS
        and not fed.issuperset(operands(node))
    ]


def _told(names: list[str]) -> str:
    more = len(names) - TOLD
    return ", ".join(names[:TOLD]) + (f" and {more} more" if more > 0 else "")
