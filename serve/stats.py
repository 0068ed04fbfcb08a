"""What a replica has done so far: counts and sums, cheap enough for every request."""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from serve.decisions import DecisionLog
from serve.law import Decision, Law, Shed

__all__ = ["STAGES", "Observer", "Stage", "Stats", "corrections"]

Stage = Literal["pre", "queue", "engine", "post"]
STAGES: tuple[Stage, ...] = get_args(Stage)
RATIO = 1.1
"""Of the ends of neighbouring buckets of the latency histogram: a quantile is within 5 %."""
LEAST_MS = 0.01


class Observer:
    """Is told of the same events as they happen, to pass them on; here, to nobody."""

    def request(self, outcome: str, *, late: bool) -> None:
        """A request was answered: ``ok`` or an error's code; ``late``: past its deadline."""

    def stage(self, stage: Stage, seconds: float) -> None:
        """A request spent so long there; of several items, the slowest."""

    def batch(self, size: int) -> None:
        """The engine ran a batch."""

    def shed(self, rule: str) -> None:
        """An item was turned away."""


@dataclass(slots=True)
class _Sum:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "seconds": round(self.seconds, 6)}


def _stage_sums() -> dict[Stage, _Sum]:
    return {stage: _Sum() for stage in STAGES}


@dataclass(slots=True)
class Stats:
    """Counts since the replica started; a ``serve.batching.Watcher``.

    Args:
        log: keeps the decisions.
        observer: is told of everything, too.
    """

    log: DecisionLog = field(default_factory=DecisionLog)
    observer: Observer = field(default_factory=Observer)
    requests: Counter[str] = field(default_factory=Counter[str])
    sheds: Counter[str] = field(default_factory=Counter[str])
    late: int = 0
    stages: dict[Stage, _Sum] = field(default_factory=_stage_sums)
    batches: dict[int, _Sum] = field(default_factory=dict[int, _Sum])
    latency: Counter[int] = field(default_factory=Counter[int])
    """Requests that were answered well, by bucket; ``i`` has those of up to ``RATIO ** i`` ms."""
    replica: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    """Tells the counts of one replica from those of another, and of its successor."""
    last: float = 0.0
    """When a request was last answered, seconds since 1970; 0: never."""

    def request(self, outcome: str, seconds: float, *, late: bool = False) -> None:
        """A request was answered after so long: ``ok`` or an error's code."""
        self.requests[outcome] += 1
        if outcome == "ok":
            self.latency[_bucket(seconds)] += 1
        self.late += late
        self.last = time.time()
        self.observer.request(outcome, late=late)

    def stage(self, stage: Stage, seconds: float) -> None:
        """A request spent so long there."""
        self.stages[stage].add(seconds)
        self.observer.stage(stage, seconds)

    def decided(self, now: float, decision: Decision | Shed) -> None:
        """The law decided."""
        self.log.add(now, decision)
        for shed in (decision,) if isinstance(decision, Shed) else decision.dropped:
            self.sheds[shed.why.rule] += 1
            self.observer.shed(shed.why.rule)

    def computed(self, size: int, seconds: float) -> None:
        """The engine ran a batch."""
        self.batches.setdefault(size, _Sum()).add(seconds)
        self.observer.batch(size)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values.

        ``requests`` by outcome, ``sheds`` by rule, ``late``; ``stages`` with how many requests
        went through and their seconds, ``batches`` with how many of a size ran and the engine's
        seconds; ``items`` that were computed; ``latency`` of good answers: ``counts`` by bucket,
        where bucket i holds times up to ``ratio ** i`` milliseconds; ``last`` (seconds since 1970,
        or None); ``replica``, which counted all this.
        """
        return {
            "requests": dict(self.requests),
            "late": self.late,
            "sheds": dict(self.sheds),
            "stages": {stage: each.to_json() for stage, each in self.stages.items()},
            "batches": {str(size): each.to_json() for size, each in sorted(self.batches.items())},
            "items": sum(size * each.count for size, each in self.batches.items()),
            "latency": {"ratio": RATIO, "counts": _by_bucket(self.latency)},
            "last": self.last or None,
            "replica": self.replica,
        }


def _bucket(seconds: float) -> int:
    return math.ceil(math.log(max(1000 * seconds, LEAST_MS)) / math.log(RATIO))


def _by_bucket(counts: Counter[int]) -> dict[str, int]:
    return {str(bucket): counts[bucket] for bucket in sorted(counts)}


def corrections(law: Law) -> dict[str, float]:
    """Factors that the curve's times are multiplied by, by the size that a bucket ends with."""
    sizes = [size for size in law.forecast.curve.sizes if size <= law.forecast.max_batch]
    return {str(size): round(law.forecast.ratio(size), 4) for size in sizes}
