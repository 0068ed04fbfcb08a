"""``<file>.json``: what the builder knew of a file that it wrote for ONNX Runtime."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from pydantic import ValidationError

from specs.axes import AxisRange
from specs.base import Frozen
from specs.engines import Precision
from specs.errors import EngineError
from specs.values import Dim

__all__ = [
    "BuiltFile",
    "TensorrtBuild",
    "cpu_kind",
    "engines_of",
    "profile_of",
    "read_built",
    "refuse_new_engines",
]

KINDS = ("avx", "avx2", "avx512f", "asimd", "asimdhp", "asimddp", "i8mm", "sve")
"""CPU features by which ONNX Runtime's kernels choose a layout: its NCHWc blocks have 8 channels
with AVX, 16 with AVX-512F (onnxruntime/core/mlas/lib/platform.cpp)."""


class TensorrtBuild(Frozen):
    """What TensorRT's engines, which lie beside the file, were built for."""

    gpu: str
    """The GPU's name."""
    precision: Precision
    """Decides TensorRT's precision flags."""
    inputs: dict[str, tuple[Dim, ...]]
    """Shape of every input."""
    axes: dict[str, AxisRange]
    """Range of every dynamic axis: the optimisation profile."""


class BuiltFile(Frozen):
    """The sidecar."""

    onnxruntime: str
    """The version that wrote it."""
    optimized: bool = False
    """Whether the graph was optimised already, so that loading does it no more."""
    cpu: str = ""
    """The kind of CPU whose layout is baked in; "" where any will do."""
    tensorrt: TensorrtBuild | None = None
    """Set where TensorRT's engines lie beside it."""

    def write(self, file: Path) -> None:
        """Lay it beside ``file``."""
        text = self.model_dump_json(indent=1, exclude_defaults=True)
        _beside(file).write_text(text + "\n", "utf-8")


def read_built(file: Path) -> BuiltFile | None:
    """The sidecar of ``file``, held to this machine; None where there is none.

    Raises:
        EngineError: the file was made for another kind of CPU, or the sidecar is none.
    """
    path = _beside(file)
    if not path.exists():
        return None
    try:
        built = BuiltFile.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        message = f"{path.name} does not describe {file.name}"
        raise EngineError(message, hint="build again", code="engine_load") from error
    if built.cpu and built.cpu != cpu_kind():
        message = (
            f"{file.name} was optimised for another kind of CPU: "
            f"found {cpu_kind()}, expected {built.cpu}"
        )
        hint = "build on this kind of CPU, or with optimization: extended, or without offline"
        raise EngineError(message, hint=hint, code="engine_machine")
    return built


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def cpu_kind(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What decides the layout of optimised graphs, ``x86_64 avx avx2 avx512f``.

    Where the system does not tell the CPU's features, its name stands for them.
    """
    try:
        text = cpuinfo.read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    features = set(line[1].split()) if line else set[str]()
    known = [kind for kind in KINDS if kind in features]
    return " ".join([platform.machine(), *(known if line else [platform.processor()])]).strip()


def profile_of(build: TensorrtBuild) -> dict[str, str]:
    """TensorRT's profile, as the provider's options: ``x:1x3x224x224`` for min, opt and max.

    {} where no input has a dynamic axis.
    """

    def shapes(bound: str) -> str:
        def size(dim: Dim) -> int:
            return dim if isinstance(dim, int) else int(getattr(build.axes[dim], bound))

        return ",".join(
            f"{name}:{'x'.join(str(size(dim)) for dim in shape)}"
            for name, shape in build.inputs.items()
        )

    if not any(isinstance(dim, str) for shape in build.inputs.values() for dim in shape):
        return {}
    return {f"trt_profile_{bound}_shapes": shapes(bound) for bound in ("min", "opt", "max")}


def engines_of(file: Path, gpu: str, built: BuiltFile | None) -> set[Path]:
    """TensorRT's engines beside ``file``; none where it was not built for TensorRT.

    Args:
        file: what is loaded.
        gpu: the name of the GPU to load it on.
        built: the file's sidecar.

    Raises:
        EngineError: the engines are for another GPU.
    """
    if built is None or built.tensorrt is None:
        return set()
    if built.tensorrt.gpu != gpu:
        message = f"{file.name}: TensorRT's engines are for {built.tensorrt.gpu}, here is {gpu}"
        raise EngineError(message, hint="build on this GPU", code="engine_machine")
    return set(file.parent.glob("*.engine"))


def refuse_new_engines(file: Path, before: set[Path], built: BuiltFile | None) -> None:
    """Refuse engines that were built while loading: they take minutes, and are not the artifact's.

    ONNX Runtime builds anew without a word where TensorRT, the driver or a profile differ.

    Raises:
        EngineError: there were any; they are removed.
    """
    if built is None or built.tensorrt is None:
        return
    new = sorted(set(file.parent.glob("*.engine")) - before)
    for path in new:
        path.unlink()
        path.with_suffix(".profile").unlink(missing_ok=True)
    if new:
        message = f"{file.name}: TensorRT's engines do not fit here, and were built again"
        hint = "build on this machine, with the versions that serve"
        raise EngineError(message, hint=hint, code="engine_machine")
