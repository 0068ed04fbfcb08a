"""The base of every engine, on the side that runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.tensors import Array, Tensors
from specs.engines import Device, EngineLanguage
from specs.errors import EngineError

__all__ = ["Engine", "EngineSession", "Layer"]


@dataclass(frozen=True)
class Layer:
    """One step of what an engine made of the graph, as the engine itself tells it.

    Args:
        name: the node's or layer's name.
        op: its kind, ``Conv``.
        device: where it runs.
        place: the engine's own word for it, ``CUDAExecutionProvider``.
        precision: type that it computes in; "" where the engine does not tell.
        cost: multiply-accumulates at batch 1, 0 where it has none or they are not known.
    """

    name: str
    op: str
    device: Device
    place: str = ""
    precision: str = ""
    cost: float = 0.0


class EngineSession(ABC):
    """A loaded variant. Used by one thread at a time."""

    @abstractmethod
    def run(self, inputs: Tensors) -> Tensors:
        """The graph's outputs for one batch.

        Args:
            inputs: arrays by input name, with the batch dimension, of the graph's dtypes.

        Raises:
            EngineError: the engine refused the batch or failed.
        """

    def host_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Memory for inputs, to be used again and again: pinned where a GPU reads it.

        It lives as long as the array or a view of it, and no longer than the session where it is
        pinned.

        Args:
            shape: with the batch dimension.
            dtype: numpy's name.
        """
        return np.empty(shape, dtype)

    def beside(self, threads: int) -> EngineSession | None:
        """A second session of the same file that computes on so many threads.

        Its ``run`` may be called from several threads at once: batches then run side by side, and
        none waits for a thread that other work holds up. None where the engine has no such, or its
        threads were set by hand.

        Raises:
            EngineError: it cannot be loaded a second time.
        """
        return None

    def details(self) -> dict[str, str]:
        """What the engine says of itself: version, providers."""
        return {}

    def close(self) -> None:  # noqa: B027 - most engines free memory with the object
        """Give memory back; the session is not used afterwards."""


class Engine(EngineLanguage, ABC):
    """One engine: a subclass in a module of ``runtime.engines``.

    Its builder is the module of the same file name in ``compiler.engines``. The library that it
    wraps is imported in its methods, not before.
    """

    @classmethod
    @abstractmethod
    def open(
        cls,
        file: Path,
        device: Device,
        options: dict[str, Any],
        sizes: Mapping[str, int] | None = None,
    ) -> EngineSession:
        """Load a variant's file onto a device.

        Args:
            file: what the builder wrote.
            device: where to run; any other place is an error, never a fallback.
            options: the target's options, as ``Options`` declares them.
            sizes: dynamic axes to hold at one size, which engines make use of; the session takes
                no other size. None and {} hold none.

        Raises:
            EngineError: the engine or device cannot be had here; names what is missing.
        """

    @classmethod
    def probe(cls, device: Device) -> dict[str, str]:
        """Open the smallest real session on ``device``, run it, and tell versions.

        Raises:
            EngineError: it cannot be had here; the hint is the line that installs what is missing.
        """
        message = f"{cls.name} has no probe"
        raise EngineError(message, hint="write Engine.probe", code="probe_missing")

    @classmethod
    def layers(cls, file: Path, device: Device, options: dict[str, Any]) -> tuple[Layer, ...]:
        """What the engine made of the graph, opened anew to find out; () where it cannot tell.

        Raises:
            EngineError: as ``open``.
        """
        return ()
