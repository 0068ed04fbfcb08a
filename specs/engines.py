"""What the language knows of an engine; its options are declared where it runs."""

from __future__ import annotations

from functools import cache
from typing import ClassVar, Literal

from specs.base import Frozen
from specs.plugins import members, packages

__all__ = [
    "AUTO",
    "Device",
    "EngineLanguage",
    "EngineOptions",
    "Precision",
    "engine_languages",
]

AUTO = "auto"
"""In place of an engine or a precision: the build tries all that are possible and measures."""

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class EngineOptions(Frozen):
    """Base of an engine's ``Options``."""

    def without_effect(self, device: Device) -> list[str]:
        """Names of the options that are set and do nothing on that device."""
        return []


class EngineLanguage:
    """The words of one engine in a spec. ``runtime.engines`` holds a subclass per engine."""

    name: ClassVar[str]
    devices: ClassVar[tuple[Device, ...]]
    """The first one is what a target without ``device`` gets."""
    precisions: ClassVar[tuple[Precision, ...]]
    """On any of its devices; ``precisions_on`` tells of one."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that bring its library, of which one must be installed."""
    install: ClassVar[str] = ""
    """The line that installs them."""
    Options: ClassVar[type[EngineOptions]] = EngineOptions
    """The model of the target's ``options``."""

    @classmethod
    def precisions_on(cls, device: Device) -> tuple[Precision, ...]:
        """The precisions that it has kernels for on that device."""
        return cls.precisions


@cache
def engine_languages() -> dict[str, type[EngineLanguage]]:
    """Every engine of this installation by name, found in the packages of ``deployc.engines``."""
    return {
        engine.name: engine
        for package in packages("deployc.engines")
        for engine in members(package, EngineLanguage)
    }
