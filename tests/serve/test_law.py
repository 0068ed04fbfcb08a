"""The batching law: its five rules, with the clock in the test's hand."""

# ruff: noqa: S311 - the dice of a simulation keep no secret

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve._law_arrivals import Arrivals, Wait
from serve._law_correction import Correction
from serve._law_curve import Forecast
from serve._law_decisions import Rule
from serve._law_plan import Slacks, plan
from serve.law import Admitted, Curve, Cut, Hold, Idle, Law, Shed, Ticket, Why, capacity
from specs.errors import ServeError
from specs.profile import Advice, Form, Point, Profile

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
AFFINE = Curve(SIZES, tuple(4 + 0.25 * size for size in SIZES))
"""L(b) = 4 ms + 0.25 ms * b."""
BUCKETS = Curve((1, 4, 16, 64), (4.25, 5.0, 8.0, 20.0), fixed=True)
FLAT = Curve((1, 8), (10.0, 10.0))


def law(curve: Curve = AFFINE, **options: Any) -> Law:
    return Law(curve, slo_s=0.050, **options)


def offer(batcher: Law, now: float, items: int = 1, **options: float) -> list[Ticket]:
    """Items that must be admitted."""
    timeout, priority = options.get("timeout_s"), int(options.get("priority", 0))
    tickets = [
        batcher.ticket(now, timeout_s=timeout, priority=priority, key=options.get("key"))
        for _ in range(items)
    ]
    assert all(isinstance(batcher.offer(now, ticket), Admitted) for ticket in tickets)
    return tickets


def cut(batcher: Law, now: float) -> Cut:
    """A batch, after any hold has run out."""
    answer = batcher.cut(now)
    while isinstance(answer, Hold):
        answer = batcher.cut(answer.until + 1e-6)
    assert isinstance(answer, Cut), answer
    return answer


def run(batcher: Law, now: float, seconds: float | None = None) -> tuple[Cut, float]:
    """Cut at ``now`` and finish after what was predicted, or so many seconds."""
    answer = cut(batcher, now)
    took = seconds or batcher.forecast.seconds(len(answer.batch))
    batcher.done(now + took, answer.batch, took)
    return answer, now + took


# Rule 1: late binding.


def test_a_batch_holds_all_that_arrived_while_the_engine_was_busy() -> None:
    batcher = law()
    offer(batcher, 0.0)
    first = cut(batcher, 0.0)
    waiting = [ticket for n in range(1, 4) for ticket in offer(batcher, n / 1000)]
    batcher.done(0.00425, first.batch, 0.00425)
    assert cut(batcher, 0.00425).batch == tuple(waiting)


def test_with_nothing_waiting_there_is_nothing_to_do() -> None:
    assert isinstance(law().cut(0.0), Idle)


def test_a_second_batch_is_refused_while_one_runs() -> None:
    batcher = law()
    offer(batcher, 0.0)
    cut(batcher, 0.0)
    with pytest.raises(RuntimeError, match=r"call done\(\) first"):
        batcher.cut(0.001)


def test_a_batch_is_no_larger_than_the_user_allows() -> None:
    batcher = law(max_batch=8)
    offer(batcher, 0.0, 20)
    answer = cut(batcher, 0.0)
    assert len(answer.batch) == 8
    assert answer.why.rule == "full"


# Rule 2: deadlines, classes, and a profile that follows the engine.


def test_the_earliest_deadline_goes_first_whatever_came_first() -> None:
    batcher = law(max_batch=1)
    offer(batcher, 0.0, timeout_s=0.100)
    (urgent,) = offer(batcher, 0.001, timeout_s=0.025)
    assert cut(batcher, 0.002).batch == (urgent,)


def test_a_higher_class_goes_before_an_earlier_deadline() -> None:
    batcher = law(max_batch=1)
    offer(batcher, 0.0, timeout_s=0.025, priority=1)
    (high,) = offer(batcher, 0.0, timeout_s=0.100, priority=0)
    assert cut(batcher, 0.0).batch == (high,)


def test_a_lower_class_rides_along_only_where_it_makes_nobody_above_it_late() -> None:
    batcher = law()
    high = offer(batcher, 0.0, 4, timeout_s=0.010)
    offer(batcher, 0.0, 60, timeout_s=0.100, priority=1)
    answer = cut(batcher, 0.0)
    assert set(high) <= set(answer.batch)
    assert 20 <= len(answer.batch) <= 24  # L(24) is the 10 ms that the higher class has
    assert not answer.dropped


def test_items_of_different_shapes_never_share_a_batch() -> None:
    batcher = law()
    tickets = [batcher.ticket(0.0, key=n % 2) for n in range(6)]
    for ticket in tickets:
        batcher.offer(0.0, ticket)
    first, now = run(batcher, 0.0)
    second, _ = run(batcher, now)
    assert [{each.key for each in answer.batch} for answer in (first, second)] == [{0}, {1}]


def test_an_engine_that_became_slower_is_believed_after_three_batches() -> None:
    forecast = Forecast(AFFINE)
    for _ in range(3):
        forecast.learn(32, 1.6 * AFFINE.seconds(32))
    for size in (1, 8, 32, 128):
        assert forecast.seconds(size) == pytest.approx(1.6 * AFFINE.seconds(size))


def test_an_engine_that_became_faster_again_is_believed_after_three_batches() -> None:
    forecast = Forecast(AFFINE)
    for factor in (1.6, 1.0):
        for _ in range(3):
            forecast.learn(32, factor * AFFINE.seconds(32))
    assert forecast.seconds(64) == pytest.approx(AFFINE.seconds(64))


def test_one_stall_changes_nothing() -> None:
    forecast = Forecast(AFFINE)
    for factor in (1.0, 5.0):
        forecast.learn(32, factor * AFFINE.seconds(32))
    assert forecast.seconds(32) == pytest.approx(AFFINE.seconds(32))


def test_the_correction_is_an_upper_quantile_of_what_was_observed() -> None:
    correction, dice = Correction(1), random.Random(7)
    seen = [dice.uniform(0.95, 1.05) for _ in range(400)]
    for ratio in seen:
        correction.learn(0, ratio)
    below = sum(ratio <= correction.ratio(0) for ratio in seen) / len(seen)
    assert 0.8 < below < 0.99


def test_a_bucket_that_alone_is_slow_corrects_no_other_for_long() -> None:
    forecast = Forecast(AFFINE)
    for _ in range(20):
        forecast.learn(8, AFFINE.seconds(8))
        forecast.learn(64, 1.3 * AFFINE.seconds(64))
        forecast.learn(64, 1.3 * AFFINE.seconds(64))
        forecast.learn(64, 1.3 * AFFINE.seconds(64))
    forecast.learn(8, AFFINE.seconds(8))
    assert forecast.ratio(8) == pytest.approx(1.0)
    assert forecast.ratio(64) == pytest.approx(1.3)


def test_a_size_that_did_not_run_since_is_guessed_to_have_slowed_as_much() -> None:
    forecast = Forecast(AFFINE)
    for _ in range(12):
        forecast.learn(8, AFFINE.seconds(8))
    for _ in range(3):
        forecast.learn(64, 1.6 * AFFINE.seconds(64))
    assert forecast.ratio(8) == pytest.approx(1.6)
    forecast.learn(8, AFFINE.seconds(8))  # it runs, and did not slow
    assert forecast.ratio(8) == pytest.approx(1.0)


@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.5])
def test_where_times_scatter_a_size_that_does_not_run_is_not_guessed_away(scatter: float) -> None:
    forecast, dice = Forecast(AFFINE), random.Random(3)
    for _ in range(12):
        forecast.learn(64, AFFINE.seconds(64))
    for _ in range(5000):
        forecast.learn(1, AFFINE.seconds(1) * dice.lognormvariate(0, scatter))
    assert 0.4 < forecast.ratio(64) < 2.5
    assert forecast.ratio(1) < 4


def test_a_size_once_found_slow_is_tried_again_when_all_others_are_fast() -> None:
    forecast = Forecast(AFFINE)
    for size, factor, times in ((1, 1.0, 12), (64, 50.0, 12), (1, 1.0, 200)):
        for _ in range(times):
            forecast.learn(size, factor * AFFINE.seconds(size))
    assert forecast.ratio(64) == pytest.approx(50.0)
    for _ in range(100):
        forecast.learn(1, AFFINE.seconds(1))
    assert forecast.ratio(64) == pytest.approx(1.0)


def test_failed_batches_teach_nothing_and_free_the_engine() -> None:
    batcher = law()
    for n in range(3):
        offer(batcher, n / 10)
        batcher.done(n / 10 + 0.001, cut(batcher, n / 10).batch, None)
    assert batcher.forecast.ratio(1) == 1.0
    assert isinstance(batcher.cut(0.3), Idle)


# Rule 3: the largest batch in time, and the best one under overload.


def test_the_head_bounds_the_batch_by_its_deadline() -> None:
    batcher = law()
    offer(batcher, 0.0, timeout_s=0.0121)
    offer(batcher, 0.0, 60)
    answer = cut(batcher, 0.0)
    assert answer.why.rule == "deadline"
    assert len(answer.batch) == 32  # 4 ms + 32 * 0.25 ms


def test_no_head_is_given_up_where_its_batch_keeps_up_with_what_arrives() -> None:
    slacks = [0.0121] * 10 + [0.050] * 60
    chosen = plan(slacks, Forecast(AFFINE), demand=2_000)
    assert (chosen.dropped, chosen.size, chosen.choice) == (0, 32, "deadline")


def test_a_request_of_many_items_is_no_overload() -> None:
    batcher = law()
    offer(batcher, 0.0, timeout_s=0.0121)
    offer(batcher, 0.0, 100)
    assert not cut(batcher, 0.0).dropped


def test_heads_that_shrink_the_batch_are_given_up_under_overload() -> None:
    slacks = [0.006] * 10 + [0.050] * 120
    chosen = plan(slacks, Forecast(AFFINE), demand=4_000)
    assert (chosen.dropped, chosen.size, chosen.choice) == (10, 120, "overload")


def test_what_cannot_be_in_time_even_alone_is_dropped() -> None:
    batcher = law()
    offer(batcher, 0.0, 3)
    late = batcher.cut(0.048)
    assert isinstance(late, Idle)
    assert [shed.why.rule for shed in late.dropped] == ["expired"] * 3


def test_a_batch_is_not_padded_where_that_gives_fewer_answers_per_second() -> None:
    batcher = law(BUCKETS)
    offer(batcher, 0.0, 20)
    answer = cut(batcher, 0.0)
    assert len(answer.batch) == 16  # 16 / 8 ms against 20 / 20 ms
    assert answer.why.rule == "bucket"


def test_a_batch_is_padded_where_that_gives_more_answers_per_second() -> None:
    batcher = law(BUCKETS)
    offer(batcher, 0.0, 48)
    assert len(cut(batcher, 0.0).batch) == 48  # 48 / 20 ms against 16 / 8 ms


@given(
    st.lists(st.floats(0.001, 0.1), min_size=1, max_size=150),
    st.floats(0, 10_000),
    st.sampled_from([AFFINE, BUCKETS, FLAT]),
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_planned_is_in_time_and_of_the_best_rate_under_overload(
    found: list[float], demand: float, curve: Curve
) -> None:
    slacks, forecast = sorted(found), Forecast(curve)
    chosen = plan(slacks, forecast, demand)
    if not chosen.size:
        assert slacks[-1] < forecast.seconds(1)
        return
    assert forecast.seconds(chosen.size) <= slacks[chosen.dropped]
    assert chosen.size <= min(curve.max_batch, len(slacks) - chosen.dropped)
    if chosen.choice == "overload":
        best = max(
            forecast.rate(size)
            for start, slack in enumerate(slacks)
            for size in range(1, min(curve.max_batch, len(slacks) - start) + 1)
            if forecast.seconds(size) <= slack
        )
        assert forecast.rate(chosen.size) == pytest.approx(best)


# Rule 4: told at once.


def test_what_the_running_batch_makes_late_is_turned_away_at_the_door() -> None:
    batcher = law()
    offer(batcher, 0.0, 100)
    cut(batcher, 0.0)  # 29 ms
    answer = batcher.offer(0.001, batcher.ticket(0.001, timeout_s=0.025))
    assert isinstance(answer, Shed)
    assert answer.why.rule == "busy"
    assert 0.025 < answer.retry_after_s < 0.035


def test_what_higher_classes_ahead_make_late_is_turned_away_at_the_door() -> None:
    batcher = law()
    offer(batcher, 0.0)
    cut(batcher, 0.0)
    offer(batcher, 0.001, 120, timeout_s=0.100)
    low = batcher.offer(0.001, batcher.ticket(0.001, timeout_s=0.030, priority=1))
    assert isinstance(low, Shed)
    assert isinstance(batcher.offer(0.001, batcher.ticket(0.001, timeout_s=0.030)), Admitted)


def test_more_than_the_bound_is_turned_away() -> None:
    batcher = law(max_items=4)
    offer(batcher, 0.0, 4)
    answer = batcher.offer(0.0, batcher.ticket(0.0))
    assert isinstance(answer, Shed)
    assert answer.why.rule == "bound"


def test_retry_after_is_the_time_that_all_that_waits_should_take() -> None:
    batcher = law()
    offer(batcher, 0.0, 100)
    assert batcher.retry_after_s(0.0) == pytest.approx(100 / 3360)


def poisson(rate: float, seconds: float, seed: int) -> Iterator[float]:
    dice, now = random.Random(seed), 0.0
    while (now := now + dice.expovariate(rate)) < seconds:
        yield now


def play(batcher: Law, arrivals: Iterator[float]) -> tuple[int, int, int]:
    """Answers in time, answers that came late, and what was turned away at the door."""
    good = late = refused = 0
    now, pending = 0.0, [*arrivals, float("inf")]
    place = 0
    while place < len(pending) - 1:
        while pending[place] <= now:
            ticket = batcher.ticket(pending[place])
            refused += isinstance(batcher.offer(pending[place], ticket), Shed)
            place += 1
        answer = batcher.cut(now)
        if not isinstance(answer, Cut):
            until = answer.until + 1e-9 if isinstance(answer, Hold) else float("inf")
            now = min(until, pending[place])
            continue
        took = AFFINE.seconds(len(answer.batch))
        while pending[place] <= now + took:
            ticket = batcher.ticket(pending[place])
            refused += isinstance(batcher.offer(pending[place], ticket), Shed)
            place += 1
        now += took
        good += sum(now <= each.deadline for each in answer.batch)
        late += sum(now > each.deadline for each in answer.batch)
        batcher.done(now, answer.batch, took)
    return good, late, refused


def test_twice_the_capacity_still_gives_the_capacity_and_nothing_late() -> None:
    good, late, refused = play(law(), poisson(6_720, 2.0, seed=11))
    assert good / 2.0 > 0.97 * capacity(AFFINE, 0.050)
    assert late == 0
    assert refused > 0.2 * 2 * 3_360  # most of the excess is told at the door, not after a wait


def test_under_light_load_nothing_is_turned_away() -> None:
    good, late, refused = play(law(), poisson(1_000, 2.0, seed=12))
    assert (late, refused) == (0, 0)
    assert good > 1_900


def test_an_engine_believed_too_slow_for_any_deadline_is_tried_again() -> None:
    batcher = law()
    for _ in range(3):
        batcher.forecast.learn(1, 0.200)
    (ticket,) = offer(batcher, 0.0)
    answer = cut(batcher, 0.0)
    assert answer.batch == (ticket,)
    assert answer.why.rule == "probe"


# Rule 5: holding open.


def closed(batcher: Law, clients: int, seconds: float, think: float = 0.0003) -> list[int]:
    """Batch sizes that a closed loop ends in."""
    dice, sizes, now = random.Random(3), list[int](), 0.0
    due = sorted(dice.expovariate(1 / think) for _ in range(clients))
    while now < seconds:
        while due and due[0] <= now:
            offer(batcher, due.pop(0))
        answer = batcher.cut(now)
        if not isinstance(answer, Cut):
            until = answer.until + 1e-9 if isinstance(answer, Hold) else float("inf")
            now = min(until, due[0] if due else until)
            continue
        sizes.append(len(answer.batch))
        end = now + AFFINE.seconds(len(answer.batch))
        while due and due[0] <= end:
            offer(batcher, due.pop(0))
        batcher.done(end, answer.batch, end - now)
        due = sorted([*due, *(end + dice.expovariate(1 / think) for _ in answer.batch)])
        now = end
    return sizes[len(sizes) // 4 :]


def test_a_closed_loop_of_eight_rides_in_batches_of_eight() -> None:
    sizes = closed(law(), 8, 2.0)
    assert sizes.count(8) > 0.9 * len(sizes)


def test_a_single_client_is_never_held() -> None:
    batcher = law()
    now = 0.0
    for _ in range(50):
        offer(batcher, now)
        answer = batcher.cut(now)
        assert isinstance(answer, Cut)
        batcher.done(now + 0.00425, answer.batch, 0.00425)
        now += 0.0045


def test_nothing_is_held_where_one_more_member_saves_nothing() -> None:
    arrivals = Arrivals(0.1)
    for n in range(50):
        arrivals.arrived(n * 1e-4, 1)
    assert arrivals.wait(0.005, held=1, saving=0.0, most=1.0) is None
    assert arrivals.wait(0.005, held=1, saving=0.004, most=1.0) is not None


def test_many_are_not_held_for_one() -> None:
    arrivals = Arrivals(0.1)
    for n in range(50):
        arrivals.arrived(n * 0.001, 1)
    assert arrivals.wait(0.049, held=3, saving=0.004, most=1.0) is not None
    assert arrivals.wait(0.049, held=5, saving=0.004, most=1.0) is None


def test_a_hold_ends_where_the_expected_one_did_not_come() -> None:
    arrivals, now = Arrivals(0.1), 0.0
    for _ in range(30):  # pairs: two within 0.2 ms, then 50 ms of nothing
        arrivals.arrived(now, 1)
        arrivals.arrived(now + 0.0002, 2)
        arrivals.left(now + 0.005, 0)
        now += 0.050
    arrivals.arrived(now, 1)
    wait = arrivals.wait(now, held=1, saving=0.004, most=1.0)
    assert wait is not None
    assert wait.seconds == pytest.approx(0.0002)
    arrivals.arrived(now + 0.0002, 2)
    assert arrivals.wait(now + 0.0002, held=2, saving=0.004, most=1.0) is None


@pytest.mark.parametrize(("timeout_s", "held"), [(0.050, True), (0.0049, False)])
def test_no_hold_makes_the_head_late(timeout_s: float, held: bool) -> None:
    batcher = law()
    for n in range(4):  # the second one always comes 0.5 ms after the first
        pair = [*offer(batcher, n / 1000), *offer(batcher, n / 1000 + 5e-4)]
        assert all(batcher.cancel(n / 1000 + 6e-4, ticket) for ticket in pair)
    offer(batcher, 0.004, timeout_s=timeout_s)  # a batch of two takes 4.5 ms
    assert isinstance(batcher.cut(0.004), Hold) is held


# What a driver relies on.


def test_other_limits_hold_from_the_next_decision_on() -> None:
    batcher = law()
    batcher.adjust(slo_s=0.1, max_batch=3, max_items=5)
    (first, *_) = offer(batcher, 0.0, 5)
    assert first.deadline == 0.1
    refused = batcher.offer(0.0, batcher.ticket(0.0))
    assert isinstance(refused, Shed)
    assert refused.why.rule == "bound"
    assert len(cut(batcher, 0.0).batch) == 3


def test_a_cancelled_item_leaves_the_queue_at_once() -> None:
    batcher = law()
    first, second = offer(batcher, 0.0, 2)
    assert batcher.cancel(0.001, first)
    assert not batcher.cancel(0.001, first)
    assert batcher.waiting == 1
    assert cut(batcher, 0.001).batch == (second,)
    assert not batcher.cancel(0.002, second)


def test_what_waits_behind_a_batch_that_hangs_is_told_before_its_deadline() -> None:
    batcher = law()
    offer(batcher, 0.0)
    cut(batcher, 0.0)
    (ticket,) = offer(batcher, 0.001)
    assert not batcher.expire(0.040)
    (shed,) = batcher.expire(0.048)
    assert shed.ticket is ticket
    assert shed.why.rule == "expired"


def test_every_decision_says_why() -> None:
    batcher = law()
    (ticket,) = offer(batcher, 0.0)
    answer = cut(batcher, 0.0)
    assert "1 that waited" in str(answer.why)
    refused = batcher.offer(0.001, batcher.ticket(0.001, timeout_s=0.002))
    assert isinstance(refused, Shed)
    assert "the deadline is in 2.0 ms" in str(refused.why)
    batcher.done(0.00425, (ticket,), 0.00425)
    assert str(batcher.cut(0.00425).why) == "nothing waits"


@pytest.mark.parametrize("rule", get_args(Rule))
def test_every_rule_has_its_sentence(rule: Rule) -> None:
    wait = Wait(seconds=0.0005, chance=0.9, saving=0.0036, cost=0.001)
    why = Why(rule, 7, size=3, predicted_s=0.0048, slack_s=0.05, demand=9.0, rate=5.0, wait=wait)
    assert len(str(why)) > 10
    assert "{" not in str(why)
    assert "?" not in str(why)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_item_ends_exactly_once_whatever_happens(data: st.DataObject) -> None:
    batcher, dice = law(max_batch=16), random.Random(data.draw(st.integers(0, 10**6)))
    now, open_, ended = 0.0, set[int](), list[int]()
    running: Cut | None = None
    taken: list[Ticket] = []  # kept alive, so that their ids stay their own
    for _ in range(300):
        now += dice.expovariate(1_000)
        step = dice.random()
        if step < 0.7:
            ticket = batcher.ticket(
                now,
                timeout_s=dice.choice([0.006, 0.03, 0.2]),
                priority=dice.randrange(2),
                key=dice.randrange(2),
            )
            taken.append(ticket)
            if isinstance(batcher.offer(now, ticket), Admitted):
                open_.add(id(ticket))
        elif step < 0.75 and taken and batcher.cancel(now, chosen := dice.choice(taken)):
            ended.append(id(chosen))
        elif running:
            batcher.done(now, running.batch, dice.uniform(0.003, 0.03))
            ended += map(id, running.batch)
            running = None
        else:
            answer = batcher.cut(now)
            ended += [id(shed.ticket) for shed in answer.dropped]
            running = answer if isinstance(answer, Cut) else None
            if running:
                assert len({each.key for each in running.batch}) == 1
        assert batcher.load == len(open_) - len(ended)
    assert len(ended) == len(set(ended))
    assert set(ended) <= open_


# The curve.


def test_capacity_is_what_can_be_answered_for_ever() -> None:
    assert capacity(AFFINE, 0.050) == pytest.approx(84 / 0.025)
    assert capacity(BUCKETS, 0.050) == pytest.approx(64 / 0.020)
    assert capacity(AFFINE, 0.008) == 0.0


def test_times_between_two_sizes_are_interpolated_or_padded() -> None:
    assert AFFINE.seconds(3) == pytest.approx(0.00475)
    assert BUCKETS.seconds(3) == pytest.approx(0.005)


def test_a_larger_batch_is_never_believed_to_be_faster() -> None:
    forecast = Forecast(Curve((1, 2, 4), (5.0, 9.0, 7.0)))
    times = [forecast.seconds(size) for size in range(1, 5)]
    assert all(a <= b for a, b in pairwise(times))


@pytest.mark.parametrize(
    ("sizes", "ms"), [((), ()), ((2, 1), (1.0, 1.0)), ((1,), (0.0,)), ((1, 2), (1.0,))]
)
def test_a_curve_that_is_none_is_refused(sizes: tuple[int, ...], ms: tuple[float, ...]) -> None:
    with pytest.raises(ServeError):
        Curve(sizes, ms)


def test_a_curve_is_read_from_a_profile_in_the_form_that_serving_opens() -> None:
    every: list[tuple[Form, int, float]] = [
        ("dynamic", 1, 4.25),
        ("dynamic", 8, 6.0),
        ("fixed", 1, 4.0),
        ("fixed", 4, 5.0),
        ("fixed", 16, 8.0),
    ]
    points = tuple(
        Point.model_construct(batch=batch, form=form, p50_ms=ms, p95_ms=2 * ms, p99_ms=3 * ms)
        for form, batch, ms in every
    )
    profile = Profile.model_construct(points=points, advice=Advice(form="dynamic", throughput=8))
    assert Curve.of(profile, 16) == Curve((1, 8, 16), (4.25, 6.0, 12.0))
    assert Curve.of(profile, 4).seconds(4) == pytest.approx(0.005)
    fixed = profile.model_copy(update={"advice": Advice(form="fixed", throughput=16)})
    assert Curve.of(fixed, 10) == Curve((1, 4), (4.0, 5.0), fixed=True)


# Many at once, and before they are made.


def several(batcher: Law, now: float, items: int) -> list[Ticket]:
    return [batcher.ticket(now) for _ in range(items)]


def test_items_of_one_request_are_taken_in_at_once_and_ride_in_order() -> None:
    batcher = law(max_batch=4)
    tickets = several(batcher, 0.0, 6)
    assert isinstance(batcher.offer_all(0.0, tickets), Admitted)
    assert batcher.waiting == 6
    first = cut(batcher, 0.0)
    assert first.batch == tuple(tickets[:4])
    batcher.done(0.005, first.batch, 0.005)
    assert cut(batcher, 0.005).batch == tuple(tickets[4:])


def test_a_request_that_exceeds_the_bound_is_turned_away_as_a_whole() -> None:
    batcher = law(max_items=5)
    offer(batcher, 0.0, 2)
    answer = batcher.offer_all(0.0, several(batcher, 0.0, 4))
    assert isinstance(answer, Shed)
    assert answer.why.rule == "bound"
    assert batcher.waiting == 2


def test_a_request_of_many_items_counts_as_many_in_the_demand_and_as_one_arrival() -> None:
    many = Arrivals(1.0)
    many.arrived(0.0, 0)
    many.arrived(0.5, 8, 8)
    assert many.rate(0.5) == 9
    wait = many.wait(0.5, 1, 1.0, 10.0)
    assert wait is not None
    assert wait.seconds == pytest.approx(0.5)


def test_an_item_is_not_made_where_all_before_it_leaves_no_time() -> None:
    batcher = law()
    offer(batcher, 0.0, 100)
    running = cut(batcher, 0.0)
    offer(batcher, 0.001, 100)
    shed = batcher.foresee(0.001, batcher.ticket(0.001))
    assert shed is not None
    assert shed.why.rule == "backlog"
    assert shed.why.waiting == 100 + 100 - len(running.batch)
    assert shed.why.predicted_s is not None
    assert shed.why.predicted_s > 0.050


def test_those_that_are_made_now_count_as_before_it() -> None:
    batcher = law()
    offer(batcher, 0.0)
    assert batcher.foresee(0.0, batcher.ticket(0.0), coming=40) is None
    assert batcher.foresee(0.0, batcher.ticket(0.0), coming=400) is not None


def test_the_time_to_make_it_counts() -> None:
    batcher = law()
    offer(batcher, 0.0)
    assert batcher.foresee(0.0, batcher.ticket(0.0), ready_s=0.040) is None
    assert batcher.foresee(0.0, batcher.ticket(0.0), ready_s=0.048) is not None


def test_where_nothing_is_here_an_item_is_always_tried() -> None:
    assert law().foresee(0.0, Ticket(0.0, 0.001), ready_s=1.0) is None


def test_a_lower_class_and_later_deadlines_do_not_stand_in_the_way() -> None:
    batcher = law()
    offer(batcher, 0.0, 300, priority=1, timeout_s=1.0)
    assert batcher.foresee(0.0, batcher.ticket(0.0)) is None
    assert batcher.foresee(0.0, batcher.ticket(0.0, priority=1)) is None
    offer(batcher, 0.0, 300, priority=0, timeout_s=1.0)
    assert batcher.foresee(0.0, batcher.ticket(0.0, priority=1)) is not None


@given(
    st.lists(st.floats(0, 0.06), min_size=1, max_size=80),
    st.sampled_from([AFFINE, BUCKETS, FLAT]),
    st.floats(0, 8000),
)
def test_the_best_start_is_the_one_that_trying_all_would_find(
    found: list[float], curve: Curve, demand: float
) -> None:
    slacks, forecast = sorted(found), Forecast(curve)
    made = plan(slacks, forecast, demand)

    def size(start: int) -> int:
        fits = min(forecast.fits(slacks[start]), len(slacks) - start, forecast.max_batch)
        return forecast.best(fits) if fits else 0

    starts = [start for start in range(len(slacks)) if size(start)]
    if made.choice == "overload":
        rates = {start: forecast.rate(size(start)) for start in starts}
        assert made.dropped == next(s for s in starts if rates[s] == max(rates.values()))
        assert made.size == size(made.dropped)
    else:
        assert made.dropped == (starts[0] if starts else len(slacks))


def test_slacks_are_those_of_the_queue_without_copying_it() -> None:
    queue = [Ticket(0.0, 1.0 + n) for n in range(5)]
    slacks = Slacks(queue, 3, 0.5)
    assert list(slacks) == [0.5, 1.5, 2.5] == slacks[:]
    with pytest.raises(IndexError):
        slacks[3]


# Delays: what is far beyond the curve does not grow with it.


TINY = Curve((1, 8, 32), (0.02, 0.1, 0.4))


def test_waiting_for_a_core_is_not_taken_for_an_engine_that_is_a_thousand_times_slower() -> None:
    forecast = Forecast(TINY)
    for _ in range(20):
        forecast.learn(1, 0.020)
    assert 0.019 < forecast.seconds(1) < 0.022
    assert forecast.seconds(32) < 0.025
    assert forecast.ratio(32) == pytest.approx(forecast.seconds(32) / 0.0004)


def test_a_few_stalls_change_nothing() -> None:
    forecast = Forecast(TINY)
    for number in range(60):
        forecast.learn(8, 0.050 if number % 20 == 5 else 0.0001)
        if number > 20:
            assert forecast.seconds(8) < 0.001


def test_delays_that_are_over_are_soon_forgotten() -> None:
    forecast = Forecast(TINY)
    for _ in range(20):
        forecast.learn(8, 0.050)
    for _ in range(8):
        forecast.learn(8, 0.0001)
    assert forecast.seconds(8) < 0.001


def test_an_engine_that_is_somewhat_slower_is_slower_at_every_size() -> None:
    forecast = Forecast(AFFINE)
    for _ in range(20):
        forecast.learn(32, 3 * 0.012)
    assert forecast.seconds(64) == pytest.approx(3 * 0.020)


# --- several items under one ticket


def test_items_of_one_ticket_are_cut_in_parts_and_leave_together() -> None:
    batcher = law(Curve((1, 4), (1.0, 2.0)))
    many = batcher.ticket(0.0)
    alone = batcher.ticket(0.001)
    assert isinstance(batcher.offer_all(0.0, [many] * 6), Admitted)
    batcher.offer(0.001, alone)
    first, now = run(batcher, 0.001)
    assert (first.batch, batcher.waiting) == ((many,) * 4, 3)
    second = cut(batcher, now)
    assert second.batch == (many, many, alone)
    batcher.done(now + 0.002, second.batch, 0.002)
    batcher.offer_all(now, [many] * 3)
    batcher.offer(now, alone)
    assert batcher.cancel(now, many)
    assert batcher.waiting == 1
    assert not batcher.cancel(now, many)


def test_of_a_ticket_s_items_as_many_leave_a_queue_as_were_taken() -> None:
    batcher = law(Curve((1, 4), (1.0, 2.0)))
    high, low = batcher.ticket(0.0), batcher.ticket(0.0, priority=1)
    batcher.offer_all(0.0, [low] * 3)
    batcher.offer_all(0.0, [high] * 2)
    first, now = run(batcher, 0.0)
    assert (first.batch, batcher.waiting) == ((high, high, low, low), 1)
    assert cut(batcher, now).batch == (low,)


# --- several batches at once


def test_a_curve_goes_on_with_several_largest_batches_one_after_the_other() -> None:
    curve = Curve((1, 8), (0.5, 1.0)).repeated(0.0035, 0.0002)
    assert curve.sizes == (1, 8, 16, 24, 32)
    assert curve.ms == pytest.approx((0.5, 1.0, 1.8, 2.6, 3.4))
    assert curve.at_once == 8
    assert law(curve).forecast.at_once == 8
    assert law(curve, max_batch=4).forecast.at_once == 4
    assert AFFINE.repeated(0.05).sizes == AFFINE.sizes
