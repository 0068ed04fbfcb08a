"""Limits from the SLO and a curve: every figure by its formula, with where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from serve.derive import (
    DEFAULT_SLO_MS,
    HEADROOM,
    MAX_ITEMS,
    MIN_ITEMS,
    Evidence,
    Figure,
    Wishes,
    derive,
)
from serve.law import Curve
from specs.axes import AxisRange
from specs.errors import ServeError
from specs.profile import Profile

BATCH = AxisRange(min=1, opt=8, max=128)
CURVE = Curve((1, 128), (4.25, 36.0))
"""4 ms and 0.25 ms per item: the engine of ``bench/batching``."""


def evidence(**changes: Any) -> Evidence:
    return dataclasses.replace(Evidence(CURVE, "profile", 4.25, 4.5), **changes)


def slo(ms: float) -> Wishes:
    return Wishes(slo_ms=Figure(ms, "spec"))


def test_the_largest_batch_is_the_largest_that_the_slo_leaves_time_for() -> None:
    for ms, most in ((4.25, 1), (4.4, 1), (4.5, 2), (20, 64), (36, 128), (1000, 128)):
        found = derive(slo(ms), BATCH, evidence()).max_batch
        assert (found.value, found.source) == (most, "profile")


def test_of_fixed_sizes_the_largest_batch_is_one_of_them() -> None:
    fixed = evidence(curve=Curve((1, 4, 16, 64), (4.25, 5.0, 8.0, 20.0), fixed=True))
    found = derive(slo(19), BATCH, fixed)
    assert found.max_batch.value == 16
    assert found.buckets.value == (1, 4, 16)


def test_capacity_is_that_of_batches_that_leave_room_for_another() -> None:
    found = derive(slo(50), BATCH, evidence())
    assert found.capacity == Figure(3360.0, "profile")


def test_a_queue_holds_what_comes_within_an_slo_at_twice_the_capacity() -> None:
    found = derive(slo(50), BATCH, evidence())
    assert found.max_items.value == 2 * 3360 * 0.05 + 128
    assert found.max_ongoing_requests.value == found.max_items.value + HEADROOM
    assert derive(slo(5), BATCH, evidence()).max_items.value == MIN_ITEMS
    assert derive(slo(9999), BATCH, evidence()).max_items.value == MAX_ITEMS


def test_autoscaling_aims_at_what_is_in_the_system_at_four_fifths_of_the_capacity() -> None:
    """The simulator's mean batch at 80 % is 32.2: ``bench/batching/README.md``."""
    assert derive(slo(50), BATCH, evidence()).target_ongoing_requests.value == 1.5 * 33


def test_an_engine_that_gains_nothing_by_batches_is_scaled_by_single_items() -> None:
    flat = evidence(curve=Curve((1, 128), (4.0, 512.0)))
    assert derive(slo(50), BATCH, flat).target_ongoing_requests.value == 1.5


def test_an_slo_shorter_than_one_item_is_refused_with_the_figures() -> None:
    with pytest.raises(ServeError) as caught:
        derive(slo(4), BATCH, evidence())
    assert caught.value.code == "slo_impossible"
    assert "the SLO is 4 ms" in caught.value.message
    assert "takes 4.25 ms (profile)" in caught.value.message
    assert "at least 9 ms" in caught.value.hint


def test_a_p99_beyond_the_slo_is_told_and_where_it_is_certain_refused() -> None:
    (told,) = derive(slo(5), BATCH, evidence(p99_ms=6.0)).warnings
    assert "p99 of a batch of one is 6 ms" in told
    with pytest.raises(ServeError, match=r"takes 5\.5 ms"):
        derive(slo(5), BATCH, evidence(least_ms=5.5, p99_ms=6.0))


def test_an_slo_that_leaves_no_time_to_wait_for_a_batch_is_told() -> None:
    (told,) = derive(slo(8), BATCH, evidence()).warnings
    assert "who just misses one batch cannot be answered in time" in told
    assert not derive(slo(8.5), BATCH, evidence()).warnings


def test_what_is_set_by_hand_wins_and_says_so() -> None:
    wishes = Wishes(Figure(50.0, "spec"), Figure(16, "deploy.yaml"), Figure(40, "user_config"))
    found = derive(wishes, BATCH, evidence()).to_json()
    assert found["slo_ms"] == {"value": 50.0, "source": "spec"}
    assert found["max_batch"] == {"value": 16, "source": "deploy.yaml"}
    assert found["max_items"] == {"value": 40, "source": "user_config"}
    assert found["buckets"] == {"value": (1, 16), "source": "profile"}


def test_what_follows_from_a_number_set_by_hand_names_that_number() -> None:
    wishes = Wishes(max_batch=Figure(16, "deploy.yaml"), max_items=Figure(40, "deploy.yaml"))
    for known in (evidence(), None):
        found = derive(wishes, BATCH, known).to_json()
        assert found["max_ongoing_requests"] == {"value": 40 + HEADROOM, "source": "max_items"}
    assert found["target_ongoing_requests"] == {"value": 16.0, "source": "max_batch"}
    found = derive(slo(50), BATCH, evidence()).to_json()
    assert found["max_ongoing_requests"]["source"] == "profile"


def test_a_batch_set_by_hand_that_outlasts_the_slo_is_told() -> None:
    wishes = Wishes(Figure(20.0, "spec"), Figure(128, "deploy.yaml"))
    (told,) = derive(wishes, BATCH, evidence()).warnings
    assert "a batch of 128 (deploy.yaml) takes 36 ms" in told


def test_a_small_bound_on_items_makes_small_batches() -> None:
    found = derive(Wishes(max_items=Figure(20, "deploy.yaml")), BATCH, evidence())
    assert found.max_batch == Figure(10, "max_items")


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(max_batch=Figure(129, "deploy.yaml")), "max_batch is 129"),
        (
            Wishes(max_batch=Figure(8, "deploy.yaml"), max_items=Figure(15, "deploy.yaml")),
            "max_ongoing_requests is 15 for batches of 8",
        ),
    ],
)
def test_what_cannot_be_is_refused(wishes: Wishes, said: str) -> None:
    with pytest.raises(ServeError, match=said) as caught:
        derive(wishes, BATCH, evidence())
    assert caught.value.code == "serve_args"


def test_without_an_slo_there_is_a_generous_one_that_four_whole_batches_fit_into() -> None:
    found = derive(Wishes(), BATCH, evidence())
    assert found.slo_ms == Figure(DEFAULT_SLO_MS, "default")
    slow = evidence(curve=Curve((1, 128), (100.0, 3000.0)), source="measured at start")
    found = derive(Wishes(), BATCH, slow)
    assert found.slo_ms == Figure(12_000.0, "default")
    assert found.max_batch == Figure(128, "measured at start")


def test_before_anything_was_measured_the_artifact_alone_counts() -> None:
    found = derive(slo(50), BATCH, None).to_json()
    assert found["max_batch"] == {"value": 128, "source": "default"}
    assert found["max_items"] == {"value": 1024, "source": "default"}
    assert found["target_ongoing_requests"] == {"value": 128.0, "source": "default"}
    assert "capacity" not in found


def test_a_profile_is_taken_at_its_median_and_refuses_by_the_certain_part_of_its_p99(
    make_profile: Callable[..., Profile],
) -> None:
    found = Evidence.of_profile(make_profile({1: 2.0, 4: 3.0}), 8)
    assert found.curve == Curve((1, 4, 8), (2.0, 3.0, 6.0))
    assert (found.least_ms, found.p99_ms, found.source) == (2.5, 3.0, "profile")
