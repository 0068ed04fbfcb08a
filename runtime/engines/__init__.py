"""Engines on the side that runs: one module each, found by its place in this package."""

from __future__ import annotations

from runtime.engines._base import Engine, EngineSession, Layer
from specs.engines import engine_languages
from specs.errors import EngineError
from specs.faults import nearest

__all__ = ["Engine", "EngineSession", "Layer", "get_engine"]


def get_engine(name: str) -> type[Engine]:
    """The engine of that name, or ``EngineError``."""
    engines = engine_languages()
    engine = engines.get(name)
    if engine is None or not issubclass(engine, Engine):
        hint = nearest(name, engines)
        raise EngineError(f"there is no engine '{name}' here", hint=hint, code="engine_unknown")
    return engine
