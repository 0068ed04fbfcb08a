"""Every limit of serving from one knob, the SLO, and the measured curve. Pure.

With L(b) the time of a batch of b items, and the SLO in the same unit:

========================  ======================================================================
max_batch                 the largest b with L(b) <= SLO: no answer out of a larger one is in
                          time. Below it the law chooses by the deadlines of what waits
buckets                   the measured sizes up to max_batch; each has run before readiness
capacity                  the largest b / L(b) with 2 L(b) <= SLO (``serve.law.capacity``): items
                          per second that can be answered in time for ever
max_items                 2 * capacity * SLO + max_batch: what arrives within an SLO at twice the
                          capacity, so that up to there the law itself chooses whom to turn away;
                          between ``MIN_ITEMS`` (or two batches) and ``MAX_ITEMS``
max_ongoing_requests      max_items + ``HEADROOM``
target_ongoing_requests   1.5 * b, with b the smallest batch whose b / L(b) is ``UTILISATION``
                          of the capacity. At that load batches have that size by themselves, an
                          item waits for half a batch and rides in one, 1.5 L(b), and rate times
                          time is the number present (Little's law)
========================  ======================================================================

Without an SLO: ``DEFAULT_SLO_MS``, or four times L(the largest batch) where that is longer. Without
a curve (before a replica has measured one): the artifact's largest batch, eight of them held.
What is set by hand wins, and is shown with where it was set; what follows from it, with its name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, TypeVar

from serve.law import Curve, capacity
from specs.axes import AxisRange
from specs.errors import ServeError
from specs.profile import Profile

__all__ = [
    "BY_HAND",
    "DEFAULT_SLO_MS",
    "HEADROOM",
    "Evidence",
    "Figure",
    "Limits",
    "Source",
    "Wishes",
    "derive",
    "follow",
]

T = TypeVar("T")

DEFAULT_SLO_MS = 2000.0
DEFAULT_BATCHES = 4
MIN_ITEMS = 128
"""Items that a replica holds at least: a burst costs memory, not answers."""
MAX_ITEMS = 4096
"""And at most, whatever the SLO: their inputs are in memory."""
BATCHES_HELD = 8
"""Batches that a replica holds where nothing was measured."""
HEADROOM = 64
"""Requests that Ray lets in beyond those, so that the replica itself can answer 429 and /models."""
UTILISATION = 0.8
"""Share of the capacity at which autoscaling adds replicas: below it bursts find room."""

ROUNDING = 1e-9
"""Seconds from milliseconds are off by a last digit; what is equal on paper counts as equal."""

Source = Literal[
    "profile",
    "measured at start",
    "default",
    "spec",
    "deploy.yaml",
    "user_config",
    "deployments",
    "max_batch",
    "max_items",
    "max_ongoing_requests",
]
"""``deployments``: Ray's own override in deploy.yaml. The last three: follows from that figure."""
BY_HAND: frozenset[Source] = frozenset({"spec", "deploy.yaml", "user_config", "deployments"})


@dataclass(frozen=True, slots=True)
class Figure(Generic[T]):
    """A limit, and where it comes from."""

    value: T
    source: Source

    def to_json(self) -> dict[str, Any]:
        """For ``GET /models``."""
        return {"value": self.value, "source": self.source}


def follow(value: T, name: Source, figure: Figure[int]) -> Figure[T]:
    """A figure that follows from the one called ``name``, which may have been set by hand."""
    return Figure(value, name if figure.source in BY_HAND else figure.source)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was set by hand; None: derived."""

    slo_ms: Figure[float] | None = None
    max_batch: Figure[int] | None = None
    max_items: Figure[int] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured.

    Args:
        curve: times of a batch, up to the largest that the artifact takes.
        source: where it was measured.
        least_ms: a batch of one surely takes so long: its median, or the lower end of the 95 %
            interval of its p99, since 99 % of answers must keep the SLO.
        p99_ms: the p99 of a batch of one; None where too few runs were made.
        hop_ms: what a replica needs beside the engine, which is in the curve, too.
    """

    curve: Curve
    source: Source
    least_ms: float
    p99_ms: float | None = None
    hop_ms: float = 0.0

    @classmethod
    def of_profile(cls, profile: Profile, max_batch: int) -> Evidence:
        """From the artifact."""
        curve = Curve.of(profile, max_batch)
        first = profile.of(profile.advice.form)[0]
        least = max(first.p50_ms, first.p99_ci.low)
        return cls(curve, "profile", least, first.p99_ms)

    @classmethod
    def measured(cls, curve: Curve) -> Evidence:
        """By a replica, while it warmed up."""
        return cls(curve, "measured at start", curve.ms[0])


@dataclass(frozen=True, slots=True)
class Limits:
    """What serving keeps to."""

    slo_ms: Figure[float]
    max_batch: Figure[int]
    buckets: Figure[tuple[int, ...]]
    """Batch sizes that were measured, up to the largest allowed; () before anything was."""
    max_items: Figure[int]
    """Items that one replica holds, waiting or running."""
    max_ongoing_requests: Figure[int]
    """Requests that Ray lets into a replica."""
    target_ongoing_requests: Figure[float]
    """Requests per replica that autoscaling aims at."""
    capacity: Figure[float] | None = None
    """Items per second that a replica can answer in time; None where nothing was measured."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``GET /models``: each figure with its source."""
        figures = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: each.to_json() for name, each in figures.items() if isinstance(each, Figure)}


def derive(wishes: Wishes, batch: AxisRange, evidence: Evidence | None) -> Limits:
    """All limits, by the formulas above.

    Args:
        wishes: what was set by hand.
        batch: the sizes that the artifact takes.
        evidence: what was measured, if anything.

    Raises:
        ServeError: a batch of one takes longer than the SLO (``slo_impossible``), or what was set
            by hand cannot be (``serve_args``).
    """
    _check(wishes, batch)
    slo = wishes.slo_ms or _default_slo(wishes, batch, evidence)
    if evidence and wishes.slo_ms:
        _check_possible(slo.value, evidence)
    largest = wishes.max_batch or _largest(wishes, slo.value, batch, evidence)
    if evidence is None:
        return _unmeasured(wishes, slo, largest)
    most = largest.value
    curve, source = evidence.curve, evidence.source
    rate = max(capacity(curve, slo.value / 1000), 1 / curve.seconds(1))
    items = wishes.max_items or Figure(_items(rate, slo.value, most), source)
    held = follow(items.value + HEADROOM, "max_items", items)
    sizes = tuple(size for size in curve.sizes if size < most)
    buckets = Figure((*sizes, most), source)
    target = Figure(_target(curve, most, rate), source)
    warnings = tuple(_warnings(slo, largest, evidence))
    known = Figure(round(rate, 3), source)
    return Limits(slo, largest, buckets, items, held, target, known, warnings)


def _check(wishes: Wishes, batch: AxisRange) -> None:
    asked, items = wishes.max_batch, wishes.max_items
    if asked and asked.value > batch.max:
        message = f"max_batch is {asked.value}, and the artifact was built for {batch.max}"
        hint = "raise the batch axis in the spec and build again"
        raise ServeError(message, hint=hint, code="serve_args")
    least = 2 * (asked.value if asked else 1)
    if items and items.value < least:
        name = "max_items" if items.source == "user_config" else "max_ongoing_requests"
        message = f"{name} is {items.value} for batches of {least // 2}"
        hint = f"while one batch runs the next one gathers: at least {least}"
        raise ServeError(message, hint=hint, code="serve_args")


def _check_possible(slo_ms: float, evidence: Evidence) -> None:
    if evidence.least_ms <= slo_ms:
        return
    message = (
        f"the SLO is {slo_ms:g} ms, and a batch of {evidence.curve.sizes[0]} alone takes "
        f"{evidence.least_ms:.3g} ms ({evidence.source})"
    )
    hint = (
        f"allow at least {math.ceil(2 * evidence.least_ms)} ms, which lets a request wait for one "
        "batch and ride in the next; or build for a faster engine, device or precision"
    )
    raise ServeError(message, hint=hint, code="slo_impossible")


def _default_slo(wishes: Wishes, batch: AxisRange, evidence: Evidence | None) -> Figure[float]:
    if evidence is None:
        return Figure(DEFAULT_SLO_MS, "default")
    most = wishes.max_batch.value if wishes.max_batch else batch.max
    whole = 1000 * evidence.curve.seconds(min(most, evidence.curve.max_batch))
    return Figure(max(DEFAULT_SLO_MS, DEFAULT_BATCHES * whole), "default")


def _largest(
    wishes: Wishes, slo_ms: float, batch: AxisRange, evidence: Evidence | None
) -> Figure[int]:
    most, source = batch.max, "default"
    if evidence is not None:
        curve, source = evidence.curve, evidence.source
        sizes = curve.sizes if curve.fixed else range(1, min(most, curve.max_batch) + 1)
        room = slo_ms / 1000 * (1 + ROUNDING)
        most = max((b for b in sizes if curve.seconds(b) <= room), default=sizes[0])
    if wishes.max_items and wishes.max_items.value < 2 * most:
        return Figure(max(1, wishes.max_items.value // 2), "max_items")
    return Figure(most, source)


def _items(rate: float, slo_ms: float, most: int) -> int:
    arriving = math.ceil(2 * rate * slo_ms / 1000 * (1 - ROUNDING)) + most
    return min(max(MIN_ITEMS, 2 * most, arriving), max(MAX_ITEMS, 2 * most))


def _target(curve: Curve, most: int, rate: float) -> float:
    wanted = UTILISATION * rate
    sizes = range(1, min(most, curve.max_batch) + 1)
    enough = (size for size in sizes if size / curve.seconds(size) >= wanted)
    return 1.5 * next(enough, sizes[-1])


def _unmeasured(wishes: Wishes, slo: Figure[float], largest: Figure[int]) -> Limits:
    most = largest.value
    items = wishes.max_items or Figure(max(MIN_ITEMS, BATCHES_HELD * most), "default")
    held = follow(items.value + HEADROOM, "max_items", items)
    # Ray's default target of 2 would add replicas before a batch is full.
    target = follow(float(max(2, most)), "max_batch", largest)
    return Limits(slo, largest, Figure((), "default"), items, held, target)


def _warnings(slo: Figure[float], largest: Figure[int], evidence: Evidence) -> list[str]:
    found: list[str] = []
    curve, slo_ms = evidence.curve, slo.value
    alone, whole = 1000 * curve.seconds(1), 1000 * curve.seconds(largest.value)
    if evidence.p99_ms is not None and evidence.p99_ms > slo_ms:
        found.append(f"the p99 of a batch of one is {evidence.p99_ms:.3g} ms, the SLO {slo_ms:g}")
    elif 2 * alone > slo_ms:
        found.append(
            f"a batch of one takes {alone:.3g} ms of the SLO's {slo_ms:g}: who just misses one "
            "batch cannot be answered in time"
        )
    if whole > slo_ms:
        found.append(
            f"a batch of {largest.value} ({largest.source}) takes {whole:.3g} ms, longer than "
            f"the SLO of {slo_ms:g}"
        )
    return found
