"""Flags and recommendations follow from the points alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compiler.profile.advice import advise, explain, flagged
from specs.profile import Advice, Failure, Interval, Point, Profile

MakePoint = Callable[..., Point]
MakeProfile = Callable[..., Profile]


def flags(points: list[Point]) -> dict[int, tuple[str, ...]]:
    return {each.batch: each.flags for each in flagged(points)}


def test_sizes_that_take_less_time_an_item_have_no_flag(point: MakePoint) -> None:
    assert flags([point(1, 10.0), point(2, 15.0), point(4, 25.0)]) == {1: (), 2: (), 4: ()}


def test_a_size_with_fewer_items_a_second_than_a_smaller_one_is_flagged(point: MakePoint) -> None:
    found = flags([point(1, 10.0), point(2, 12.0), point(3, 30.0), point(4, 31.0)])
    assert found == {1: (), 2: (), 3: ("slower_than_smaller",), 4: ("slower_than_smaller",)}


def test_a_size_that_takes_longer_than_the_next_larger_one_is_flagged(point: MakePoint) -> None:
    found = flags([point(1, 10.0), point(3, 20.0), point(4, 15.0)])
    assert found[3] == ("slower_than_larger",)


def test_noise_alone_sets_no_flag(point: MakePoint) -> None:
    wide = Interval(low=5.0, high=25.0)
    found = flags([point(1, 10.0, p50_ci=wide), point(2, 24.0, p50_ci=wide)])
    assert found == {1: (), 2: ()}
    found = flags([point(1, 20.0, p50_ci=wide), point(2, 19.0, p50_ci=wide)])
    assert found == {1: (), 2: ()}


def test_forms_are_judged_apart(point: MakePoint) -> None:
    found = flagged([point(1, 1.0), point(2, 20.0, "fixed"), point(4, 25.0, "fixed")])
    assert [each.flags for each in found] == [(), (), ()]


def test_flags_of_the_measurement_stay_and_flagging_twice_is_as_once(point: MakePoint) -> None:
    points = [point(1, 10.0), point(2, 30.0, flags=("unstable",))]
    once = flagged(points)
    assert once[1].flags == ("unstable", "slower_than_smaller")
    assert flagged(once) == once


def test_points_are_ordered_by_form_and_size(point: MakePoint) -> None:
    found = flagged([point(4, 1.0, "fixed"), point(8, 1.0), point(2, 1.0)])
    assert [(each.form, each.batch) for each in found] == [
        ("dynamic", 2),
        ("dynamic", 8),
        ("fixed", 4),
    ]


def test_for_throughput_the_smallest_size_near_the_best_is_advised(point: MakePoint) -> None:
    points = [point(1, 10.0), point(8, 20.0), point(16, 39.0), point(32, 77.0)]
    assert advise(points, None) == Advice(form="dynamic", throughput=8)


def test_for_the_slo_the_largest_size_whose_p99_is_half_of_it_is_advised(point: MakePoint) -> None:
    points = [point(1, 10.0), point(2, 15.0), point(4, 25.0), point(8, 50.1)]
    assert advise(points, 100.0).slo == 4
    assert advise(points, 50.0).slo == 4
    assert advise(points, 49.9).slo == 2


def test_for_the_slo_all_smaller_sizes_must_hold_it_too(point: MakePoint) -> None:
    points = [point(4, 25.0), point(2, 60.0), point(1, 10.0)]
    assert advise(points, 100.0).slo == 1


def test_the_p99_decides_and_not_the_median(point: MakePoint) -> None:
    points = [point(1, 10.0), point(2, 15.0, p99_ms=60.0)]
    assert advise(points, 100.0).slo == 1


def test_an_slo_that_no_size_holds_is_said_with_figures(
    point: MakePoint, made: MakeProfile
) -> None:
    advice = advise([point(1, 10.0), point(2, 16.0)], 5.0)
    assert (advice.slo_ms, advice.slo) == (5.0, None)
    told = "\n".join(explain(made({1: 10.0, 2: 16.0}, advice=advice)))
    assert "SLO of 5 ms: no batch size holds it; the fastest is batch 1 with twice 10 ms" in told


def test_the_form_that_serving_opens_decides(point: MakePoint) -> None:
    points = [point(1, 10.0), point(8, 40.0), point(1, 5.0, "fixed"), point(8, 100.0, "fixed")]
    assert advise(points, None) == Advice(form="dynamic", throughput=8)
    assert advise(points[2:], None) == Advice(form="fixed", throughput=1)


def test_the_words_name_both_sizes_and_their_figures(made: MakeProfile) -> None:
    advice = Advice(form="dynamic", throughput=8, slo_ms=30.0, slo=1)
    told = explain(made({1: 10.0, 8: 20.0, 16: 39.0}, advice=advice))
    assert told[0] == "for throughput: batch 8, 400 items/s; batch 16 has 410.3 items/s"
    assert told[1].startswith(
        "for the SLO of 30 ms: batch 1, twice its p99 (of 500 runs) is 20 ms (a request"
    )


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (5.0, "held at its size, batch 2 takes 0.50 of the dynamic form's time"),
        (9.9, "gains no more"),
    ],
)
def test_the_words_say_whether_holding_the_batch_pays(
    made: MakeProfile, point: MakePoint, held: float, expected: str
) -> None:
    points = (point(1, 6.0), point(2, 10.0), point(1, 6.0, "fixed"), point(2, held, "fixed"))
    told = explain(made({1: 6.0, 2: 10.0}, points=points))
    assert expected in told[-1]


def test_the_words_say_what_could_not_be_measured(made: MakeProfile) -> None:
    failure = Failure(batch=64, form="fixed", code="out_of_memory", message="no memory")
    told = explain(made({1: 6.0}, failures=(failure,)))
    assert told[-1] == "batch 64 (fixed) was not measured: no memory"


def test_the_words_say_that_points_were_disturbed(made: MakeProfile, point: MakePoint) -> None:
    points = (point(1, 6.0, flags=("disturbed",)), point(2, 10.0))
    told = explain(made({1: 6.0, 2: 10.0}, points=points))
    assert told[-1].startswith("1 of 2 points did not settle or were disturbed")


def test_a_gain_within_the_noise_is_no_gain(made: MakeProfile, point: MakePoint) -> None:
    wide = Interval(low=1.0, high=20.0)
    points = (point(2, 10.0), point(2, 5.0, "fixed", p50_ci=wide))
    assert "noise" in explain(made({2: 10.0}, points=points))[-1]
