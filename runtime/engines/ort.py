"""ONNX Runtime: runs an ONNX graph on the CPU, or on a GPU with CUDA or TensorRT."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from runtime.engines._base import Engine, EngineSession, Layer
from runtime.engines._cuda import pinned
from runtime.engines._ort_binding import Binder
from runtime.engines._ort_built import engines_of, read_built, refuse_new_engines
from runtime.engines._ort_options import CudaOptions, OrtOptions, TensorrtOptions
from runtime.engines._ort_providers import CPU, gpu_name, require
from runtime.engines._ort_session import (
    Opening,
    assigned_nodes,
    open_session,
    read_options,
    told,
)
from runtime.engines._probe import TINY_ONNX, answer_tiny
from runtime.tensors import Array, Tensors
from specs.engines import Device, EngineOptions, Precision
from specs.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime as ort

AFFINITIES = "session.intra_op_thread_affinities"
REPEATED_BYTES = 512 * 1024 * 1024
"""Largest file, with its weights, that is loaded a second time."""

__all__ = ["CudaOptions", "OrtEngine", "OrtOptions", "TensorrtOptions"]


class OrtSession(EngineSession):
    """A loaded ``InferenceSession``.

    With CUDA graphs it should be called from one thread all its life: ONNX Runtime records the
    graphs anew for each thread.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        gpu: str = "",
        binder: Binder | None = None,
        device_id: int = 0,
        opening: Opening | None = None,
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._opening = opening
        self._gpu = gpu
        self._device_id = device_id
        self._binder = binder
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Tensors) -> Tensors:
        """One batch through the session; see the base."""
        session = self._loaded()
        try:
            arrays = (
                self._binder.run(inputs) if self._binder else session.run(self._outputs, inputs)
            )
        except EngineError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(f"ONNX Runtime: {told(error)}", code="engine_run") from error
        return dict(zip(self._outputs, arrays, strict=True))

    def host_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Pinned where a GPU reads it; see the base."""
        if not self._gpu:
            return super().host_array(shape, dtype)
        return pinned(self._device_id, shape, np.dtype(dtype))

    def beside(self, threads: int) -> EngineSession | None:
        """On the CPU, where no option says how threads are used; see the base.

        The weights are in memory a second time, so that large models have none.
        """
        opening = self._opening
        if opening is None or opening.device != "cpu" or not _may_repeat(opening):
            return None
        options = opening.options.model_copy(update={"intra_op_threads": threads})
        return OrtSession(open_session(replace(opening, options=options)))

    def details(self) -> dict[str, str]:
        """ONNX Runtime's version, the providers in use, and the GPU."""
        found = {**_version(), "providers": ", ".join(self._loaded().get_providers())}
        return {**found, "gpu": self._gpu} if self._gpu else found

    def close(self) -> None:
        """Drop the session, which frees its memory; a second time does nothing."""
        if self._binder is not None:
            self._binder.clear()
        self._session = self._binder = None

    def _loaded(self) -> ort.InferenceSession:
        if self._session is None:
            raise EngineError("the session is closed", hint="load it again", code="engine_closed")
        return self._session


class OrtEngine(Engine):
    """ONNX Runtime."""

    name: ClassVar[str] = "onnxruntime"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime-gpu", "onnxruntime")
    install: ClassVar[str] = "pip install onnxruntime-gpu"
    Options: ClassVar[type[EngineOptions]] = OrtOptions

    @classmethod
    def precisions_on(cls, device: Device) -> tuple[Precision, ...]:
        """All but bf16 on the CPU, where ONNX Runtime has no convolution of it."""
        return tuple(each for each in cls.precisions if (device, each) != ("cpu", "bf16"))

    @classmethod
    def open(
        cls,
        file: Path,
        device: Device,
        options: dict[str, Any],
        sizes: Mapping[str, int] | None = None,
    ) -> EngineSession:
        """Load an ONNX file with exactly the provider of ``device``.

        A file that was optimised when it was built is not optimised again; see ``OrtOptions``.
        """
        read = read_options(options, device)
        require(device, read)  # before the GPU is asked for its name
        built = read_built(file)
        opening = Opening(file, device, read, sizes or {}, built)
        gpu = gpu_name(read.device_id) if device == "cuda" else ""
        before = engines_of(file, gpu, built)
        session = open_session(opening)
        refuse_new_engines(file, before, built)
        return OrtSession(session, gpu, _binder(session, device, read), read.device_id, opening)

    @classmethod
    def probe(cls, device: Device) -> dict[str, str]:
        """Answer the smallest graph on ``device``; tell versions, and whether TensorRT loads."""
        options = OrtOptions()
        opened = open_session(Opening(TINY_ONNX, device, options))
        gpu = gpu_name(options.device_id) if device == "cuda" else ""
        session = OrtSession(opened, gpu, _binder(opened, device, options))
        answer_tiny(session)
        found = session.details()
        session.close()
        return found if device == "cpu" else {**found, "tensorrt provider": _tensorrt_state()}

    @classmethod
    def layers(cls, file: Path, device: Device, options: dict[str, Any]) -> tuple[Layer, ...]:
        """Where ONNX Runtime puts each node, told before it fuses nodes of one provider.

        Nodes that a GPU has no kernel for are among them, placed on the CPU, whatever
        ``allow_cpu_nodes`` says.
        """
        given = {**options, "allow_cpu_nodes": True} if device != "cpu" else options
        read = read_options(given, device)
        session = open_session(Opening(file, device, read, built=read_built(file), record=True))
        return tuple(
            Layer(node.name or node.op_type, node.op_type, _device(provider, device), provider)
            for provider, node in assigned_nodes(session)
        )


def _device(provider: str, device: Device) -> Device:
    return "cpu" if provider == CPU else device


def _may_repeat(opening: Opening) -> bool:
    """Whether threads are ours to choose, and the file with its weights is small enough."""
    options = opening.options
    if options.intra_op_threads or options.parallel or AFFINITIES in options.session_config:
        return False
    if isinstance(opening.graph, bytes):
        return False
    stem = opening.graph.name
    sizes = [each.stat().st_size for each in opening.graph.parent.glob(f"{glob.escape(stem)}*")]
    return sum(sizes) <= REPEATED_BYTES


def _binder(session: ort.InferenceSession, device: Device, options: OrtOptions) -> Binder | None:
    """What keeps a GPU's buffers; on the CPU arrays are used where they lie."""
    if device == "cpu" or not options.io_binding:
        return None
    graphs = options.cuda.enable_cuda_graph
    return Binder(session, device, options.device_id, graphs=graphs, kept=options.kept_shapes)


def _version() -> dict[str, str]:
    import onnxruntime as ort

    return {"onnxruntime": ort.__version__}


def _tensorrt_state() -> str:
    try:
        require("cuda", OrtOptions(tensorrt=TensorrtOptions()))
    except EngineError as error:
        return f"not here: {error.message}"
    return "loads"
