"""How far outputs lie apart: tolerance, infinities, shapes."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.compare import Gap, Tolerance, worst_gap
from runtime.tensors import Tensors
from specs.precision import TolerancePair

TOLERANCE = Tolerance(1e-3, 1e-2)
NAN, INF = math.nan, math.inf


def _gap(found: object, reference: object, tolerance: Tolerance = TOLERANCE) -> Gap:
    left, right = np.asarray(found), np.asarray(reference)
    return worst_gap({"y": left}, {"y": right}, tolerance)


def test_the_worst_place_is_told_with_its_index_and_both_values() -> None:
    gap = _gap([[1.0, 2.0], [3.0, 4.5]], [[1.0, 2.0], [3.1, 4.0]])
    assert (gap.output, gap.index, gap.found, gap.reference) == ("y", (1, 1), 4.5, 4.0)
    assert gap.max_abs == 0.5
    assert str(gap) == "output 'y' at [1, 1]: 4.5, the reference has 4"


def test_the_excess_is_the_difference_over_atol_and_rtol_together() -> None:
    assert _gap([10.05], [10.0]).excess == pytest.approx(0.05 / (0.001 + 0.1))


def test_the_worst_output_is_the_one_most_beyond_tolerance_not_the_largest_difference() -> None:
    found = {"small": np.array([0.1]), "large": np.array([1000.5])}
    reference = {"small": np.array([0.0]), "large": np.array([1000.0])}
    gap = worst_gap(found, reference, TOLERANCE)
    assert (gap.output, gap.max_abs) == ("small", 0.5)


@pytest.mark.parametrize(("found", "reference"), [(NAN, NAN), (INF, INF), (-INF, -INF)])
def test_equal_infinities_and_two_nans_agree(found: float, reference: float) -> None:
    assert _gap([found, 1.0], [reference, 1.0]).excess == 0


@pytest.mark.parametrize(
    ("found", "reference"),
    [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, INF), (-INF, INF), (NAN, INF)],
)
def test_a_nan_or_an_infinity_against_anything_else_is_beyond_any_tolerance(
    found: float, reference: float
) -> None:
    gap = _gap([found], [reference], Tolerance(1e9, 1e9))
    assert (gap.excess, gap.max_abs) == (INF, INF)


def test_another_shape_or_dtype_is_beyond_any_tolerance_and_told() -> None:
    gap = _gap(np.zeros((2, 3)), np.zeros((2, 1)))
    assert str(gap) == "output 'y' has shape [2, 3] float64, the reference has [2, 1] float64"
    assert gap.excess == INF
    assert _gap(np.zeros(2, np.float32), np.zeros(2, np.float64)).excess == INF


def test_no_tolerance_at_all_asks_for_equality_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _gap([1.0], [1.0], Tolerance(0, 0)).excess == 0
        assert _gap([1e30], [0.0], Tolerance(0, 0)).excess > 1


def test_whole_numbers_and_booleans_are_compared_as_numbers() -> None:
    assert _gap([3], [4]).excess > 1
    assert _gap([True], [False]).excess > 1


def test_empty_outputs_agree() -> None:
    assert _gap(np.zeros((0, 3)), np.zeros((0, 3))).excess == 0


@given(st.floats(width=32), st.floats(width=32))
def test_excess_is_at_most_1_exactly_where_numpy_finds_the_two_close(
    found: float, reference: float
) -> None:
    close = bool(np.isclose(found, reference, rtol=1e-2, atol=1e-3, equal_nan=True))
    assert (_gap([found], [reference]).excess <= 1) == close


def test_in_a_lower_precision_the_absolute_part_is_in_units_of_the_references_rms() -> None:
    pair = TolerancePair(atol=0.1, rtol=0.0)
    reference = {"y": np.array([0.0, 20.0, -20.0, 20.0], np.float32)}
    found: Tensors = {"y": reference["y"] + np.float32(1.0)}
    narrow = worst_gap(found, reference, Tolerance.of(pair, "bf16"))
    assert narrow.excess == pytest.approx(1.0 / (0.1 * np.sqrt(300)))
    assert worst_gap(found, reference, Tolerance.of(pair, "fp32")).excess == pytest.approx(10)


def test_the_rms_never_tightens_a_tolerance_and_leaves_infinities_out() -> None:
    pair = TolerancePair(atol=0.1, rtol=0.0)
    small = {"y": np.array([1e-3, np.inf], np.float32)}
    found: Tensors = {"y": np.array([0.05, np.inf], np.float32)}
    assert worst_gap(found, small, Tolerance.of(pair, "fp16")).excess == pytest.approx(0.49)


def test_without_a_tolerance_only_what_is_no_number_is_beyond_it() -> None:
    reference = {"y": np.array([1.0], np.float32)}
    measured = Tolerance.of(None, "int8")
    assert worst_gap({"y": np.array([9.0], np.float32)}, reference, measured).excess == 0
    assert worst_gap({"y": np.array([np.nan], np.float32)}, reference, measured).excess > 1
