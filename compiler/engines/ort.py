"""ONNX Runtime: loads the portable graph itself, so that there is no file to build."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from compiler.cache import versions
from compiler.engines._base import Built, EngineBuilder
from runtime.engines import get_engine
from specs.schema import Spec, Target

__all__ = ["OrtBuilder"]


class OrtBuilder(EngineBuilder):
    """Proves that ONNX Runtime takes the graph with the provider that was asked for."""

    name: ClassVar[str] = "onnxruntime"

    @classmethod
    def fingerprint(cls, target: Target) -> dict[str, str]:
        """ONNX Runtime's version, of whichever of its packages is installed."""
        return versions("onnxruntime", "onnxruntime-gpu")

    @classmethod
    def build(cls, graph: Path, folder: Path, target: Target, spec: Spec) -> Built:
        """Open a session once: a provider that does not load fails the build here."""
        get_engine(cls.name).open(graph, target.device, target.options).close()
        return Built()
