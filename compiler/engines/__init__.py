"""Engines on the side that builds: one module each, found by its place in this package."""

from __future__ import annotations

import compiler.engines as _package
from compiler.engines._base import BuildTarget, Built, EngineBuilder, Job
from specs.errors import EngineError
from specs.plugins import members

__all__ = ["BuildTarget", "Built", "EngineBuilder", "Job", "get_builder"]


def get_builder(name: str) -> type[EngineBuilder]:
    """The builder of that engine, or ``EngineError``."""
    builders = {builder.name: builder for builder in members(_package, EngineBuilder)}
    if name not in builders:
        message = f"no module of compiler.engines builds '{name}'"
        raise EngineError(message, hint="CONTRIBUTING.md: two files per engine")
    return builders[name]
