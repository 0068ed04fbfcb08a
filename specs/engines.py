"""What the language knows of an engine; its options are declared where it runs."""

from __future__ import annotations

from functools import cache
from typing import ClassVar, Literal

from specs.base import Frozen
from specs.plugins import members, packages

__all__ = ["Device", "EngineLanguage", "Precision", "engine_languages"]

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class EngineLanguage:
    """The words of one engine in a spec. ``runtime.engines`` holds a subclass per engine."""

    name: ClassVar[str]
    devices: ClassVar[tuple[Device, ...]]
    precisions: ClassVar[tuple[Precision, ...]]
    Options: ClassVar[type[Frozen]] = Frozen
    """The model of the target's ``options``."""


@cache
def engine_languages() -> dict[str, type[EngineLanguage]]:
    """Every engine of this installation by name, found in the packages of ``deployc.engines``."""
    return {
        engine.name: engine
        for package in packages("deployc.engines")
        for engine in members(package, EngineLanguage)
    }
