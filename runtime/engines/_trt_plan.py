"""What stands beside a TensorRT plan, where it may run, and what its inspector tells.

Nothing here needs TensorRT or a GPU.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from runtime.engines._base import Layer
from runtime.engines._cuda import Cuda
from runtime.engines._signature import Signature
from specs.base import Frozen
from specs.errors import EngineError

__all__ = ["Compatibility", "Place", "PlanHeader", "Ranges", "Shape", "choose_profile"]
__all__ += ["differences", "header_file", "header_of", "parse_layers", "plan_of", "refuse"]

Shape = tuple[int, ...]
Ranges = dict[str, tuple[Shape, Shape, Shape]]
"""One optimisation profile: smallest, optimal and largest shape by input."""
Compatibility = Literal["none", "same_compute_capability", "ampere_plus"]
"""Which other GPUs a plan is for; the words of TensorRT's ``HardwareCompatibilityLevel``."""


@dataclass(frozen=True)
class Place:
    """A machine, as far as a plan depends on it; "" for what is not known."""

    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    system: str
    machine: str

    @classmethod
    def here(cls, cuda: Cuda | None, tensorrt: str) -> Place:
        """This machine."""
        gpu = (cuda.name, cuda.capability, cuda.driver) if cuda else ("", "", "")
        return cls(tensorrt, *gpu, platform.system(), platform.machine())


class PlanHeader(Frozen):
    """``<plan>.json``: what the plan was built for, and what it takes."""

    format: Literal[1] = 1
    target: str
    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    system: str
    machine: str
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"]
    version_compatible: bool
    signature: Signature
    profiles: tuple[Ranges, ...]


def header_file(plan: Path) -> Path:
    """Where the header of a plan lies."""
    return plan.with_name(f"{plan.name}.json")


def header_of(plan: Path) -> PlanHeader:
    """What stands beside a plan.

    Raises:
        EngineError: there is no such file, or it is none of this version.
    """
    file = header_file(plan)
    try:
        return PlanHeader.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        message = f"{file.name} is no header of a TensorRT plan, so {plan.name} cannot be trusted"
        hint = "build the artifact again: TensorRT runs plans that deployc built, never ONNX files"
        raise EngineError(message, hint=hint, code="plan_header") from error


def plan_of(file: Path) -> bytes:
    """The plan itself; ``EngineError`` where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"{file.name} cannot be read: {error.strerror}"
        raise EngineError(message, code="engine_load") from error


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def differences(header: PlanHeader, here: Place) -> tuple[str, ...]:
    """Why a plan must not run here; () where it may.

    The rules are those of NVIDIA's "Engine Compatibility" (TensorRT 11.1): the operating system is
    always the same; the version is, unless a version-compatible plan meets a newer one; the GPU
    is, unless ``hardware_compatibility`` says how it may differ.
    """
    level, known = header.hardware_compatibility, _version(here.compute_capability)
    same_capability = header.compute_capability == here.compute_capability
    gpu = {
        "none": same_capability and header.gpu == here.gpu,
        "same_compute_capability": same_capability,
        "ampere_plus": known >= (8, 0),
    }[level]
    newer = header.version_compatible and _version(header.tensorrt) <= _version(here.tensorrt)
    found = [
        ("TensorRT", header.tensorrt == here.tensorrt or newer, header.tensorrt, here.tensorrt),
        ("GPU", gpu, _gpu(header), _gpu(here)),
        ("system", _system(header) == _system(here), _system(header), _system(here)),
    ]
    return tuple(f"{what}: built for {a}, found {b}" for what, good, a, b in found if not good)


def _gpu(place: Place | PlanHeader) -> str:
    return f"{place.gpu} (compute capability {place.compute_capability})"


def _system(place: Place | PlanHeader) -> str:
    return f"{place.system} {place.machine}"


def choose_profile(profiles: tuple[Ranges, ...], shapes: Mapping[str, Shape]) -> int | None:
    """The first profile that takes all the shapes; None where none does."""
    for number, ranges in enumerate(profiles):
        if all(
            all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
            for (least, _, most), shape in ((ranges[name], shapes[name]) for name in ranges)
        ):
            return number
    return None


def refuse(header: PlanHeader, here: Place, plan: Path) -> None:
    """Raise where a plan must not run here, with what to run instead."""
    found = differences(header, here)
    if not found:
        return
    inside = plan.parent.parent.name == "variants"
    name = plan.parent.name if inside else header.target
    message = f"{plan.name} is not for this machine: {'; '.join(found)}"
    hint = (
        f"run `deployc build SPEC --target {name}` here; the options version_compatible and "
        "hardware_compatibility make plans that more machines run"
    )
    raise EngineError(message, hint=hint, code="plan_foreign")


# --- the engine inspector

_WORDS = (
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"fp16|half|float16"),
    ("fp8", r"fp8|float8|e4m3"),
    ("fp4", r"fp4|float4|e2m1"),
    ("fp32", r"fp32|float"),
    ("uint8", r"uint8"),
    ("int8", r"int8"),
    ("int4", r"int4"),
    ("int32", r"int32"),
    ("int64", r"int64"),
    ("bool", r"bool"),
)
"""Words of a tensor's type in the order in which they are looked for: some hold others."""


def parse_layers(text: str) -> tuple[Layer, ...]:
    """The layers of an engine, from the inspector's JSON.

    Both layouts are read: TensorRT 10 tells a tensor's type in ``Format/Datatype``, 11 in
    ``DataType`` ("Migrating IEngineInspector Usage from TensorRT 10.x to 11.x"). A layer's name is
    that of the graph's nodes in its ``Metadata``, where it has any. Its precision is the type of
    its first input, which is what it computes in; what it writes may be converted. Of several
    profiles the first is told.

    Raises:
        EngineError: the text is not of that kind.
    """
    try:
        entries: list[str | dict[str, Any]] = json.loads(text)["Layers"]
        return tuple(_layer(entry) for entry in entries if not _OTHERS.search(_name(entry)))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"the engine inspector's answer is not understood: {text[:80]!r}"
        raise EngineError(message, code="engine_layers") from error


_OTHERS = re.compile(r"\[profile [1-9]\d*\]$")


def _name(entry: str | dict[str, Any]) -> str:
    return entry if isinstance(entry, str) else str(entry["Name"])


def _layer(entry: str | dict[str, Any]) -> Layer:
    if isinstance(entry, str):  # a plan of other tools, without ProfilingVerbosity.DETAILED
        return Layer(entry, "", "cuda", "TensorRT")
    nodes = re.findall(r"\[ONNX Layer: ([^\]]*)\]", str(entry.get("Metadata", "")))
    tensors = [*entry.get("Inputs", []), *entry.get("Outputs", [])]
    return Layer(
        name=" + ".join(dict.fromkeys(nodes)) or _name(entry),
        op=str(entry.get("LayerType", "")),
        device="cuda",
        place="TensorRT",
        precision=_precision(tensors[0]) if tensors else "",
    )


def _precision(tensor: dict[str, Any]) -> str:
    told = next((tensor[key] for key in ("DataType", *_OLD) if key in tensor), "")
    found = (word for word, pattern in _WORDS if re.search(pattern, str(told), re.IGNORECASE))
    return next(found, "")


_OLD = ("Format/Datatype", "Format/DataType")
