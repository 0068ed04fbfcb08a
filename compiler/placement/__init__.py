"""Where processing runs: the gate that holds its executions together, and the fused graph."""

from __future__ import annotations

__all__: list[str] = []
