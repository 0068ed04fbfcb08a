"""How long to measure, and how sure the result is; on made-up times, never on a clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from compiler.profile.stats import Bounds, Sample, interval, rank, sample, settled, warm_up
from specs.profile import Interval


def clock(times: Iterable[float]) -> Callable[[], float]:
    """A run that takes these times, and the last one for ever after."""
    left = list(times)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def noisy(middle: float, share: float, seed: int = 0) -> Callable[[], float]:
    """Runs around ``middle`` ms, evenly within ``share`` of it."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    return lambda: middle * (1 + share * (2 * rng.random() - 1))


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [(0.5, 1, 1), (0.5, 4, 2), (0.95, 20, 19), (0.99, 100, 99), (0.99, 99, 99), (0.99, 101, 100)],
)
def test_the_rank_is_the_smallest_with_the_share_at_or_below_it(
    share: float, count: int, expected: int
) -> None:
    assert rank(share, count) == expected


def test_a_quantile_is_a_time_that_was_measured() -> None:
    found = Sample((4.0, 1.0, 3.0, 2.0))
    assert (found.quantile(0.5), found.quantile(0.95)) == (2.0, 4.0)


def test_the_interval_of_the_median_has_the_ranks_of_the_binomial_distribution() -> None:
    # n = 100: 50 -+ 1.96 * 5, which is from the 40th to the 61st value.
    found = interval([float(n) for n in range(1, 101)], 0.5)
    assert (found.low, found.high) == (40.0, 61.0)


def test_the_interval_covers_the_true_median_in_about_95_of_100_samples() -> None:
    rng = random.Random(1)  # noqa: S311 - no secret
    covered = 0
    for _ in range(1000):
        found = interval(sorted(rng.expovariate(1.0) for _ in range(40)), 0.5)
        covered += found.low <= 0.6931 <= (found.high or 0.0)
    assert 930 <= covered <= 990


@pytest.mark.parametrize(("count", "bounded"), [(100, False), (500, False), (700, True)])
def test_a_p99_of_few_samples_is_not_bounded_from_above(count: int, bounded: bool) -> None:
    found = interval([float(n) for n in range(count)], 0.99)
    assert (found.high is not None) == bounded


def test_equal_times_are_settled_and_one_time_alone_is_not() -> None:
    assert settled([2.0] * 20)
    assert not settled([2.0])


def test_wide_times_are_not_settled_until_there_are_enough_of_them() -> None:
    run = noisy(10.0, 0.5)
    times = [run() for _ in range(20_000)]
    assert not settled(times[:100])
    assert settled(times)


def test_times_that_drift_are_not_settled_however_many_they_are() -> None:
    first, second = [1.0] * 5_000, ([1.0] * 2 + [1.2] * 3) * 1_000
    assert interval(sorted(first + second), 0.5) == Interval(low=1.0, high=1.0)
    assert not settled(first + second)
    assert settled([time for pair in zip(first, second, strict=True) for time in pair])


def test_the_warm_up_lasts_until_times_stop_falling() -> None:
    falling = [100.0, *(50.0 * 0.9**n for n in range(20)), 5.0]
    count = warm_up(clock(falling), 60.0)
    assert 20 < count < 60


def test_the_warm_up_of_steady_times_is_short() -> None:
    assert warm_up(clock([30.0, 10.0]), 60.0) == 1 + 3 * 5


def test_the_warm_up_of_quick_runs_has_windows_of_some_time() -> None:
    assert warm_up(clock([0.01]), 60.0) > 3 * 1_990


def test_the_warm_up_ends_with_its_time_even_where_times_still_fall() -> None:
    count = warm_up(clock([1000.0 * 0.9**n for n in range(500)]), 3.0)
    assert count < 6


def test_a_warm_up_with_one_run_longer_than_its_time_is_that_run() -> None:
    assert warm_up(clock([5_000.0]), 1.0) == 1


def test_sampling_ends_as_soon_as_both_quantiles_are_known() -> None:
    found = sample(noisy(1.0, 0.01), Bounds(seconds=60.0))
    assert 368 <= len(found.times) < 1_000
    assert found.settled


def test_sampling_ends_with_its_time_and_says_that_it_is_not_settled() -> None:
    found = sample(noisy(10.0, 0.9), Bounds(seconds=0.2))
    assert 10 <= len(found.times) < 200
    assert not found.settled


def test_slow_runs_are_made_at_least_ten_times() -> None:
    assert len(sample(clock([5_000.0]), Bounds(seconds=1.0)).times) == 10


def test_quick_runs_are_made_at_most_so_often() -> None:
    found = sample(noisy(1e-3, 0.9), Bounds(seconds=60.0, most=2_000))
    assert len(found.times) <= 2_000
