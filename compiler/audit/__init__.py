"""Truth audits: where, in which type and how exactly a variant computes, against what was asked.

``audit`` finds out, ``check`` refuses. What cannot be found out is listed in ``Audit.not_run`` and
never counts as passed. onnx is imported by those who look into a graph alone: a build whose stages
are all cached only checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compiler.audit._check import check
from compiler.engines import BuildTarget
from runtime.engines import Layer
from runtime.golden import read_golden
from specs.audit import Audit
from specs.errors import EngineError
from specs.precision import TolerancePair
from specs.schema import Spec

__all__ = ["audit", "check", "with_drift"]


def audit(
    target: BuildTarget,
    layers: Sequence[Layer],
    graph: Path,
    spec: Spec,
    kept: Sequence[str] = (),
) -> Audit:
    """What a variant really is; refuses nothing.

    Args:
        target: what was asked.
        layers: what ``EngineBuilder.layers`` tells of the built file; () where it cannot.
        graph: the ONNX graph that the engine took, in the target's precision.
        spec: for the bounds in ``verify`` and the sizes of the dynamic axes.
        kept: nodes that the conversion left in fp32.
    """
    from compiler.audit._placement import find_placement
    from compiler.audit._precision import find_precision

    placement, unplaced = find_placement(target, layers, graph, spec)
    precision, untyped = find_precision(target, layers, graph, spec, kept)
    return Audit(
        variant=target.name,
        placement=placement,
        precision=precision,
        not_run=(*unplaced, *untyped),
    )


def with_drift(
    found: Audit, graph: Path, reference: Path, golden: Path, tolerance: TolerancePair | None
) -> Audit:
    """The audit with the drift of a converted graph, or with the reason why it was not measured.

    Args:
        found: what ``audit`` gave.
        graph: the ONNX graph that the engine took.
        reference: the portable fp32 graph.
        golden: the folder of golden tensors, of which the smallest batch of the first case is run.
        tolerance: what the variant's parity is held to.
    """
    from compiler.audit.drift import Rule, graph_drift, probe_of

    probe = probe_of(next(read_golden(golden)))
    shown = f"variants/{found.variant}/{graph.name}"
    try:
        drift = graph_drift(graph, reference, probe, Rule(tolerance), shown)
    except EngineError as error:
        reason = f"drift by layer: {error.message}"
        return found.model_copy(update={"not_run": (*found.not_run, reason)})
    return found.model_copy(update={"drift": drift})
