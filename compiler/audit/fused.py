"""Placement of a graph that has the steps of processing around the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compiler.audit._placement import find_placement
from compiler.engines import BuildTarget
from runtime.engines import Layer
from specs.audit import Audit
from specs.schema import Spec

__all__ = ["with_placement"]


def with_placement(
    found: Audit, target: BuildTarget, layers: Sequence[Layer], graph: Path, spec: Spec
) -> Audit:
    """The audit of the model alone, with the placement of the whole fused graph.

    The share of the computation in the target's precision stays the model's: the steps compute in
    float32 on purpose.
    """
    placement, not_run = find_placement(target, layers, graph, spec)
    reasons = dict.fromkeys((*found.not_run, *not_run))
    return found.model_copy(update={"placement": placement, "not_run": tuple(reasons)})
