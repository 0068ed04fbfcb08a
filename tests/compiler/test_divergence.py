"""Where the graph first leaves the model, told from values alone."""

from __future__ import annotations

import numpy as np

from compiler.compare import Tolerance
from compiler.divergence import first_step
from compiler.traces import Step, Value
from runtime.tensors import Array

TOLERANCE = Tolerance(1e-3, 1e-3)


def _array(number: float) -> Array:
    return np.full((2, 3), number, np.float32)


def _step(name: str, takes: float, gives: float) -> Step:
    return Step(name, (_array(takes),), _array(gives))


def _values(*numbers: tuple[str, str, float]) -> list[Value]:
    """Values as (name, source, content); without a source, an input."""
    return [
        Value(name, _array(content), f"node {name}" if source else "", (source,) if source else ())
        for name, source, content in numbers
    ]


def test_a_graph_that_agrees_has_no_first_divergence() -> None:
    steps = [_step("a", 0, 1), _step("b", 1, 2)]
    values = _values(("x", "", 0), ("p", "x", 1), ("q", "p", 2))
    assert first_step(steps, values, TOLERANCE) == ""


def test_the_first_step_with_right_inputs_and_a_wrong_output_is_named_with_its_node() -> None:
    steps = [_step("a", 0, 1), _step("b", 1, 2), _step("c", 2, 3)]
    values = _values(("x", "", 0), ("p", "x", 1), ("q", "p", 20), ("r", "q", 30))
    assert first_step(steps, values, TOLERANCE) == "b, node node q"


def test_a_step_fused_into_the_next_is_no_divergence() -> None:
    steps = [_step("conv", 0, 1), _step("norm", 1, 2), _step("head", 2, 3)]
    values = _values(("x", "", 0), ("fused", "x", 2), ("out", "fused", 30))
    assert first_step(steps, values, TOLERANCE) == "head, node node out"


def test_steps_fused_together_that_differ_are_named_by_the_first_of_them() -> None:
    steps = [_step("conv", 0, 1), _step("norm", 1, 2), _step("head", 2, 3)]
    values = _values(("x", "", 0), ("fused", "x", 20), ("out", "fused", 30))
    assert first_step(steps, values, TOLERANCE) == "conv, node node fused"


def test_of_two_branches_the_one_that_differs_is_named_though_the_other_ran_later() -> None:
    steps = [_step("left", 0, 1), _step("right", 0, 2), _step("join", 3, 4)]
    values = _values(("x", "", 0), ("l", "x", 10), ("r", "x", 2), ("sum", "l", 12))
    assert first_step(steps, values, TOLERANCE) == "left, node node l"


def test_a_step_whose_inputs_are_not_in_the_graph_is_not_where_the_two_part() -> None:
    steps = [_step("a", 0, 1), _step("b", 5, 6)]
    values = _values(("x", "", 0), ("p", "x", 1), ("q", "p", 7))
    assert first_step(steps, values, TOLERANCE) == ""


def test_a_model_without_steps_has_nothing_to_name() -> None:
    assert first_step([], _values(("x", "", 0)), TOLERANCE) == ""
