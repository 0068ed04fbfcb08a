"""The op library: one module per processing op, found by its place in this package."""

from __future__ import annotations

import specs.ops as _package
from specs.ops._base import GEOMETRY, Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.plugins import members

__all__ = [
    "GEOMETRY",
    "OPS",
    "Emitted",
    "Fused",
    "Graph",
    "Libraries",
    "Op",
    "Stage",
    "Symbols",
]

OPS: tuple[type[Op], ...] = tuple(members(_package, Op))
"""Every op, by module name."""
