"""An engine that sleeps a GPU's time: ONNX Runtime computes the answer, and every batch lasts L(b).

L(b) = ``base_ms`` + ``item_ms`` * b, by default 4 ms + 0.25 ms per item as in ``bench/batching``:
a batch costs little more than an item, which is what batching is for and what a CPU does not have.
The answers are the graph's own, so that the build proves parity and a client can check each.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from runtime.engines import Engine, EngineSession, get_engine
from runtime.tensors import Tensors, rows
from specs.engines import Device, EngineOptions, Precision

__all__ = ["SleepingEngine", "SleepingOptions"]


class SleepingOptions(EngineOptions):
    """Time of a batch, in milliseconds."""

    base_ms: float = Field(4.0, ge=0)
    item_ms: float = Field(0.25, ge=0)


class SleepingSession(EngineSession):
    """A session of ONNX Runtime whose every run lasts as long as the options say."""

    def __init__(self, inner: EngineSession, options: SleepingOptions) -> None:
        self._inner = inner
        self._options = options

    def run(self, inputs: Tensors) -> Tensors:
        end = time.perf_counter() + self._seconds(rows(inputs))
        outputs = self._inner.run(inputs)
        time.sleep(max(0.0, end - time.perf_counter()))
        return outputs

    def details(self) -> dict[str, str]:
        return {**self._inner.details(), "sleeps": f"{self._options}"}

    def close(self) -> None:
        self._inner.close()

    def _seconds(self, size: int) -> float:
        return (self._options.base_ms + self._options.item_ms * size) / 1000


class SleepingEngine(Engine):
    """Takes as long as a GPU, and computes what ONNX Runtime computes."""

    name: ClassVar[str] = "sleeping"
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    Options: ClassVar[type[EngineOptions]] = SleepingOptions

    @classmethod
    def open(
        cls,
        file: Path,
        device: Device,
        options: dict[str, Any],
        sizes: Mapping[str, int] | None = None,
    ) -> EngineSession:
        inner = get_engine("onnxruntime").open(file, device, {}, sizes)
        return SleepingSession(inner, SleepingOptions(**options))
