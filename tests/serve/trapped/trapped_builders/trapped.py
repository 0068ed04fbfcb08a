"""The builder of the trapped engine: there is nothing to build, it opens the graph itself."""

from __future__ import annotations

from typing import ClassVar

from compiler.cache import versions
from compiler.engines import BuildTarget, Built, EngineBuilder, Job

__all__ = ["TrappedBuilder"]


class TrappedBuilder(EngineBuilder):
    """Leaves the graph as it is."""

    name: ClassVar[str] = "trapped"

    @classmethod
    def fingerprint(cls, target: BuildTarget) -> dict[str, str]:
        return versions("onnxruntime", "onnxruntime-gpu")

    @classmethod
    def build(cls, job: Job) -> Built:
        return Built()
