"""PyTorch's devices, and its files.

``torch`` is imported in the functions, never before.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch's functions are typed in part.
from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from runtime.engines._signature import Signature
from specs.base import Plain
from specs.engines import Device, Precision
from specs.errors import EngineError

if TYPE_CHECKING:
    import torch

__all__ = [
    "DTYPES",
    "INSTALL",
    "PROGRAM",
    "SCRIPT",
    "SIGNATURE",
    "Call",
    "TorchSignature",
    "load_program",
    "load_script",
    "machine",
    "place_of",
    "quiet",
    "reason",
    "require_library",
]

PROGRAM = "model.pt2"
"""What ``torch.export.save`` writes."""
SCRIPT = "model.pt"
"""What ``torch.jit.save`` writes."""
SIGNATURE = "deployc.json"
"""The extra file in both that holds the signature."""
DTYPES: dict[Precision, str] = {"fp16": "float16", "bf16": "bfloat16"}
"""Types that a module is converted to."""
INSTALL = "pip install torch"
Call = Callable[..., Any]


class TorchSignature(Signature):
    """The signature of a PyTorch file."""

    kwargs: dict[str, Plain] = Field(default_factory=dict)
    """Constant keyword arguments of a TorchScript model; an ExportedProgram has them in it."""


def require_library() -> None:
    """Refuse where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        message = "the package torch is not installed"
        raise EngineError(message, hint=INSTALL, code="engine_missing")


def reason(error: Exception) -> str:
    """The first line of what torch says, or the last of a scripted model's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]


# --- devices


def place_of(device: Device, index: int = 0) -> str:
    """Torch's name of the device, or ``EngineError`` with the reason why it cannot be had."""
    require_library()
    if device == "cpu":
        return "cpu"
    _require_cuda(index)
    return f"cuda:{index}"


def _require_cuda(index: int) -> None:
    """Refuse with the reason: a build without CUDA, no driver, an old one, or no such GPU."""
    import torch

    if torch.version.cuda is None:
        message = f"this torch {torch.__version__} was built without CUDA"
        hint = "pip uninstall torch, then install torch's CUDA build"
        raise EngineError(message, hint=hint, code="provider_missing")
    try:
        ctypes.CDLL("libcuda.so.1" if os.name != "nt" else "nvcuda.dll")
    except OSError as error:
        message = "torch finds no GPU: libcuda.so.1, NVIDIA's driver, is missing"
        hint = "install NVIDIA's driver, and run `nvidia-smi` to see the GPU"
        raise EngineError(message, hint=hint, code="provider_missing") from error
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        why = str(told[0].message).splitlines()[0] if told else f"{count} GPUs are visible"
        message = f"torch cannot use GPU {index} with CUDA {torch.version.cuda}: {why}"
        hint = "see `nvidia-smi` and CUDA_VISIBLE_DEVICES; an old driver must be updated"
        raise EngineError(message, hint=hint, code="provider_missing")


def machine(place: str) -> dict[str, str]:
    import torch

    name = "cpu" if place == "cpu" else torch.cuda.get_device_name(place)
    threads = str(torch.get_num_threads())
    return {"torch": torch.__version__, "device": name, "threads": threads}


# --- loading


def load_program(file: Path, place: str) -> tuple[torch.export.ExportedProgram, TorchSignature]:
    """What ``torch.export.save`` wrote, on a device."""
    import torch
    from torch.export.passes import move_to_device_pass

    _require_zip(file)
    extra: dict[str, Any] = {SIGNATURE: ""}
    try:
        with _tensors_alone(), quiet():
            program = torch.export.load(file, extra_files=extra)
            if place != "cpu":
                program = move_to_device_pass(program, place)
    except Exception as error:  # torch raises many kinds for a file that is not one
        raise _unreadable(file, reason(error)) from error
    return program, _signature(extra, file)


def load_script(file: Path, place: str) -> tuple[Call, TorchSignature]:
    """What ``torch.jit.save`` wrote, as a call that gives the tensors in order."""
    import torch

    _require_zip(file)
    extra: dict[str, Any] = {SIGNATURE: ""}
    try:
        with quiet():
            scripted = torch.jit.load(str(file), map_location=place, _extra_files=extra)
    except Exception as error:
        raise _unreadable(file, reason(error)) from error
    signature = _signature(extra, file)
    return _flattened(cast("Call", scripted), signature), signature


def _flattened(scripted: Call, signature: TorchSignature) -> Call:
    """The scripted model, with inputs cast to its precision and outputs to the spec's dtypes."""
    import torch
    from torch.utils import _pytree as pytree

    name = DTYPES.get(signature.precision)
    inner = getattr(torch, name) if name else None
    given = [getattr(torch, tensor.dtype) for tensor in signature.outputs.values()]

    def call(*inputs: torch.Tensor) -> list[torch.Tensor]:
        ready = [x.to(inner) if inner and x.is_floating_point() else x for x in inputs]
        leaves = pytree.tree_leaves(scripted(*ready, **signature.kwargs))
        found = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if inner is None:
            return found
        pairs = zip(found, given, strict=True)
        return [x.to(dtype) if x.is_floating_point() else x for x, dtype in pairs]

    return call


def _require_zip(file: Path) -> None:
    """Say plainly that a file is no archive; torch speaks of formats that it tried."""
    if not zipfile.is_zipfile(file):
        raise _unreadable(file, "it is no archive" if file.is_file() else "there is no such file")


def _signature(extra: dict[str, Any], file: Path) -> TorchSignature:
    text = extra[SIGNATURE]
    return TorchSignature.read(text.decode() if isinstance(text, bytes) else text, file.name)


def _unreadable(file: Path, why: str) -> EngineError:
    message = f"PyTorch cannot load {file.name}: {why}"
    return EngineError(message, hint="build it with the torch of this machine", code="engine_load")


@contextlib.contextmanager
def _tensors_alone() -> Generator[None, None, None]:
    """Hold ``torch.load`` to tensors: ``torch.export.load`` would unpickle anything else, too."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    others = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", name)
    before = {key: os.environ.pop(key, None) for key in others}
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        os.environ.update({key: value for key, value in before.items() if value is not None})


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep torch's chatter off the terminal: what fails is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
