"""TensorRT itself: imported, its errors translated, plans loaded, optimisation profiles set."""
# pyright: reportMissingModuleSource=false
# TensorRT is not installed where this is developed; typings/tensorrt has the part that is used.

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.engines._cuda import Cuda, Memory
from runtime.engines._trt_plan import PlanHeader, Ranges, Shape
from specs.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt
    from typing_extensions import Buffer

__all__ = ["INSTALL", "Loaded", "add_profile", "load", "make_allocator", "make_log", "require"]
__all__ += ["said", "strongly_typed", "translated", "type_of"]

INSTALL = "pip install tensorrt-cu13"


def require() -> None:
    """Import TensorRT, or its bindings under that name.

    Raises:
        EngineError: the package, or a library that it needs, is not there; names which.
    """
    names = [name for name in ("tensorrt", "tensorrt_bindings") if _there(name)]
    if not names:
        hint = f"{INSTALL} (tensorrt-cu12 for a driver older than 580)"
        message = "the package tensorrt, which brings libnvinfer.so, is not installed"
        raise EngineError(message, hint=hint, code="engine_missing")
    try:
        sys.modules.setdefault("tensorrt", importlib.import_module(names[0]))
    except Exception as error:  # a loader's ImportError, or whatever the package's start raises
        library = re.search(r"lib[\w+-]+\.so[.\d]*", str(error))
        what = f"{library[0]} is missing" if library else str(error)
        message = f"TensorRT's bindings do not load: {what}"
        hint = (
            f"{INSTALL} brings the libraries; where they are, put their folder on LD_LIBRARY_PATH"
        )
        raise EngineError(message, hint=hint, code="provider_missing") from error


def _there(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def make_log() -> tuple[trt.ILogger, list[str]]:
    """A logger for TensorRT, and the list into which it puts errors."""
    import tensorrt as trt

    errors: list[str] = []

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                errors.append(msg)

    return Log(), errors


def make_allocator(memory: Memory) -> tuple[trt.IOutputAllocator, list[Shape]]:
    """Gives memory to an output whose shape depends on the data; the list's last shape counts."""
    import tensorrt as trt

    shapes: list[Shape] = []

    class Allocator(trt.IOutputAllocator):
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(
            self, tensor_name: str, address: int, size: int, alignment: int
        ) -> int:
            try:
                memory.fit(size)
            except EngineError:
                return 0  # TensorRT then fails, and says that it got no memory
            return memory.device

        def reallocate_output_async(
            self, tensor_name: str, address: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, address, size, alignment)

        def notify_shape(self, tensor_name: str, shape: trt.Dims) -> None:
            shapes.append(tuple(shape))

    return Allocator(), shapes


@contextmanager
def translated(errors: list[str], code: str) -> Generator[None, None, None]:
    """What TensorRT's bindings raise becomes an ``EngineError`` with what TensorRT logged."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise EngineError(said(errors) or f"TensorRT: {error}", code=code) from error


def said(errors: list[str]) -> str:
    """TensorRT's first errors, which name the cause; "" where it logged none."""
    return "TensorRT: " + "; ".join(dict.fromkeys(errors[:3])) if errors else ""


def strongly_typed() -> int:
    """The flag of networks whose types are the graph's; its bit is not the same in 10 and 11."""
    import tensorrt as trt

    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def add_profile(builder: trt.Builder, config: trt.IBuilderConfig, ranges: Ranges) -> None:
    """Give the build one optimisation profile."""
    profile = builder.create_optimization_profile()
    for name, (least, best, most) in ranges.items():
        profile.set_shape(name, least, best, most)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT does not take the profile {ranges}", code="engine_profile")


def type_of(engine: trt.ICudaEngine, name: str) -> np.dtype[Any]:
    """NumPy's type of an input or output; refuses what cannot be fed from NumPy."""
    import tensorrt as trt

    word = engine.get_tensor_dtype(name).name
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        message = f"'{name}' is read on the host, as the values of a shape"
        raise EngineError(message, hint="keep sizes out of the inputs", code="engine_type")
    try:
        return np.dtype({"FLOAT": "float32", "HALF": "float16"}.get(word, word.lower()))
    except TypeError as error:
        message = f"'{name}' is {word}, which NumPy does not have"
        hint = "keep the graph's inputs and outputs in float32"
        raise EngineError(message, hint=hint, code="engine_type") from error


@dataclass
class Loaded:
    """A plan on a GPU, with what must live as long."""

    cuda: Cuda
    header: PlanHeader
    version: str
    errors: list[str]
    log: trt.ILogger
    runtime: trt.Runtime
    engine: trt.ICudaEngine


def load(plan: Buffer, header: PlanHeader, cuda: Cuda) -> Loaded:
    """Deserialise a plan that may run here.

    Raises:
        EngineError: TensorRT does not take it; the message is what it logged.
    """
    import tensorrt as trt

    log, errors = make_log()
    with translated(errors, "engine_load"):
        trt.init_libnvinfer_plugins(log, "")
        runtime = trt.Runtime(log)
        # A version-compatible plan holds a runtime, which is code; the artifact's hashes vouch.
        runtime.engine_host_code_allowed = header.version_compatible
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        message = said(errors) or "TensorRT does not take the plan and does not say why"
        raise EngineError(message, hint="build the artifact again here", code="engine_load")
    return Loaded(cuda, header, trt.__version__, errors, log, runtime, engine)
