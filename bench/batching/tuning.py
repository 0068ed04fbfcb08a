"""The players, and the grids that the rivals' knobs are chosen from, per scenario."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace

from cork import CORK, CorkKnobs, simulate_cork
from ray_queue import RayKnobs, simulate_ray
from rivals import Clipper, ClipperKnobs, Greedy, GreedyKnobs, NoKnobs, Ours, Triton, TritonKnobs
from scenarios import SLO_S, Scenario
from simulator import Batcher, Length, Outcome, simulate

__all__ = ["OURS", "PLAYERS", "RAY", "Knobs", "play", "tune"]

TUNING_SEEDS = (1000, 1001, 1002)
"""The knobs are chosen on these; the table's seeds start at 1."""
OURS = "deployc"
RAY = "Ray `_BatchQueue`"

Knobs = NoKnobs | GreedyKnobs | TritonKnobs | ClipperKnobs | RayKnobs | CorkKnobs
Grid = Callable[[Scenario, Knobs], Iterable[Knobs]]
"""Settings to try, from the best one so far."""


def play(knobs: Knobs, scenario: Scenario, seed: int, length: Length) -> Outcome:
    """One run."""
    engine, traffic = scenario.engine(length.whole), scenario.traffic(length.whole)
    if isinstance(knobs, RayKnobs):
        return simulate_ray(knobs, engine, traffic, length, seed)
    if isinstance(knobs, CorkKnobs):
        return simulate_cork(knobs, engine, traffic, length, seed)
    return simulate(_batcher(knobs, scenario), engine, traffic, length, seed)


def tune(player: str, scenario: Scenario, length: Length) -> Knobs:
    """The setting with the most answers in time on the tuning seeds; of equals, the first."""
    short = Length(length.warm_up, length.seconds / 2)

    def score(knobs: Knobs) -> float:
        return sum(play(knobs, scenario, seed, short).goodput for seed in TUNING_SEEDS)

    best: Knobs = NoKnobs()
    for grid in PLAYERS[player]:
        tried = list(dict.fromkeys(grid(scenario, best)))
        if len(tried) == 1:
            best = tried[0]
            continue
        best = max(tried, key=score)
    return best


def _batcher(knobs: Knobs, scenario: Scenario) -> Batcher:
    if isinstance(knobs, TritonKnobs):
        return Triton(knobs)
    if isinstance(knobs, ClipperKnobs):
        return Clipper(knobs, SLO_S, scenario.curve.max_batch)
    if isinstance(knobs, GreedyKnobs):
        return Greedy(knobs)
    return Ours(scenario.curve, SLO_S)


def _sizes(scenario: Scenario, *sizes: int) -> list[int]:
    """Those that the engine takes, and its largest; all of them where it takes only a few."""
    if scenario.curve.fixed:
        return list(scenario.curve.sizes)
    most = scenario.curve.max_batch
    return [*(size for size in sizes if size < most), most]


def _greedy(scenario: Scenario, _: Knobs) -> Iterable[Knobs]:
    return map(GreedyKnobs, _sizes(scenario, 4, 8, 16, 32, 64, 84, 92))


def _triton_bounds(scenario: Scenario, _: Knobs) -> Iterable[Knobs]:
    shares = (None, 0.3, 0.4, 0.45, 0.5, 0.6)
    for size, share in itertools.product(_sizes(scenario, 8, 16, 34, 64, 84, 92, 108), shares):
        yield TritonKnobs(size, timeout=share)
    delays = (0.001, 0.002, 0.004, 0.008)
    for size, delay in itertools.product(_sizes(scenario, 4, 8, 16, 60, 64), delays):
        yield TritonKnobs(size, delay=delay)


def _triton_details(scenario: Scenario, best: Knobs) -> Iterable[Knobs]:
    if not isinstance(best, TritonKnobs):
        return
    for levels, delay in itertools.product((False, True), (best.delay, 0.0, 0.001, 0.003)):
        yield replace(best, levels=levels, delay=delay)
    for preferred in ((8,), (4, 16, 64), (16, 32, 64), (64,)):
        if preferred[-1] <= best.max_batch:
            yield replace(best, preferred=preferred, delay=max(best.delay, 0.002))
    if best.timeout:
        yield replace(best, timeout=best.timeout - 0.05)
        yield replace(best, timeout=best.timeout + 0.05)
    for size in (best.max_batch - 4, best.max_batch + 4):
        if 0 < size <= scenario.curve.max_batch:
            yield replace(best, max_batch=size)


def _clipper(_: Scenario, __: Knobs) -> Iterable[Knobs]:
    targets, delays = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), (0.0, 0.002, 0.008)
    for target, step, back_off, delay in itertools.product(targets, (1, 4), (0.9, 0.6), delays):
        yield ClipperKnobs(target, step, back_off, delay)


def _ray(scenario: Scenario, _: Knobs) -> Iterable[Knobs]:
    sizes, waits = _sizes(scenario, 8, 34, 64, 92), (0.0, 0.010, 0.020)
    for size, wait in itertools.product(sizes, waits):
        yield RayKnobs(size, wait)
        if size >= 16:  # noqa: PLR2004 - a bound near a small batch leaves no queue at all
            yield RayKnobs(size, wait, ongoing=2 * size)


def _ray_details(_: Scenario, best: Knobs) -> Iterable[Knobs]:
    if not isinstance(best, RayKnobs):
        return
    yield best
    for wait in (0.5 * best.wait, 2 * best.wait):
        yield replace(best, wait=wait)
    if best.ongoing:
        for share in (1.4, 1.6, 1.8, 2.3):
            yield replace(best, ongoing=round(share * best.max_batch))


def _cork(scenario: Scenario, _: Knobs) -> Iterable[Knobs]:
    sizes, latencies = _sizes(scenario, 8, 34, 64, 84, 92), (20, 30, 40, 45, 50, 60, 100)
    return itertools.starmap(CorkKnobs, itertools.product(sizes, latencies))


def _cork_details(scenario: Scenario, best: Knobs) -> Iterable[Knobs]:
    if not isinstance(best, CorkKnobs):
        return
    yield best
    for more in (-4, -2, 2, 4):
        yield replace(best, latency_ms=best.latency_ms + more)
    for size in () if scenario.curve.fixed else (best.max_batch - 4, best.max_batch + 4):
        if 0 < size <= scenario.curve.max_batch:
            yield replace(best, max_batch=size)
    for share in (1.6, 2.0, 2.4):
        yield replace(best, ongoing=max(8, round(share * best.max_batch)))


PLAYERS: dict[str, tuple[Grid, ...]] = {
    OURS: (lambda _, __: (NoKnobs(),),),
    "greedy": (_greedy,),
    RAY: (_ray, _ray_details),
    CORK: (_cork, _cork_details),
    "Triton-style": (_triton_bounds, _triton_details),
    "Clipper AIMD": (_clipper,),
}
"""The grids of every player, one after the other."""
