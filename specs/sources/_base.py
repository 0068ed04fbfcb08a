"""The base of every model source, as the spec writes it."""

from __future__ import annotations

from typing import ClassVar, Literal

from specs.base import OneKey

__all__ = ["Exporter", "Source"]

Exporter = Literal["dynamo", "torchscript"]


class Source(OneKey):
    """Where the model comes from: a subclass in a module of ``specs.sources``.

    ``compiler/sources`` holds a module of the same file name that loads it.
    """

    weights: ClassVar[Literal["required", "optional", "forbidden"]] = "required"
    """Whether the spec's ``weights`` go with this source."""
    exporters: ClassVar[tuple[Exporter, ...]] = ("dynamo", "torchscript")
    """Which exporters take it; empty where nothing is exported."""

    def files(self) -> tuple[str, ...]:
        """The local files it names, relative to the spec."""
        return ()
