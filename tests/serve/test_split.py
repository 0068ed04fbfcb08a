"""Who answers, and when the new artifact is taken back, in virtual time."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from serve.args import HotSplit, ParityGate, SplitGate
from serve.split import MOST, RISK, Shares, Split

TENTH = Shares(0.1, 0.0)
Latency = Callable[[random.Random], float]


def usual(choice: random.Random) -> float:
    """A skewed time, as those of servers are."""
    return 0.01 * choice.lognormvariate(0, 0.5)


@dataclass
class World:
    """Requests at a constant rate, of which each side fails a share."""

    seed: int
    gate: SplitGate = field(default_factory=SplitGate)
    shares: Shares = TENTH
    rate: float = 50.0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.choice = random.Random(self.seed)  # noqa: S311
        clock = lambda: self.now  # noqa: E731
        self.split = Split("m", self.gate, self.shares, clock=clock, seed=self.seed)

    def run(
        self,
        requests: int,
        errors: tuple[float, float] = (0.0, 0.0),
        times: tuple[Latency, Latency] = (usual, usual),
        apart: float = 0.0,
    ) -> int | None:
        """How many requests the new side had answered or compared when it was rolled back."""
        asked = 0
        for _ in range(requests):
            self.now += 1 / self.rate
            choice = self.split.choose()
            new = choice.side == "new"
            failed = self.choice.random() < errors[new]
            seconds = times[new](self.choice)
            self.split.answered(choice.side, "failed" if failed else "ok", seconds)
            if choice.copy:
                self.split.compared(5.0 if self.choice.random() < apart else 0.1)
            asked += new or choice.copy
            if self.split.rolled_back:
                return asked
        return None


# --- who answers


def test_one_id_has_one_side_on_every_gate_and_the_shares_are_kept() -> None:
    one, other = (World(seed, shares=Shares(0.3, 0.2)).split for seed in (1, 2))
    ids = [f"request-{n}" for n in range(5000)]
    choices = [one.choose(each) for each in ids]
    assert choices == [other.choose(each) for each in ids]
    assert sum(c.side == "new" for c in choices) / 5000 == pytest.approx(0.3, abs=0.02)
    assert sum(c.copy for c in choices) / 5000 == pytest.approx(0.2, abs=0.02)
    both = sum(c.copy and c.side == "new" for c in choices) / 5000
    assert both == pytest.approx(0.06, abs=0.015)  # the two are independent


def test_without_an_id_the_shares_are_kept_too_and_a_seed_repeats_them() -> None:
    one, other = (World(7, shares=Shares(0.3, 0.0)).split for _ in range(2))
    sides = [one.choose().side for _ in range(5000)]
    assert sides == [other.choose().side for _ in range(5000)]
    assert sides.count("new") / 5000 == pytest.approx(0.3, abs=0.02)


def test_who_had_the_new_side_keeps_it_when_the_weight_grows() -> None:
    split = World(1).split
    before = {n for n in range(2000) if split.choose(f"id{n}").side == "new"}
    split.change(HotSplit(weight=0.4))
    after = {n for n in range(2000) if split.choose(f"id{n}").side == "new"}
    assert before < after


@pytest.mark.parametrize(("weight", "side"), [(0.0, "stable"), (1.0, "new")])
def test_a_weight_of_none_and_of_all_have_no_exception(weight: float, side: str) -> None:
    split = World(1, shares=Shares(weight, 0.0)).split
    assert {split.choose(f"id{n}").side for n in range(1000)} == {side}
    assert {split.choose().side for _ in range(1000)} == {side}


def test_two_models_put_an_id_on_different_sides() -> None:
    gate, shares = SplitGate(), Shares(0.5, 0.0)
    one, other = (Split(name, gate, shares, clock=time.monotonic) for name in ("a", "b"))
    same = sum(one.choose(f"{n}").side == other.choose(f"{n}").side for n in range(1000))
    assert 400 < same < 600


# --- no false alarm


@pytest.mark.parametrize("errors", [0.0, 0.02, 0.3])
def test_an_equal_artifact_is_not_rolled_back(errors: float) -> None:
    gate = SplitGate(parity=ParityGate(max_share=0.05))
    for seed in range(40):
        world = World(seed, gate, Shares(0.2, 0.2))
        assert world.run(3000, (errors, errors), apart=0.05) is None, world.split.rolled_back


def test_an_equal_artifact_without_any_allowance_is_rolled_back_as_rarely_as_is_told() -> None:
    gate = SplitGate(max_error_rate=0, max_latency_ratio=1, min_requests=5)
    alarms = sum(
        World(seed, gate, Shares(0.5, 0.0)).run(600, (0.1, 0.1)) is not None for seed in range(200)
    )
    assert alarms <= 200 * RISK + 3


def test_refusals_neither_roll_back_nor_hide_failures() -> None:
    split = World(1).split
    for _ in range(1000):
        split.answered("new", "refused", 0.001)
    assert split.rolled_back is None
    assert split.to_json()["counts"]["new"] == {"refused": 1000}
    for _ in range(20):
        split.answered("new", "failed", 0.01)
    assert split.rolled_back is not None
    assert split.rolled_back.why.startswith("20 of 20 requests failed")


def test_the_time_of_a_failure_is_not_judged() -> None:
    world = World(1, SplitGate(max_error_rate=None))
    slow: Latency = lambda _: 30.0  # noqa: E731
    assert world.run(2000, (0.0, 1.0), (usual, slow)) is None


def test_an_outage_of_both_is_not_the_new_one_s_fault() -> None:
    assert World(1).run(2000, (1.0, 1.0)) is None


# --- the real thing is found soon


@pytest.mark.parametrize(("share", "within"), [(1.0, 20), (0.5, 40), (0.2, 200), (0.1, 500)])
def test_an_artifact_that_fails_is_rolled_back_soon(share: float, within: int) -> None:
    for seed in range(15):
        world = World(seed, rate=500)
        asked = world.run(10 * 2 * within, (0.0, share))
        assert asked is not None
        assert asked <= within
        assert world.split.rolled_back is not None
        assert world.split.rolled_back.rule == "error_rate"
        assert "failed" in world.split.rolled_back.why


@pytest.mark.parametrize(("factor", "within"), [(10.0, 40), (3.0, 100), (2.2, 400)])
def test_a_slow_artifact_is_rolled_back_soon(factor: float, within: int) -> None:
    for seed in range(15):
        world = World(seed, rate=500)
        slow: Latency = lambda choice: factor * usual(choice)  # noqa: E731
        asked = world.run(10 * 2 * within, times=(usual, slow))
        assert asked is not None
        assert asked <= within
        assert world.split.rolled_back is not None
        assert world.split.rolled_back.rule == "latency"


def test_an_artifact_that_is_slower_within_the_ratio_stays() -> None:
    slower: Latency = lambda choice: 1.3 * usual(choice)  # noqa: E731
    for seed in range(10):
        assert World(seed).run(5000, times=(usual, slower)) is None


def test_a_rare_slowness_is_found_by_a_high_quantile_alone() -> None:
    tail: Latency = lambda c: usual(c) * (20 if c.random() < 0.3 else 1)  # noqa: E731
    high, median = SplitGate(latency_quantile=0.9), SplitGate(latency_quantile=0.5)
    assert World(1, high).run(5000, times=(usual, tail)) is not None
    assert World(1, median).run(5000, times=(usual, tail)) is None


@pytest.mark.parametrize(("share", "within"), [(1.0, 20), (0.3, 80), (0.15, 400)])
def test_an_artifact_with_other_answers_is_rolled_back_soon(share: float, within: int) -> None:
    gate = SplitGate(parity=ParityGate(max_share=0.05))
    for seed in range(15):
        world = World(seed, gate, Shares(0.0, 0.2))
        asked = world.run(5 * 2 * within, apart=share)
        assert asked is not None
        assert asked <= within
        assert world.split.rolled_back is not None
        assert world.split.rolled_back.rule == "parity"


def test_a_distance_that_is_no_number_disagrees() -> None:
    gate = SplitGate(parity=ParityGate())
    split = World(1, gate).split
    for _ in range(20):
        split.compared(float("nan"))
    assert split.rolled_back is not None


def test_an_artifact_that_answers_alone_is_held_to_the_rate_itself() -> None:
    assert World(1, shares=Shares(1.0, 0.0)).run(200, (0.0, 0.6)) is not None
    assert World(1, shares=Shares(1.0, 0.0)).run(5000, (0.0, 0.005)) is None


@pytest.mark.parametrize(
    "gate", [SplitGate(max_error_rate=None, max_latency_ratio=None), SplitGate(parity=None)]
)
def test_what_has_no_gate_is_not_judged(gate: SplitGate) -> None:
    world = World(1, gate, Shares(0.1, 0.5))
    slow: Latency = lambda _: 5.0  # noqa: E731
    judged = gate.max_error_rate is not None
    found = world.run(2000, (0, 0 if judged else 1), (usual, usual if judged else slow), apart=1.0)
    assert found is None


# --- what counts, and for how long


def test_what_is_older_than_the_window_does_not_count() -> None:
    gate = SplitGate(window_s=10, min_requests=20)
    world = World(1, gate)
    for _ in range(19):
        world.split.answered("new", "failed", 0.01)
    world.now = 11.0
    for _ in range(1000):
        world.split.answered("stable", "ok", 0.01)
    world.split.answered("new", "ok", 0.01)
    assert world.split.rolled_back is None


def test_a_good_past_does_not_hide_a_break() -> None:
    world = World(3, rate=500)
    assert world.run(40_000) is None
    asked = world.run(8000, (0.0, 1.0))
    assert asked is not None
    assert asked <= 150


def test_a_judgement_of_full_windows_takes_milliseconds() -> None:
    world = World(1)
    for _ in range(MOST):
        world.split.answered("stable", "ok", usual(world.choice))
    began = time.process_time()
    for _ in range(20 * 20):
        world.split.answered("new", "ok", usual(world.choice))
    assert (time.process_time() - began) / 20 < 0.02


# --- afterwards


def broken() -> World:
    world = World(1, shares=Shares(0.5, 0.2))
    assert world.run(1000, (0.0, 1.0)) is not None
    return world


def test_once_rolled_back_the_stable_one_answers_all_and_the_reason_is_told() -> None:
    world = broken()
    assert {world.split.choose(f"{n}").side for n in range(200)} == {"stable"}
    assert not any(world.split.choose(f"{n}").copy for n in range(200))
    world.now += 7
    told = world.split.to_json()
    assert (told["state"], told["weight"], told["sample"]) == ("rolled_back", 0.0, 0.0)
    assert told["reason"]["rule"] == "error_rate"
    assert told["reason"]["figures"]["new"] == 1.0
    assert told["reason"]["seconds_ago"] == 7.0
    assert told["counts"]["new"]["failed"] >= 20


def test_late_outcomes_do_not_change_the_reason() -> None:
    world = broken()
    reason = world.split.rolled_back
    for _ in range(100):
        world.split.answered("new", "failed", 9.0)
        world.split.compared(9.0)
    assert world.split.rolled_back is reason


def test_other_shares_begin_anew_and_the_same_change_nothing() -> None:
    world = broken()
    world.split.change(HotSplit())
    world.split.change(HotSplit(weight=0.5))
    assert world.split.rolled_back is not None
    world.split.change(HotSplit(weight=0.25))
    assert world.split.rolled_back is None
    assert (world.split.weight, world.split.sample) == (0.25, 0.2)
    assert world.run(2000) is None
    world.split.change(HotSplit())
    assert world.split.weight == 0.5


def test_the_state_is_json() -> None:

    assert "rolled_back" in json.dumps(broken().split.to_json(), allow_nan=False)
