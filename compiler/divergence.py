"""Finds where the built graph first leaves the model: step by step against every node.

The steps of the model (leaf modules, or the nodes of its own graph) are looked for among the
graph's values, by their content: this needs no map from nodes to modules, so it works with either
exporter. The first step whose inputs are in the graph and whose output is not is where the two
part; unless a step that it feeds is in the graph again, for then it was only fused into that one,
as a batch norm is into its convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compiler.cases import batch_of
from compiler.compare import Tolerance, worst_gap
from compiler.golden import Golden
from compiler.sources import Model
from compiler.traces import Step, graph_values, model_steps
from runtime.tensors import Array
from specs.schema import Spec

__all__ = ["first_divergence", "first_step"]

Values = Sequence[tuple[str, Array]]


def first_divergence(model: Model, graph: Path, spec: Spec, golden: Golden) -> str:
    """``layer1.0.conv1 (Conv2d), node node_conv2d_3 (Conv)``, or "" where it cannot be found."""
    inputs = batch_of(golden.case.inputs, golden.case.batches[0], 0)
    tolerance = Tolerance(spec.verify.atol, spec.verify.rtol)
    try:
        steps = model_steps(model, spec, inputs)
        values = graph_values(graph, inputs)
    except Exception:  # noqa: BLE001 - told beside a failure, which nothing here may hide
        return ""
    known = [("", array) for array in inputs.values()]
    return first_step(steps, [*known, *values], tolerance)


def first_step(steps: Sequence[Step], values: Values, tolerance: Tolerance) -> str:
    """The first step whose output no value is, and the value of its shape that is nearest.

    Args:
        steps: what the model did, in its order.
        values: the graph's inputs, under an empty name, and its nodes' outputs.
        tolerance: what may differ.
    """
    present = [_nearest(step.output, values, tolerance)[0] <= 1 for step in steps]
    fused = _fused(steps, present)
    for number, step in enumerate(steps):
        if present[number] or fused[number]:
            continue
        if all(_nearest(array, values, tolerance)[0] <= 1 for array in step.inputs):
            taken = {
                _nearest(other.output, values, tolerance)[1]
                for other, there in zip(steps, present, strict=True)
                if there
            }
            free = [value for value in values if value[0] not in taken]
            node = _nearest(step.output, free, tolerance)[1]
            return f"{step.name}, node {node}" if node else step.name
    return ""


def _fused(steps: Sequence[Step], present: Sequence[bool]) -> list[bool]:
    """Whether a later step takes a step's output and is in the graph, or fused in its turn."""
    fused = [False] * len(steps)
    for number in reversed(range(len(steps))):
        fused[number] = any(
            present[later] or fused[later]
            for later in range(number + 1, len(steps))
            if any(_same(array, steps[number].output) for array in steps[later].inputs)
        )
    return fused


def _same(left: Array, right: Array) -> bool:
    return left.shape == right.shape and bool((left == right).all())


def _nearest(array: Array, values: Values, tolerance: Tolerance) -> tuple[float, str]:
    """How far the nearest value of the same shape lies off, in tolerances, and its name."""
    found = [
        (worst_gap({"": value.astype(array.dtype)}, {"": array}, tolerance).excess, name)
        for name, value in values
        if value.shape == array.shape and value.dtype.kind == array.dtype.kind
    ]
    return min(found, default=(float("inf"), ""))
