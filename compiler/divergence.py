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

from compiler.compare import Tolerance, worst_gap
from compiler.sources import Model
from compiler.traces import Step, Value, graph_values, model_steps
from runtime.tensors import Array, Tensors
from specs.schema import Spec

__all__ = ["first_divergence", "first_missing", "first_step", "fused"]


def first_divergence(model: Model, graph: Path, spec: Spec, inputs: Tensors) -> str:
    """``layer1.0.conv1 (Conv2d), node node_conv2d_3 (Conv)``, or "" where it cannot be found."""
    tolerance = Tolerance(spec.verify.atol, spec.verify.rtol)
    try:
        steps = model_steps(model, spec, inputs)
        return first_step(steps, graph_values(graph, inputs), tolerance)
    except Exception:  # noqa: BLE001 - told beside a failure, which nothing here may hide
        return ""


def first_step(steps: Sequence[Step], values: Sequence[Value], tolerance: Tolerance) -> str:
    """The first step whose output no value is, and the node that should have given it.

    Args:
        steps: what the model did, in its order.
        values: the graph's inputs and its nodes' outputs, in their order.
        tolerance: what may differ.
    """
    present = [bool(_equal(step.output, values, tolerance)) for step in steps]
    number = first_missing(steps, values, present, tolerance)
    if number is None:
        return ""
    found = {n for array in steps[number].inputs for n in _equal(array, values, tolerance)}
    node = _node(steps, values, found, tolerance)
    return f"{steps[number].name}, node {node}" if node else steps[number].name


def first_missing(
    steps: Sequence[Step],
    values: Sequence[Value],
    present: Sequence[bool],
    tolerance: Tolerance,
) -> int | None:
    """Number of the first step that is not in the graph though all that it takes is.

    Args:
        steps: what the model did, in its order.
        values: the graph's inputs and its nodes' outputs, in their order.
        present: for each step whether a value is its output.
        tolerance: what may differ.
    """
    merged = fused(steps, present)
    for number, step in enumerate(steps):
        if present[number] or merged[number]:
            continue
        if all(_equal(array, values, tolerance) for array in step.inputs):
            return number
    return None


def fused(steps: Sequence[Step], present: Sequence[bool]) -> list[bool]:
    """Whether a later step takes a step's output and is in the graph, or fused in its turn."""
    merged = [False] * len(steps)
    for number in reversed(range(len(steps))):
        merged[number] = any(
            present[later] or merged[later]
            for later in range(number + 1, len(steps))
            if any(_same(array, steps[number].output) for array in steps[later].inputs)
        )
    return merged


def _node(
    steps: Sequence[Step], values: Sequence[Value], sources: set[str], tolerance: Tolerance
) -> str:
    """The first node that takes one of ``sources`` and gives what no step of the model gave."""
    taking = (value for value in values if sources & set(value.sources))
    return next((value.node for value in taking if not _is_step(value, steps, tolerance)), "")


def _is_step(value: Value, steps: Sequence[Step], tolerance: Tolerance) -> bool:
    return any(_equal(step.output, [value], tolerance) for step in steps)


def _equal(array: Array, values: Sequence[Value], tolerance: Tolerance) -> list[str]:
    """Names of the values that are ``array``, within tolerance."""
    return [
        value.name
        for value in values
        if value.array.shape == array.shape
        and value.array.dtype.kind == array.dtype.kind
        and worst_gap({"": value.array.astype(array.dtype)}, {"": array}, tolerance).excess <= 1
    ]


def _same(left: Array, right: Array) -> bool:
    return left.shape == right.shape and bool((left == right).all())
