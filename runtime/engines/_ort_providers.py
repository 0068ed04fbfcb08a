"""Whether ONNX Runtime's execution providers can be had here, and what lies under them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
from pathlib import Path

from runtime.engines._ort_options import OrtOptions
from specs.engines import Device
from specs.errors import EngineError

__all__ = [
    "CPU",
    "CUDA",
    "TENSORRT",
    "driver_version",
    "gpu_name",
    "providers_for",
    "require",
    "tensorrt_version",
]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

LIBRARIES = {
    CUDA: "libonnxruntime_providers_cuda.so",
    TENSORRT: "libonnxruntime_providers_tensorrt.so",
}
CUDNN = "libcudnn.so.9"
"""What the CUDA provider of ONNX Runtime 1.31 looks for when a node first needs it."""
DRIVER = "libcuda.so.1"
TENSORRT_LIBRARY = "libnvinfer.so.10"
"""What ONNX Runtime 1.31's TensorRT provider links."""
NAME_BYTES = 256


def providers_for(device: Device, options: OrtOptions) -> tuple[str, ...]:
    """The providers of a session, the preferred one first."""
    if device == "cpu":
        return (CPU,)
    wanted = (CUDA,) if options.tensorrt is None else (TENSORRT, CUDA)
    return (*wanted, CPU) if options.allow_cpu_nodes else wanted


def _require_library() -> None:
    """Refuse where ONNX Runtime itself is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        message = "the package onnxruntime is not installed"
        hint = "pip install onnxruntime-gpu, or onnxruntime where there is no wheel of it"
        raise EngineError(message, hint=hint, code="engine_missing")


def require(device: Device, options: OrtOptions) -> None:
    """Refuse where a provider cannot load; ONNX Runtime would run on the CPU instead.

    Raises:
        EngineError: names the library that is missing, and the line that installs it.
    """
    _require_library()
    if device == "cpu":
        return
    wanted = [provider for provider in providers_for(device, options) if provider != CPU]
    _require_compiled_in(wanted)
    _preload()
    if CUDA in wanted and options.cuda.enable_cudnn is not False:
        # The provider opens cuDNN when the first node needs it, so loading tells nothing of it.
        _load(CUDNN, CUDA)
    for provider in reversed(wanted):
        _load(str(_folder() / LIBRARIES[provider]), provider)


def _require_compiled_in(wanted: list[str]) -> None:
    import onnxruntime as ort

    for provider in wanted:
        if provider not in ort.get_available_providers():
            message = f"this onnxruntime {ort.__version__} has no {provider}"
            hint = "pip uninstall onnxruntime && pip install onnxruntime-gpu (never both at once)"
            raise EngineError(message, hint=hint, code="provider_missing")


def _preload() -> None:
    """Load CUDA and cuDNN from their packages, which no linker path names."""
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and stdout is for results
        ort.preload_dlls(directory="")


def _folder() -> Path:
    import onnxruntime as ort

    return Path(ort.__file__).parent / "capi"


def _load(library: str, provider: str) -> None:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        missing = str(error).split(":", maxsplit=1)[0]
        message = f"{provider} does not load: {missing} is missing"
        raise EngineError(message, hint=_hint(missing), code="provider_missing") from error


def _hint(missing: str) -> str:
    if missing.startswith("libcuda.so"):
        return "install NVIDIA's driver, and run `nvidia-smi` to see the GPU"
    if missing.startswith("libnv"):
        return "pip install 'tensorrt-cu13>=10,<11': this onnxruntime-gpu takes TensorRT 10"
    return "pip install 'onnxruntime-gpu[cuda,cudnn]' for CUDA 13 and cuDNN 9"


def gpu_name(device_id: int) -> str:
    """The GPU's name as the driver tells it, ``NVIDIA A10G``; "" where there is none."""
    try:
        driver = ctypes.CDLL(DRIVER)
        handle, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
        steps = (
            lambda: driver.cuInit(0),
            lambda: driver.cuDeviceGet(ctypes.byref(handle), device_id),
            lambda: driver.cuDeviceGetName(name, NAME_BYTES, handle),
        )
        failed = any(step() for step in steps)
    except (OSError, AttributeError):
        return ""
    return "" if failed else name.value.decode(errors="replace")


def driver_version() -> str:
    """The CUDA version that the driver brings, ``13000`` for 13.0; "" where there is none."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL(DRIVER).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return ""
    return "" if failed else str(version.value)


def tensorrt_version() -> str:
    """TensorRT's version, ``101600`` for 10.16; "" where its library does not load."""
    try:
        return str(ctypes.CDLL(TENSORRT_LIBRARY).getInferLibVersion())
    except (OSError, AttributeError):
        return ""
