"""PyTorch: runs the model itself, eager or compiled, as the reference of the other engines.

``torch`` is imported when a session is opened, never before.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch's functions are typed in part.
from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field

from runtime.engines._base import Engine, EngineSession, Layer
from runtime.engines._pytorch import (
    INSTALL,
    Call,
    load_program,
    load_script,
    machine,
    place_of,
    quiet,
    reason,
)
from runtime.engines._signature import Signature
from runtime.tensors import Array, Tensors
from specs.axes import AxisRange
from specs.engines import Device, EngineOptions, Precision
from specs.errors import EngineError
from specs.schema import TensorSpec

if TYPE_CHECKING:
    import torch

__all__ = ["TorchEngine", "TorchOptions"]

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


class TorchOptions(EngineOptions):
    """How PyTorch runs the model."""

    mode: Literal["eager", "compile"] = "eager"
    """``eager`` runs operator by operator; ``compile`` lets Inductor compile the whole graph, which
    needs a C++ compiler on the CPU and takes its time whenever the model is loaded."""
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    """The ``mode`` of ``torch.compile``; ``reduce-overhead`` uses CUDA graphs."""
    threads: int = Field(default=0, ge=0)
    """Threads within an operator, of the whole process: PyTorch has one pool for all models. 0
    leaves it as it is, one per core."""
    tf32: bool = False
    """cuda: let fp32 convolutions and products be computed in TF32 (10 bits of mantissa), for the
    whole process."""
    device_id: int = Field(default=0, ge=0)
    """Which GPU, of those that are visible."""


class TorchSession(EngineSession):
    """A loaded model."""

    def __init__(self, call: Call, signature: Signature, place: str, mode: str) -> None:
        self._call: Call | None = call
        self._signature = signature
        self._place = place
        self._mode = mode

    def run(self, inputs: Tensors) -> Tensors:
        """One batch through the model; see the base."""
        import torch

        if self._call is None:
            raise EngineError("the session is closed", hint="load it again", code="engine_closed")
        self._signature.check(inputs)
        try:
            with torch.inference_mode():
                tensors = [_tensor(inputs[name], self._place) for name in self._signature.inputs]
                found = [tensor.cpu().numpy() for tensor in self._call(*tensors)]
        except Exception as error:  # the model may raise anything, and torch does
            raise EngineError(f"PyTorch: {reason(error)}", code="engine_run") from error
        return dict(zip(self._signature.outputs, found, strict=True))

    def host_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Pinned where a GPU reads it; see the base."""
        if self._place == "cpu":
            return super().host_array(shape, dtype)
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True).numpy()

    def details(self) -> dict[str, str]:
        """PyTorch's version, the mode, the device, and threads."""
        return {**machine(self._place), "mode": self._mode}

    def close(self) -> None:
        """Drop the model and give the GPU's memory back; a second time does nothing."""
        if self._call is not None and self._place != "cpu":
            import torch

            self._call = None
            torch.cuda.empty_cache()
        self._call = None


class TorchEngine(Engine):
    """PyTorch."""

    name: ClassVar[str] = "torch"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    install: ClassVar[str] = INSTALL
    Options: ClassVar[type[EngineOptions]] = TorchOptions

    @classmethod
    def open(
        cls,
        file: Path,
        device: Device,
        options: dict[str, Any],
        sizes: Mapping[str, int] | None = None,
    ) -> EngineSession:
        """Load ``model.pt2`` or ``model.pt`` onto a device, and compile it where it is asked.

        What is trusted: the graph of either file runs as it stands, so an artifact's hashes are
        checked before it comes here. Pickled Python objects in a ``.pt2`` are refused.
        """
        settings = TorchOptions.model_validate(options)
        place = _prepare(device, settings)
        if file.suffix == ".pt":
            _refuse_compile(settings)
            call, signature = load_script(file, place)
        else:
            program, signature = load_program(file, place)
            call = cast("Call", program.module())
        held = signature.hold(sizes)
        if settings.mode == "compile":
            call = _compiled(call, settings, held, place)
        return TorchSession(call, held, place, settings.mode)

    @classmethod
    def probe(cls, device: Device) -> dict[str, str]:
        """Export ``x + x``, run it on the device, and tell whether ``torch.compile`` could."""
        place = _prepare(device, TorchOptions())
        import torch

        class Twice(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
                return (x + x,)

        try:
            program = torch.export.export(Twice(), (torch.zeros(2, 2, device=place),))
        except Exception as error:  # torch raises dozens of kinds
            raise EngineError(f"PyTorch: {reason(error)}", code="probe_wrong") from error
        session = TorchSession(cast("Call", program.module()), _TINY, place, "eager")
        x = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)
        if not np.array_equal(session.run({"x": x})["y"], x + x):
            raise EngineError(f"x + x of {x.tolist()} went wrong", code="probe_wrong")
        return {**session.details(), "compile": _why_not_compile(place) or "available"}

    @classmethod
    def layers(cls, file: Path, device: Device, options: dict[str, Any]) -> tuple[Layer, ...]:
        """The operators of an ExportedProgram as they ran at every axis's smallest size.

        Types and devices are those of the tensors that came out. Inductor fuses these operators;
        what it makes of them it does not tell. TorchScript tells nothing.
        """
        settings = TorchOptions.model_validate(options)
        place = _prepare(device, settings)
        if file.suffix == ".pt":
            return ()
        program, signature = load_program(file, place)
        smallest = {name: axis.min for name, axis in signature.axes.items()}
        inputs = _zeros(signature.hold(smallest), smallest, place)
        word = "eager" if settings.mode == "eager" else "inductor"
        try:
            return tuple(_ran(program, inputs, word))
        except Exception as error:  # as in run
            raise EngineError(f"PyTorch: {reason(error)}", code="engine_run") from error


_TINY = Signature(
    inputs={"x": TensorSpec(shape=(2, 2))},
    outputs={"y": TensorSpec(shape=(2, 2))},
    axes={},
    precision="fp32",
)


def _prepare(device: Device, options: TorchOptions) -> str:
    """Torch's name of the device, after the settings of the whole process."""
    place = place_of(device, options.device_id)
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    if place != "cpu":
        # cuDNN's default is TF32, which would be less than the fp32 that was asked for.
        word = "tf32" if options.tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = word
        convolutions: Any = torch.backends.cudnn  # its attributes are made at run time
        convolutions.conv.fp32_precision = word
    return place


def _refuse_compile(options: TorchOptions) -> None:
    if options.mode == "compile":
        message = "torch.compile does not take TorchScript"
        hint = "set options: {mode: eager}, or take a source of Python code"
        raise EngineError(message, hint=hint, code="option_compile")


def _tensor(array: Array, place: str) -> torch.Tensor:
    """A copy, since the model may write into its inputs."""
    import torch

    return torch.tensor(np.ascontiguousarray(array), device=place)


def _zeros(signature: Signature, sizes: Mapping[str, int], place: str) -> list[torch.Tensor]:
    """Inputs of zeros, with axes at ``sizes``."""
    import torch

    def shape(tensor: TensorSpec) -> list[int]:
        return [sizes[dim] if isinstance(dim, str) else dim for dim in tensor.shape]

    return [
        torch.zeros(shape(tensor), dtype=getattr(torch, tensor.dtype), device=place)
        for tensor in signature.inputs.values()
    ]


def _compiled(call: Call, options: TorchOptions, signature: Signature, place: str) -> Call:
    """The model through ``torch.compile``, compiled here and now for the sizes that may come.

    ``fullgraph``: a part that cannot be compiled is an error, not a fall back to eager.
    """
    import torch

    why = _why_not_compile(place)
    if why:
        hint = "install a C++ compiler (apt-get install g++), or set options: {mode: eager}"
        hint = hint if place == "cpu" else "pip install triton, or set options: {mode: eager}"
        raise EngineError(f"torch.compile cannot run: {why}", hint=hint, code="compiler_missing")
    mode = None if options.compile_mode == "default" else options.compile_mode
    compiled = torch.compile(call, fullgraph=True, mode=mode)
    try:
        with torch.inference_mode(), quiet():
            for sizes in _warm_sizes(signature):
                compiled(*_marked(_zeros(signature, sizes, place), signature))
    except Exception as error:  # torch raises dozens of kinds
        message = f"torch.compile fails: {reason(error)}"
        hint = "set options: {mode: eager}"
        raise EngineError(message, hint=hint, code="engine_load") from error
    return compiled


def _warm_sizes(signature: Signature) -> Iterator[dict[str, int]]:
    """Sizes to compile at: torch makes code of its own for an axis of size 1."""

    def general(axis: AxisRange) -> int:
        return min(max(axis.opt, 2), axis.max)

    yield {name: general(axis) for name, axis in signature.axes.items()}
    first = next(iter(signature.inputs.values())).shape[0]
    for name in signature.free:
        if name == first and signature.axes[name].min == 1:
            yield {key: general(a) if key != name else 1 for key, a in signature.axes.items()}


def _marked(tensors: list[torch.Tensor], signature: Signature) -> list[torch.Tensor]:
    """Tensors whose free axes torch is told to leave open, so that it compiles once for all."""
    from torch import _dynamo as dynamo

    for tensor, given in zip(tensors, signature.inputs.values(), strict=True):
        for axis, dim in enumerate(given.shape):
            if dim in signature.free and tensor.shape[axis] > 1:
                dynamo.mark_dynamic(tensor, axis)
    return tensors


def _why_not_compile(place: str) -> str:
    """What ``torch.compile`` lacks here; "" where nothing."""
    if place != "cpu":
        found = importlib.util.find_spec("triton") is not None
        return "" if found else "the package triton is not installed"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # noqa: BLE001 - its own kinds, private to torch
        return f"no C++ compiler: {reason(error)}"
    return ""


def _ran(
    program: torch.export.ExportedProgram, inputs: list[torch.Tensor], word: str
) -> Iterator[Layer]:
    """Every operator of the program, as it ran."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    found: list[Layer] = []

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:  # noqa: ANN401 - whatever the node gives
            with FlopCounterMode(display=False) as counter:
                value = super().run_node(n)
            tensors = _outputs(value)
            if n.op == "call_function" and tensors:
                precision = str(tensors[0].dtype).removeprefix("torch.")
                found.append(
                    Layer(
                        name=n.name,
                        op=str(n.target),
                        device="cpu" if tensors[0].device.type == "cpu" else "cuda",
                        place=word,
                        precision=PRECISIONS.get(precision, precision),
                        cost=counter.get_total_flops() / 2,  # a multiply and an add
                    )
                )
            return value

    with torch.no_grad():
        Recorder(program.module()).run(*inputs)
    yield from found


def _outputs(value: object) -> list[torch.Tensor]:
    import torch

    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in cast("list[object]", values) if isinstance(item, torch.Tensor)]
