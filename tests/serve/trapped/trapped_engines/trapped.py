"""An engine that hangs on demand: ONNX Runtime, held up for as long as a file is there.

A session that was opened after the file was made is not held up: what replaces a replica that
hangs does not hang.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from runtime.engines import Engine, EngineSession, get_engine
from runtime.tensors import Tensors
from specs.engines import Device, EngineOptions, Precision

__all__ = ["TrappedEngine", "TrappedOptions"]

LOOK_S = 0.02


class TrappedOptions(EngineOptions):
    """The trap, and what a batch costs."""

    trap: str
    ms: float = 20.0


class TrappedSession(EngineSession):
    """A session of ONNX Runtime whose runs wait until the trap is gone."""

    def __init__(self, inner: EngineSession, options: TrappedOptions) -> None:
        self._inner = inner
        self._options = options
        self._opened = time.time()

    def run(self, inputs: Tensors) -> Tensors:
        time.sleep(self._options.ms / 1000)
        while self._held():
            time.sleep(LOOK_S)
        return self._inner.run(inputs)

    def details(self) -> dict[str, str]:
        return self._inner.details()

    def close(self) -> None:
        self._inner.close()

    def _held(self) -> bool:
        try:
            return Path(self._options.trap).stat().st_mtime > self._opened
        except FileNotFoundError:
            return False


class TrappedEngine(Engine):
    """Computes what ONNX Runtime computes, when it is let."""

    name: ClassVar[str] = "trapped"
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    Options: ClassVar[type[EngineOptions]] = TrappedOptions

    @classmethod
    def open(
        cls,
        file: Path,
        device: Device,
        options: dict[str, Any],
        sizes: Mapping[str, int] | None = None,
    ) -> EngineSession:
        inner = get_engine("onnxruntime").open(file, device, {}, sizes)
        return TrappedSession(inner, TrappedOptions(**options))
