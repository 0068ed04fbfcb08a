"""What differs between two artifacts, or two specs, and whether that is too much."""

from __future__ import annotations

from compiler.diff.differences import Difference, differences
from compiler.diff.gates import SAME, Gates, broken
from compiler.diff.side import Side, read_side, same_kind

__all__ = [
    "SAME",
    "Difference",
    "Gates",
    "Side",
    "broken",
    "differences",
    "read_side",
    "same_kind",
]
