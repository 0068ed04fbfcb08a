"""Drift of the portable graph against the model itself, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compiler.audit.drift import PLAIN, Probe, Rule, excess_of, layer_drift, worst_of
from compiler.divergence import first_missing, fused
from compiler.sources import Model
from compiler.sources.onnx import OnnxModel
from compiler.traces import Step, Value, graph_values, model_steps
from runtime.compare import Tolerance
from specs.audit import Drift, LayerDrift
from specs.precision import TolerancePair
from specs.schema import Spec

__all__ = ["model_drift", "nearest"]


def model_drift(
    model: Model, graph: Path, spec: Spec, probe: Probe, tolerance: TolerancePair
) -> Drift:
    """Look for what every step of the model gives among the graph's tensors.

    Steps and tensors are matched by their content, since an exporter keeps no names: of the tensors
    of one shape, the nearest stands for the step. A step that was fused into a later one which is
    there is not compared.

    Args:
        model: the reference.
        graph: the portable graph.
        spec: the spec that both were made from.
        probe: the batch to run.
        tolerance: what a layer may differ by.

    Raises:
        EngineError: the graph cannot be run node by node on the CPU.
    """
    rule = Rule(tolerance)
    steps = model_steps(model, spec, probe.inputs)
    values = graph_values(graph, probe.inputs)
    rows = [nearest(step, values, rule) for step in steps]
    present = [not row.beyond for row in rows]
    merged = fused(steps, present)
    first = first_missing(steps, values, present, Tolerance(tolerance.atol, tolerance.rtol))
    layers = [row for row, hidden in zip(rows, merged, strict=True) if not hidden or not row.beyond]
    return Drift(
        reference="ONNX's evaluator" if isinstance(model, OnnxModel) else "PyTorch",
        graph=graph.name,
        case=probe.case,
        how=PLAIN,
        rule=str(rule),
        layers=tuple(layers),
        not_compared=len(rows) - len(layers),
        first=None if first is None else rows[first].name,
        worst=worst_of(layers),
    )


def nearest(step: Step, values: Sequence[Value], rule: Rule) -> LayerDrift:
    """The step against the tensor that is nearest to it; against none where none has its shape."""
    best = LayerDrift(name=step.name, node="", dtype="", max_abs=None, relative=None, excess=None)
    for value in values:
        if not value.node or value.array.shape != step.output.shape:
            continue
        row = layer_drift(step.name, value.node, value.array, step.output, rule)
        if excess_of(row) < excess_of(best):
            best = row
        if not best.beyond:
            break
    return best
