"""Model sources of the language: one module each, found by its place in this package."""

from __future__ import annotations

import specs.sources as _package
from specs.plugins import members
from specs.sources._base import Exporter, Source

__all__ = ["SOURCES", "Exporter", "Source"]

SOURCES: tuple[type[Source], ...] = tuple(members(_package, Source))
"""Every model source, by module name."""
