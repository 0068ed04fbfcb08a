"""The base of every engine, on the side that runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from runtime.tensors import Tensors
from specs.engines import Device, EngineLanguage

__all__ = ["Engine", "EngineSession"]


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

    def details(self) -> dict[str, str]:
        """What the engine says of itself: version, providers."""
        return {}

    def close(self) -> None:  # noqa: B027 - most engines free memory with the object
        """Give memory back; the session is not used afterwards."""


class Engine(EngineLanguage, ABC):
    """One engine: a subclass in a module of ``runtime.engines``.

    Its builder is the module of the same file name in ``compiler.engines``. The library that it
    wraps is imported in ``open``, not before.
    """

    @classmethod
    @abstractmethod
    def open(cls, file: Path, device: Device, options: dict[str, Any]) -> EngineSession:
        """Load a variant's file onto a device.

        Args:
            file: what the builder wrote.
            device: where to run; any other place is an error, never a fallback.
            options: the target's options, as ``Options`` declares them.

        Raises:
            EngineError: the engine or device cannot be had here; names what is missing.
        """
