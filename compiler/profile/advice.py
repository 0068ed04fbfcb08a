"""What follows from the points: which sizes are odd, and which to serve with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from compiler.profile.sweep import GAIN, knee
from specs.profile import Advice, Flag, Form, Point, Profile

__all__ = ["advise", "explain", "flagged"]

QUEUE = 2
"""A request that just misses a batch waits for it and rides in the next one: the time of two.

Shen et al., "Nexus: A GPU Cluster Engine for Accelerating DNN-Based Video Analysis", SOSP 2019,
section 4.1: a batch may take at most half of the latency that is promised.
"""


def flagged(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points with ``slower_than_smaller`` and ``slower_than_larger`` set, by form and size."""
    ordered = sorted(points, key=lambda point: (point.form, point.batch))
    return tuple(_flagged(point, [p for p in ordered if p.form == point.form]) for point in ordered)


def _flagged(point: Point, peers: Sequence[Point]) -> Point:
    at = peers.index(point)
    flags: list[Flag] = [flag for flag in point.flags if not flag.startswith("slower_")]
    if any(_wastes(point, smaller) for smaller in peers[:at]):
        flags.append("slower_than_smaller")
    if any(_slower(point, larger) for larger in peers[at + 1 : at + 2]):
        flags.append("slower_than_larger")
    return point.model_copy(update={"flags": tuple(flags)})


def _wastes(point: Point, smaller: Point) -> bool:
    """Whether an item takes longer than in a smaller batch, by 5 % beyond what the noise allows."""
    high = smaller.p50_ci.high
    return high is not None and point.p50_ci.low / point.batch > high / smaller.batch * (1 + GAIN)


def _slower(point: Point, larger: Point) -> bool:
    """Whether the whole larger batch takes less time, beyond the noise."""
    high = larger.p50_ci.high
    return high is not None and point.p50_ci.low > high


def advise(points: Sequence[Point], slo_ms: float | None) -> Advice:
    """The sizes to serve with, chosen in the form that serving opens.

    A server that batches up to a size runs the smaller ones as well, so for the SLO these must
    hold it, too.

    Args:
        points: all points, at least one; those of the dynamic form decide where there are any.
        slo_ms: the p99 that an answer shall have, in milliseconds.
    """
    form: Form = "dynamic" if any(point.form == "dynamic" for point in points) else "fixed"
    chosen = sorted((p for p in points if p.form == form), key=lambda point: point.batch)
    best = knee({point.batch: point.rate for point in chosen})
    if slo_ms is None:
        return Advice(form=form, throughput=best)
    fits = takewhile(lambda point: point.p99_ms * QUEUE <= slo_ms, chosen)
    largest = max((point.batch for point in fits), default=None)
    return Advice(form=form, throughput=best, slo_ms=slo_ms, slo=largest)


def explain(profile: Profile) -> tuple[str, ...]:
    """The advice in sentences with the figures that it rests on."""
    return tuple(_sentences(profile))


def _sentences(profile: Profile) -> Iterator[str]:
    advice = profile.advice
    points = {point.batch: point for point in profile.of(advice.form)}
    best = points[advice.throughput]
    top = max(points.values(), key=lambda point: point.rate)
    than = "" if best is top else f"; batch {top.batch} has {_rate(top)}"
    yield f"for throughput: batch {best.batch}, {_rate(best)}{than}"
    if advice.slo_ms is not None:
        yield _slo(advice, points[advice.slo] if advice.slo else None, list(points.values()))
    yield from _fixed(profile)
    noisy = [p for p in profile.points if {"unstable", "disturbed"} & {*p.flags}]
    if noisy:
        count = f"{len(noisy)} of {len(profile.points)} points"
        yield f"{count} did not settle or were disturbed: measure on a quiet machine, or longer"
    for failure in profile.failures:
        yield f"batch {failure.batch} ({failure.form}) was not measured: {failure.message}"


def _rate(point: Point) -> str:
    return f"{point.rate:,.4g} items/s" if point.rate < 1000 else f"{point.rate:,.0f} items/s"  # noqa: PLR2004 - four digits


def _slo(advice: Advice, point: Point | None, points: Sequence[Point]) -> str:
    asked = f"for the SLO of {advice.slo_ms:g} ms"
    rule = "a request may wait for one batch and rides in the next"
    if point is not None:
        twice = f"twice its p99 (of {point.samples} runs) is {QUEUE * point.p99_ms:.3g} ms"
        return f"{asked}: batch {point.batch}, {twice} ({rule})"
    least = min(points, key=lambda each: each.p99_ms)
    found = f"the fastest is batch {least.batch} with twice {least.p99_ms:.3g} ms"
    return f"{asked}: no batch size holds it; {found} ({rule})"


def _settled(points: Iterable[Point]) -> list[Point]:
    return [point for point in points if "unstable" not in point.flags]


def _fixed(profile: Profile) -> Iterator[str]:
    """Whether a session held at one size would be faster than the dynamic one at that size."""
    dynamic = {point.batch: point for point in _settled(profile.of("dynamic"))}
    pairs = [(dynamic[p.batch], p) for p in _settled(profile.of("fixed")) if p.batch in dynamic]
    if not pairs:
        return
    free, held = min(pairs, key=lambda pair: pair[1].p50_ms / pair[0].p50_ms)
    share = held.p50_ms / free.p50_ms
    known = held.p50_ci.high is not None and held.p50_ci.high < free.p50_ci.low
    if share < 1 - GAIN and known:
        yield f"held at its size, batch {held.batch} takes {share:.2f} of the dynamic form's time"
    else:
        yield "holding the batch at one size gains no more than 5 %, or no more than the noise"
