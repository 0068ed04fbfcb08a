"""The base of every engine, on the side that builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from specs.schema import Spec, Target

__all__ = ["Built", "EngineBuilder"]


@dataclass(frozen=True)
class Built:
    """What a builder left.

    Args:
        file: the file that the engine loads, in the builder's folder; "" where it loads the
            portable graph itself.
    """

    file: str = ""


class EngineBuilder(ABC):
    """Builds one engine's file from the portable graph: a module of ``compiler.engines``.

    The module of the same file name in ``runtime.engines`` declares the words and runs it.
    """

    name: ClassVar[str]
    """The engine's name in a spec."""

    @classmethod
    @abstractmethod
    def fingerprint(cls, target: Target) -> dict[str, str]:
        """What the file depends on besides graph and target: versions, GPU, driver."""

    @classmethod
    @abstractmethod
    def build(cls, graph: Path, folder: Path, target: Target, spec: Spec) -> Built:
        """Write the engine's file for ``graph`` into ``folder``.

        Raises:
            EngineError: it cannot be built here; names what is missing and the line to install it.
        """
