"""Bounds on a share and on a quantile: they hold as often as they say."""

from __future__ import annotations

import math
from random import Random

import pytest

from serve.bounds import lower, quantile_upper, upper


def test_without_outcomes_nothing_is_known() -> None:
    assert (lower(0, 0, 5.0), upper(0, 0, 5.0)) == (0.0, 1.0)
    assert quantile_upper([], 0.5, 5.0) == math.inf


@pytest.mark.parametrize("count", [1, 20, 500])
def test_of_none_and_of_all_the_bound_is_the_exact_one(count: int) -> None:
    nats = 4.0
    exact = 1 - math.exp(-nats / count)
    assert upper(0, count, nats) == pytest.approx(exact, abs=1e-9)
    assert lower(count, count, nats) == pytest.approx(1 - exact, abs=1e-9)


def test_the_bounds_enclose_what_was_found_and_close_in_with_more_outcomes() -> None:
    few, many = (upper(n // 10, n, 3.0) - lower(n // 10, n, 3.0) for n in (50, 5000))
    assert lower(5, 50, 3.0) < 0.1 < upper(5, 50, 3.0)
    assert many < few / 5


@pytest.mark.parametrize(("share", "count"), [(0.01, 20), (0.01, 200), (0.1, 100), (0.5, 40)])
def test_a_bound_is_wrong_no_more_often_than_it_says(share: float, count: int) -> None:
    choice, nats, rounds = Random(1), 3.0, 1500  # noqa: S311
    wrong = [0, 0]
    for _ in range(rounds):
        hits = sum(choice.random() < share for _ in range(count))
        wrong[0] += lower(hits, count, nats) > share
        wrong[1] += upper(hits, count, nats) < share
    assert max(wrong) / rounds <= math.exp(-nats) + 3 * math.sqrt(math.exp(-nats) / rounds)


def test_the_quantile_s_bound_is_a_value_and_above_the_quantile() -> None:
    choice, nats, below = Random(2), 3.0, 0  # noqa: S311
    for _ in range(500):
        values = sorted(choice.random() for _ in range(200))
        bound = quantile_upper(values, 0.9, nats)
        assert bound in values
        below += bound < 0.9
    assert below / 500 <= math.exp(-nats)


def test_the_quantile_s_bound_is_the_smallest_place_that_is_high_enough() -> None:
    values = [float(n) for n in range(300)]
    place = int(quantile_upper(values, 0.9, 4.0))
    assert upper(299 - place, 300, 4.0) <= 0.1 + 1e-12
    assert upper(300 - place, 300, 4.0) > 0.1


def test_too_few_values_have_no_bound() -> None:
    assert quantile_upper([1.0] * 20, 0.9, 5.0) == math.inf
    assert quantile_upper([1.0] * 20, 0.5, 5.0) == 1.0
