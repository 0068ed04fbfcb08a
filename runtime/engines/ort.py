"""ONNX Runtime: runs the portable graph on the CPU or on a CUDA device."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from runtime.engines._base import Engine, EngineSession
from runtime.tensors import Tensors
from specs.base import Frozen
from specs.engines import Device, Precision
from specs.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["OrtEngine", "OrtOptions"]

PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
OPTIMIZATION = {"disabled": 0, "basic": 1, "extended": 2, "layout": 3, "all": 99}
"""Values of ONNX Runtime's ``GraphOptimizationLevel``."""


class OrtOptions(Frozen):
    """Session options."""

    optimization: Literal["disabled", "basic", "extended", "layout", "all"] = "all"
    """How far the graph is optimised when it is loaded."""
    intra_op_threads: int = Field(default=0, ge=0)
    """Threads within an operator; 0 lets ONNX Runtime take one per core."""
    inter_op_threads: int = Field(default=0, ge=0)
    """Threads across operators."""
    parallel: bool = False
    """Run independent operators at the same time."""
    device_id: int = Field(default=0, ge=0)
    """Which GPU, of those that are visible."""


class OrtSession(EngineSession):
    """A loaded ``InferenceSession``."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Tensors) -> Tensors:
        """One batch through the session; see the base."""
        session = self._loaded()
        try:
            arrays = session.run(self._outputs, inputs)
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise EngineError(f"ONNX Runtime: {_first_line(error)}", code="engine_run") from error
        return dict(zip(self._outputs, arrays, strict=True))

    def details(self) -> dict[str, str]:
        """ONNX Runtime's version and the providers in use."""
        import onnxruntime as ort

        providers = self._loaded().get_providers()
        return {"onnxruntime": ort.__version__, "providers": ", ".join(providers)}

    def close(self) -> None:
        """Drop the session, which frees its memory; a second time does nothing."""
        self._session = None

    def _loaded(self) -> ort.InferenceSession:
        if self._session is None:
            raise EngineError("the session is closed", hint="load it again", code="engine_closed")
        return self._session


class OrtEngine(Engine):
    """ONNX Runtime."""

    name: ClassVar[str] = "onnxruntime"
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    Options: ClassVar[type[Frozen]] = OrtOptions

    @classmethod
    def open(cls, file: Path, device: Device, options: dict[str, Any]) -> EngineSession:
        """Load an ONNX file with exactly the provider of ``device``."""
        _require_library()
        if device == "cuda":
            _require_cuda()
        session = _open(file, device, OrtOptions.model_validate(options))
        loaded = session.get_providers()
        if PROVIDERS[device] != loaded[0]:
            message = f"{PROVIDERS[device]} was asked for, {', '.join(loaded)} was loaded"
            raise EngineError(message, code="provider_missing")
        return OrtSession(session)


def _require_library() -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        message = "the package onnxruntime is not installed"
        hint = "pip install onnxruntime-gpu, or onnxruntime where there is no wheel of it"
        raise EngineError(message, hint=hint, code="engine_missing")


def _require_cuda() -> None:
    """Refuse where the CUDA provider cannot load; ONNX Runtime would run on the CPU instead."""
    import onnxruntime as ort

    provider = PROVIDERS["cuda"]
    if provider not in ort.get_available_providers():
        message = f"this onnxruntime {ort.__version__} has no {provider}"
        hint = "pip uninstall onnxruntime && pip install onnxruntime-gpu (never both at once)"
        raise EngineError(message, hint=hint, code="provider_missing")
    ort.preload_dlls(directory="")  # CUDA and cuDNN may come as packages that no linker path names
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        missing = str(error).split(":", maxsplit=1)[0]
        message = f"{provider} does not load: {missing} is missing"
        raise EngineError(message, hint=_cuda_hint(missing), code="provider_missing") from error


def _cuda_hint(missing: str) -> str:
    if missing.startswith("libcuda.so"):
        return "install NVIDIA's driver, and run `nvidia-smi` to see the GPU"
    return "pip install 'onnxruntime-gpu[cuda,cudnn]' for CUDA 13 and cuDNN 9"


def _open(file: Path, device: Device, options: OrtOptions) -> ort.InferenceSession:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # failures are raised, and told once
    level = OPTIMIZATION[options.optimization]
    settings.graph_optimization_level = ort.GraphOptimizationLevel(level)
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = options.inter_op_threads
    if options.parallel:
        settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    provider: str | tuple[str, dict[str, str]] = PROVIDERS[device]
    if device != "cpu":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = (PROVIDERS[device], {"device_id": str(options.device_id)})
    try:
        session = ort.InferenceSession(str(file), settings, providers=[provider])
        session.disable_fallback()  # else a failing run builds a CPU session and goes on
    except Exception as error:
        message = f"ONNX Runtime cannot load {file.name} on {device}: {_first_line(error)}"
        raise EngineError(message, code="engine_load") from error
    return session


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
