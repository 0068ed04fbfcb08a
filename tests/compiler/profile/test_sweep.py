"""Which batch sizes are measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compiler.profile.sweep import knee, parse_batches, powers, sweep
from specs.axes import AxisRange
from specs.errors import DeploycError


def axis(low: int, high: int) -> AxisRange:
    return AxisRange(min=low, opt=low, max=high)


def measured(rate: Callable[[int], float | None], low: int = 1, high: int = 256) -> list[int]:
    """The sizes that a sweep measures, in its order."""
    sizes: list[int] = []

    def measure(size: int) -> float | None:
        sizes.append(size)
        return rate(size)

    sweep(measure, axis(low, high))
    return sizes


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1, 8, (1, 2, 4, 8)), (1, 12, (1, 2, 4, 8, 12)), (3, 20, (3, 4, 8, 16, 20)), (7, 7, (7,))],
)
def test_the_sizes_are_the_powers_of_two_and_both_ends(
    low: int, high: int, expected: tuple[int, ...]
) -> None:
    assert powers(axis(low, high)) == expected


def test_a_rate_that_always_grows_is_followed_to_the_end() -> None:
    assert measured(float)[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]


def test_the_way_upwards_ends_after_two_doublings_that_gain_less_than_5_percent() -> None:
    sizes = measured(lambda size: min(size, 8.0))
    assert [size for size in sizes if size & (size - 1) == 0] == [1, 2, 4, 8, 16, 32]


def test_one_size_that_stands_out_does_not_end_it() -> None:
    assert 64 in measured(lambda size: 1.0 if size == 8 else float(size))


def test_a_size_that_cannot_be_measured_ends_it() -> None:
    sizes = measured(lambda size: None if size >= 16 else float(size))
    assert max(sizes) == 16
    assert sizes.count(16) == 1


def test_where_nothing_can_be_measured_one_size_is_tried() -> None:
    assert measured(lambda _: None) == [1]


def test_the_neighbourhood_of_the_knee_is_refined() -> None:
    sizes = measured(lambda size: min(size, 10.0))
    assert sizes[:7] == [1, 2, 4, 8, 16, 32, 64]
    # The knee is 16, so the middles to 8 and 32 come next; then it is 12, with 10 and 14.
    assert sizes[7:] == [12, 24, 10, 14]


def test_no_size_is_measured_twice_or_outside_of_the_range() -> None:
    sizes = measured(lambda size: min(size, 3.0), 2, 5)
    assert sorted(sizes) == sorted(set(sizes))
    assert set(sizes) <= {2, 3, 4, 5}


def test_a_fixed_batch_is_measured_alone() -> None:
    assert measured(float, 4, 4) == [4]


def test_the_knee_is_the_smallest_size_within_5_percent_of_the_best() -> None:
    assert knee({1: 10.0, 2: 94.0, 4: 96.0, 8: 100.0}) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,4", (1, 2, 4)),
        ("8, 3,8", (3, 8)),
        ("1-8", (1, 2, 4, 8)),
        ("3-20,5", (3, 4, 5, 8, 16, 20)),
    ],
)
def test_a_list_has_sizes_and_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert parse_batches(text, axis(1, 64)) == expected


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1-", "-4", "0", "8-4", "1-2-3", "1.5", "²"])
def test_what_is_no_list_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(DeploycError, match="expected sizes such as 1,2,4 or 1-64") as caught:
        parse_batches(text, axis(1, 64))
    assert caught.value.code == "batches_form"


def test_sizes_that_the_artifact_does_not_take_are_named_all_at_once() -> None:
    with pytest.raises(
        DeploycError, match="found 1, 64, 128, the artifact takes 2 to 32"
    ) as caught:
        parse_batches("1,2,64,128", axis(2, 32))
    assert caught.value.code == "batches_range"
