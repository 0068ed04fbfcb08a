"""What TensorRT's ONNX parser takes, and which types a graph computes in; no GPU is needed."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from specs.engines import Precision
from specs.errors import EngineError

if TYPE_CHECKING:
    import onnx

__all__ = ["NEWEST", "OPERATORS", "check_types", "graph_types", "read_graph", "unsupported"]

NEWEST = 11
_TEN = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos
Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow
HardSigmoid HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LRN LSTM
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max
MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or
PRelu Pad ParametricSoftplus Pow QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RoiAlign RotaryEmbedding Round STFT ScaledTanh Scan Scatter ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu
Unsqueeze Upsample Where Xor
"""
OPERATORS: dict[int, frozenset[str]] = {
    10: frozenset(_TEN.split()),
    11: frozenset(_TEN.split()) | {"Swish"},
}
"""Op types of the default domain that the parser supports, by TensorRT's major version.

10: ``docs/operators.md`` of onnx/onnx-tensorrt for TensorRT 10.15 (2 February 2026), the rows with
"Y". 11: those and ``Swish``, which the release notes of TensorRT 11.0 (2 June 2026) add. Limits
within an operator (a ``Resize`` with antialias, a ``MaxPool`` with indices) show in a build only.
"""
OPSETS = range(9, 25)
"""Opsets of the default domain that the parser takes; from the same page."""
TYPES = frozenset(
    ("FLOAT", "FLOAT16", "BFLOAT16", "INT4", "INT8", "INT32", "INT64", "UINT8", "BOOL")
)
"""Types of tensors that it takes; DOUBLE would be cut down to FLOAT, which parity would not see."""
DEFAULT = frozenset({"", "ai.onnx"})
PRECISIONS = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16"}


def read_graph(path: Path) -> onnx.ModelProto:
    """The graph, without weights that lie beside it.

    Raises:
        EngineError: the file is no ONNX graph.
    """
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and whatever a disk says
        message = f"{path.name} is no ONNX graph: {error}"
        raise EngineError(message, code="engine_load") from error


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes with those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _nodes(graph.node)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from _nodes(function.node)


def _weights(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers and constants, also those of subgraphs and functions."""
    yield from model.graph.initializer
    for node in _all_nodes(model):
        for graph in _subgraphs(node):
            yield from graph.initializer
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _type_words(model: onnx.ModelProto) -> set[str]:
    """ONNX's names of the types of weights, inputs, outputs and casts."""
    import onnx

    values = (*model.graph.input, *model.graph.output)
    numbers = {tensor.data_type for tensor in _weights(model)}
    numbers |= {value.type.tensor_type.elem_type for value in values}
    numbers |= {
        attribute.i
        for node in _all_nodes(model)
        if node.op_type == "Cast"
        for attribute in node.attribute
        if attribute.name == "to"
    }
    return {onnx.TensorProto.DataType.Name(number) for number in numbers if number}


def graph_types(model: onnx.ModelProto) -> set[str]:
    """Precisions that the graph computes in: of weights and casts, and int8 where it has Q/DQ."""
    quantized = any(node.op_type == "DequantizeLinear" for node in _all_nodes(model))
    found = {PRECISIONS[word] for word in _type_words(model) if word in PRECISIONS}
    return found | ({"int8"} if quantized else set[str]())


def check_types(found: set[str], precision: Precision, where: str) -> None:
    """Refuse a graph or network that is not in the precision that was asked for.

    A strongly typed network computes in its own types; a build would take minutes and silently give
    a plan in another precision. fp32 asks for nothing: the model stays as it is.

    Raises:
        EngineError: with what was found and what was expected.
    """
    if precision == "fp32" or precision in found:
        return
    message = f"{precision} was asked for, {where} has {', '.join(sorted(found)) or 'none of it'}"
    hint = "TensorRT takes its types from the graph: a precision must be converted into it"
    raise EngineError(message, hint=hint, code="network_typing")


def unsupported(model: onnx.ModelProto, major: int) -> tuple[str, ...]:
    """Op types, tensor types and the opset that the parser of that major version does not take.

    Nodes that call functions of the graph are judged by the functions' bodies. Plug-ins that
    TensorRT ships end in ``_TRT``, or begin with ``TRT_`` from 11 on.
    """
    known = OPERATORS.get(major, OPERATORS[NEWEST])
    functions = {(function.domain, function.name) for function in model.functions}
    found = {
        _shown(node)
        for node in _all_nodes(model)
        if (node.domain, node.op_type) not in functions and not _known(node, known)
    }
    opset = next((item.version for item in model.opset_import if item.domain in DEFAULT), 0)
    if opset not in OPSETS:
        found.add(f"opset {opset} (it takes {OPSETS.start} to {OPSETS.stop - 1})")
    found |= {f"tensor({word.lower()})" for word in _type_words(model) - TYPES}
    return tuple(sorted(found | _asymmetric(model)))


def _known(node: onnx.NodeProto, known: frozenset[str]) -> bool:
    plugin = node.op_type.endswith("_TRT") or node.op_type.startswith("TRT_")
    return plugin or (node.domain in DEFAULT and node.op_type in known)


def _shown(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in DEFAULT else f"{node.domain}.{node.op_type}"


def _asymmetric(model: onnx.ModelProto) -> set[str]:
    """Quantisation around another value than 0, which TensorRT does not take."""
    from onnx import numpy_helper

    zeros = {
        node.input[2]: node.op_type
        for node in _all_nodes(model)
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(node.input) > 2  # noqa: PLR2004 - the third input
    }
    return {
        f"{zeros[tensor.name]} with a zero point other than 0"
        for tensor in _weights(model)
        if tensor.name in zeros and numpy_helper.to_array(tensor).any()
    }
