"""What is played: engine, traffic and SLO of every scenario."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from simulator import Closed, Engine, Open, Traffic

from serve.law import Curve, capacity

__all__ = ["BASE", "BUCKETS", "SCENARIOS", "SLO_S", "Scenario"]

SLO_S = 0.050
THINK_S = 0.0003
"""Mean time of a closed loop's client between an answer and its next request: a loopback hop."""

BURST_S = 0.1

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
BASE = Curve(_SIZES, tuple(4 + 0.25 * size for size in _SIZES))
"""L(b) = 4 ms + 0.25 ms per item, for every size up to 128."""
BUCKETS = Curve((1, 4, 16, 64), tuple(4 + 0.25 * size for size in (1, 4, 16, 64)), fixed=True)
"""The same engine in fixed sizes: a batch is padded up to the next."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table."""

    name: str
    curve: Curve
    traffic: Callable[[float], Traffic]
    """Given the run's length in seconds, warm-up included."""
    slower: float = 1.0
    """The engine's time is multiplied by this from the middle of the run on."""

    @property
    def capacity(self) -> float:
        """Items per second, as ``serve.law.capacity`` defines it."""
        return capacity(self.curve, SLO_S)

    def engine(self, length: float) -> Engine:
        """The engine of a run."""
        return Engine(self.curve.seconds, slower=self.slower, at=length / 2)


def _steady(share: float, curve: Curve = BASE, timeouts: tuple[float, ...] = (SLO_S,)) -> Scenario:
    rate = share * capacity(curve, SLO_S)
    name = "steady" if curve is BASE else "fixed buckets 1/4/16/64"
    name = name if len(timeouts) == 1 else "deadlines of 25 and 100 ms"
    return Scenario(f"{name}, {share:.0%}", curve, lambda _: Open(lambda _: rate, rate, timeouts))


def _bursts() -> Scenario:
    """A square wave: 180 % of capacity for ``BURST_S``, then 20 % for 0.3 s; mean 60 %."""
    full = capacity(BASE, SLO_S)

    def rate(now: float) -> float:
        return full * (1.8 if now % 0.4 < BURST_S else 0.2)

    return Scenario("bursts, mean 60 %", BASE, lambda _: Open(rate, 1.8 * full, (SLO_S,)))


def _ramp() -> Scenario:
    """From 20 % of capacity up to 160 % in the middle of the run, and back."""
    full = capacity(BASE, SLO_S)

    def traffic(length: float) -> Traffic:
        def rate(now: float) -> float:
            return full * (0.2 + 1.4 * (1 - abs(2 * now / length - 1)))

        return Open(rate, 1.6 * full, (SLO_S,))

    return Scenario("ramp, 20 % to 160 % and back", BASE, traffic)


def _slower(share: float) -> Scenario:
    plain = _steady(share)
    name = f"engine 1.6 times slower from mid-run, {share:.0%}"
    return Scenario(name, BASE, plain.traffic, slower=1.6)


def _closed(clients: int) -> Scenario:
    name = f"closed loop, {clients} client{'s' * (clients > 1)}"
    return Scenario(name, BASE, lambda _: Closed(clients, SLO_S, THINK_S))


SCENARIOS = (
    *(_steady(share) for share in (0.30, 0.80, 0.97, 1.20, 2.00)),
    _bursts(),
    _ramp(),
    *(_steady(share, timeouts=(0.025, 0.100)) for share in (0.60, 0.90)),
    *(_slower(share) for share in (0.60, 0.90)),
    *(_steady(share, BUCKETS) for share in (0.60, 0.90, 1.20)),
    *(_closed(clients) for clients in (1, 8, 64)),
)

assert math.isclose(capacity(BASE, SLO_S), 3360)  # noqa: S101 - the figure that the table states
