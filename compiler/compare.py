"""How far two sets of outputs lie apart; a serving node compares in the same way."""

from __future__ import annotations

from runtime.compare import Gap, Tolerance, worst_gap

__all__ = ["Gap", "Tolerance", "worst_gap"]
