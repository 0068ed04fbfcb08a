"""OpenVINO: runs its own intermediate representation (IR) on the CPU."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# OpenVINO's own stubs are typed in part.
from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from runtime.engines._base import Engine, EngineSession, Layer
from runtime.engines._probe import TINY_ONNX, answer_tiny
from runtime.engines._signature import Signature
from runtime.tensors import Tensors
from specs.engines import Device, EngineOptions, Precision
from specs.errors import EngineError
from specs.schema import TensorSpec

if TYPE_CHECKING:
    import openvino as ov

__all__ = [
    "SIGNATURE",
    "VinoEngine",
    "VinoOptions",
    "VinoSession",
    "reason",
    "require_library",
    "reshape",
]

SIGNATURE = ["deployc", "signature"]
"""Where the IR's runtime information holds the signature."""
CAPABILITIES: dict[Precision, str] = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8"}
"""What OpenVINO calls a CPU's native types; it computes in fp32 where one is not there."""
PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
NO_STEP = {"Const", "Input", "Output"}
"""Kinds in the graph as it is executed that compute nothing."""
TINY = Signature(
    inputs={"x": TensorSpec(shape=(2, 2))},
    outputs={"y": TensorSpec(shape=(2, 2))},
    axes={},
    precision="fp32",
)


class VinoOptions(EngineOptions):
    """How the IR is compiled when it is loaded."""

    performance_hint: Literal["latency", "throughput"] = "latency"
    """``latency`` gives every thread to one request; ``throughput`` cuts them into streams, which
    pays where several sessions run at once."""
    num_streams: int = Field(default=0, ge=0)
    """Requests that may run side by side; 0 lets ``performance_hint`` say."""
    inference_num_threads: int = Field(default=0, ge=0)
    """Threads in all; 0 lets OpenVINO take one per core."""
    execution_mode: Literal["accuracy", "performance"] = "accuracy"
    """``accuracy`` keeps the types of the graph; ``performance`` lets OpenVINO take lower ones: on
    a CPU with native bf16 it computes an fp32 graph in bf16, which the audit tells."""


class VinoSession(EngineSession):
    """A compiled model with one request, which is used again and again."""

    def __init__(self, compiled: ov.CompiledModel, signature: Signature) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._request: ov.InferRequest | None = compiled.create_infer_request()
        self._signature = signature

    def run(self, inputs: Tensors) -> Tensors:
        """One batch through the request; see the base."""
        if self._request is None:
            raise _closed()
        # OpenVINO would cast dtypes, and keep an input left out from the run before.
        self._signature.check(inputs)
        _check_integers(inputs)
        try:
            # Inputs are read in place; outputs are copied: the next run overwrites the request's.
            found = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO: {reason(error)}", code="engine_run") from error
        return {name: found[name] for name in self._signature.outputs}

    def details(self) -> dict[str, str]:
        """OpenVINO's version, the processor, what the hints came to, and the shapes taken."""
        if self._compiled is None:
            raise _closed()
        told = {
            "streams": "NUM_STREAMS",
            "threads": "INFERENCE_NUM_THREADS",
            "performance_hint": "PERFORMANCE_HINT",
            "execution_mode": "EXECUTION_MODE_HINT",
        }
        found = {name: _plain(self._compiled.get_property(key)) for name, key in told.items()}
        ports = {port.get_any_name(): port.get_partial_shape() for port in self._compiled.inputs}
        shapes = ", ".join(f"{name} {shape}" for name, shape in sorted(ports.items()))
        return {**_machine(), **found, "inputs": shapes}

    def close(self) -> None:
        """Drop the model, which frees its memory; a second time does nothing."""
        self._request = None
        self._compiled = None


class VinoEngine(Engine):
    """OpenVINO."""

    name: ClassVar[str] = "openvino"
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    packages: ClassVar[tuple[str, ...]] = ("openvino",)
    install: ClassVar[str] = "pip install openvino"
    Options: ClassVar[type[EngineOptions]] = VinoOptions

    @classmethod
    def open(
        cls,
        file: Path,
        device: Device,
        options: dict[str, Any],
        sizes: Mapping[str, int] | None = None,
    ) -> EngineSession:
        """Compile an IR; a precision that this CPU has no native type for is refused."""
        _require(device)
        model, signature = _read(file)
        held = signature.hold(sizes)
        _require_type(held.precision)
        if sizes:
            reshape(model, held)
        return VinoSession(_compile(model, VinoOptions.model_validate(options), file.name), held)

    @classmethod
    def probe(cls, device: Device) -> dict[str, str]:
        """Compile ``x + x``, run it, and tell version, processor and its native types."""
        import openvino as ov

        _require(device)
        try:
            model = ov.Core().read_model(TINY_ONNX)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO: {reason(error)}", code="engine_load") from error
        session = VinoSession(_compile(model, VinoOptions(), "the probe"), TINY)
        answer_tiny(session)
        return {**_machine(), "types": ", ".join(sorted(_types()))}

    @classmethod
    def layers(cls, file: Path, device: Device, options: dict[str, Any]) -> tuple[Layer, ...]:
        """The graph as it is executed, with the type that each step runs in.

        Costs are those at every axis's smallest size; a fused step has those of all its nodes.
        """
        _require(device)
        model, signature = _read(file)
        _require_type(signature.precision)
        compiled = _compile(model, VinoOptions.model_validate(options), file.name)
        reshape(model, signature.hold({name: a.min for name, a in signature.axes.items()}))
        costs = {op.get_friendly_name(): _macs(op) for op in model.get_ordered_ops()}
        return tuple(_layers(compiled.get_runtime_model(), costs))


def require_library() -> None:
    """Refuse where OpenVINO is not installed."""
    if importlib.util.find_spec("openvino") is None:
        message = "the package openvino is not installed"
        raise EngineError(message, hint=VinoEngine.install, code="engine_missing")


def _require(device: Device) -> None:
    require_library()
    if device not in VinoEngine.devices:
        message = f"openvino runs on {', '.join(VinoEngine.devices)}, not on {device}"
        raise EngineError(message, hint="set device: cpu", code="device_unknown")


def _require_type(precision: Precision) -> None:
    """Refuse a type that this CPU has not; OpenVINO would compute in fp32 without a word."""
    capability = CAPABILITIES.get(precision)
    types = _types()
    if capability and capability not in types:
        message = f"this CPU has no native {precision}, OpenVINO would compute in fp32; it has "
        hint = "set precision: fp32, int8 or auto"
        raise EngineError(message + ", ".join(sorted(types)), hint=hint, code="precision_missing")


def _types() -> list[str]:
    import openvino as ov

    return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _machine() -> dict[str, str]:
    import openvino as ov

    name = str(ov.Core().get_property("CPU", "FULL_DEVICE_NAME"))
    return {"openvino": ov.__version__.split("-", maxsplit=1)[0], "cpu": name}


def _closed() -> EngineError:
    return EngineError("the session is closed", hint="load it again", code="engine_closed")


def _plain(value: object) -> str:
    """``PerformanceMode.LATENCY`` as ``latency``, numbers as they are."""
    return str(value).rsplit(".", maxsplit=1)[-1].lower()


def _check_integers(inputs: Tensors) -> None:
    """Refuse what OpenVINO would cut off: on the CPU it computes int64 in int32."""
    bounds = np.iinfo(np.int32)
    for name, array in inputs.items():
        if array.dtype != np.int64 or not array.size:
            continue
        numbers = array.astype(np.int64, copy=False)
        if numbers.min() < bounds.min or numbers.max() > bounds.max:
            message = f"input '{name}' has numbers beyond int32, in which OpenVINO computes int64"
            hint = "keep them smaller, or take the engine onnxruntime"
            raise EngineError(message, hint=hint, code="engine_run")


def reason(error: Exception) -> str:
    """What OpenVINO says, without the places in its own sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = ("Exception from ", "Check '", "FrontEnd API failed", "Summary:")
    return next((line for line in lines if not line.startswith(places)), lines[-1] if lines else "")


def _read(file: Path) -> tuple[ov.Model, Signature]:
    """An IR and the signature in it."""
    import openvino as ov

    try:
        with file.open("rb") as stream:
            # OpenVINO tries a file of another kind with every reader it has, which print.
            if not stream.read(5).startswith(b"<?xml"):
                raise _no_ir(file, "it is no XML")
        model = ov.Core().read_model(file)
    except (OSError, RuntimeError) as error:
        raise _no_ir(file, reason(error)) from error
    if not model.has_rt_info(SIGNATURE):
        raise _no_ir(file, "it does not say what its inputs and outputs are")
    return model, Signature.read(str(model.get_rt_info(SIGNATURE).value), file.name)


def _no_ir(file: Path, why: str) -> EngineError:
    message = f"OpenVINO cannot load {file.name}: {why}"
    return EngineError(message, hint="build it again", code="engine_load")


def reshape(model: ov.Model, signature: Signature) -> None:
    """Give every input of the model the dims of the signature, with the range of each axis.

    Raises:
        EngineError: the model cannot take such shapes.
    """
    import openvino as ov

    def dims(tensor: TensorSpec) -> list[ov.Dimension]:
        ranges = (signature.range_of(dim) for dim in tensor.shape)
        return [ov.Dimension(axis.min, axis.max) for axis in ranges]

    try:
        model.reshape({name: ov.PartialShape(dims(t)) for name, t in signature.inputs.items()})
    except RuntimeError as error:
        message = f"OpenVINO cannot take the shapes of the inputs: {reason(error)}"
        raise EngineError(
            message, hint="see inputs and dynamic_axes", code="engine_load"
        ) from error


def _compile(model: ov.Model, options: VinoOptions, file: str) -> ov.CompiledModel:
    import openvino as ov

    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": options.performance_hint.upper(),
        "EXECUTION_MODE_HINT": options.execution_mode.upper(),
    }
    if options.num_streams:
        settings["NUM_STREAMS"] = options.num_streams
    if options.inference_num_threads:
        settings["INFERENCE_NUM_THREADS"] = options.inference_num_threads
    try:
        return ov.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        message = f"OpenVINO cannot compile {file}: {reason(error)}"
        raise EngineError(message, code="engine_load") from error


def _layers(executed: ov.Model, costs: Mapping[str, float]) -> Iterator[Layer]:
    for step in executed.get_ordered_ops():
        facts = {key: str(value.value) for key, value in step.get_rt_info().items()}
        if facts["layerType"] in NO_STEP:
            continue
        yield Layer(
            name=step.get_friendly_name(),
            op=facts["layerType"],
            device="cpu",
            place="CPU",
            precision=PRECISIONS.get(facts["runtimePrecision"], facts["runtimePrecision"]),
            cost=sum(costs.get(name, 0.0) for name in facts["originalLayersNames"].split(",")),
        )


def _macs(op: ov.Node) -> float:
    """Multiply-accumulates of a node of a model with fixed shapes; 0 where it has none."""
    kind = op.get_type_name()
    count = {**_SLIDING, "MatMul": _matmul}.get(kind, _recurrent if kind in _RECURRENT else None)
    ports = [*op.inputs(), *op.outputs()]
    if count is None or any(port.get_partial_shape().is_dynamic for port in ports):
        return 0.0
    return count(op)


def _matmul(op: ov.Node) -> float:
    first = list(op.input(0).get_shape())
    transposed = bool(op.get_attributes().get("transpose_a")) and len(first) > 1
    return float(math.prod(op.output(0).get_shape()) * first[-2 if transposed else -1])


def _convolution(op: ov.Node, skip: int) -> float:
    """Every element of the output takes one filter: weights are [out, in, ...]."""
    return float(
        math.prod(op.output(0).get_shape()) * math.prod(list(op.input(1).get_shape())[skip:])
    )


def _transposed(op: ov.Node, skip: int) -> float:
    """Every element of the input is spread over one filter: weights are [in, out, ...]."""
    return float(
        math.prod(op.input(0).get_shape()) * math.prod(list(op.input(1).get_shape())[skip:])
    )


def _recurrent(op: ov.Node) -> float:
    """Every item and time step takes both weights; the input is [batch, time, features]."""
    shapes = [list(port.get_shape()) for port in op.inputs()]
    weights = [shape for shape in shapes if len(shape) == 3]  # noqa: PLR2004
    return float(math.prod(shapes[0][:2]) * sum(math.prod(shape) for shape in weights[-2:]))


_RECURRENT = {"LSTMSequence", "GRUSequence", "RNNSequence"}
_SLIDING: dict[str, Callable[[ov.Node], float]] = {
    "Convolution": partial(_convolution, skip=1),
    "GroupConvolution": partial(_convolution, skip=2),  # weights have the group first
    "ConvolutionBackpropData": partial(_transposed, skip=1),
    "GroupConvolutionBackpropData": partial(_transposed, skip=2),
}
