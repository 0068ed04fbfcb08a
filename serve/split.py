"""Two artifacts of one model: which one answers a request, and when the new one is taken back.

A pure class, with the clock passed in: no Ray, no event loop.

**When it is taken back.** After every ``gate.min_requests`` outcomes of the new artifact those of
the last ``gate.window_s`` seconds are judged, at most ``MOST`` of each artifact:

- error rate: the lower bound of the new one's share of failures is above the upper bound of the
  stable one's, plus ``gate.max_error_rate``. Where the stable one answers nobody, its share counts
  as 0;
- latency: the lower bound of the share of the new one's answers that took longer than
  ``gate.max_latency_ratio`` times the upper bound of the stable one's quantile is above what the
  quantile leaves over. Of failures the time is not judged;
- parity: the lower bound of the share of compared answers that disagree is above ``max_share``.

Each bound (``serve.bounds``) holds for few outcomes, too. A rule that is asked again and again is
wrong at some time: at its k-th question each of its bounds is let be wrong with the probability
``RISK / 3 / 2 * 6 / (pi * k)**2``, whose sum over all questions and bounds of all three rules is
``RISK`` (the union bound). So a new artifact that is no worse than its gate is taken back with
the probability ``RISK`` at most, however long it runs, where outcomes are independent.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from serve.args import HotSplit, SplitGate
from serve.bounds import lower, quantile_upper, upper

__all__ = ["MOST", "RISK", "Choice", "Outcome", "RolledBack", "Shares", "Side", "Split"]

Side = Literal["stable", "new"]
Outcome = Literal["ok", "failed", "refused"]
"""``failed``: 429 or 5xx. ``refused``: the request was at fault; not judged, since a client could
otherwise take an artifact back."""
RISK = 0.01
"""Probability that an artifact that keeps to its gate is ever taken back."""
RULES = 3
BOUNDS = 2
"""Bounds in a rule, at most."""
MOST = 2048
"""Outcomes that are kept of each artifact: a judgement takes less than a millisecond."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of all requests, from 0 to 1."""

    weight: float
    """Those that the new artifact answers."""
    sample: float
    """Those that both get."""

    def but(self, hot: HotSplit) -> Shares:
        """These, with what ``hot`` sets."""
        weight = self.weight if hot.weight is None else hot.weight
        return Shares(weight, self.sample if hot.sample is None else hot.sample)


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers a request."""

    side: Side
    copy: bool
    """Whether the other one is to be asked, too, for comparison."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Why the new artifact answers nobody any more."""

    rule: Literal["error_rate", "latency", "parity"]
    why: str
    figures: dict[str, float]
    at: float
    """The clock's time."""


@dataclass(slots=True)
class _Recent:
    """Outcomes of one kind with their times: what was bad, and how long it took."""

    window_s: float
    items: deque[tuple[float, bool, float]] = field(
        default_factory=lambda: deque[tuple[float, bool, float]](maxlen=MOST)
    )

    def add(self, now: float, seconds: float, *, bad: bool) -> None:
        self.items.append((now, bad, seconds))

    def forget(self, now: float) -> None:
        while self.items and self.items[0][0] < now - self.window_s:
            self.items.popleft()

    @property
    def bad(self) -> int:
        return sum(bad for _, bad, _ in self.items)

    @property
    def good_seconds(self) -> list[float]:
        """Ascending."""
        return sorted(seconds for _, bad, seconds in self.items if not bad)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(slots=True)
class _Questions:
    """When to judge, and how sure to be."""

    every: int
    since: int = 0
    asked: int = 0

    def due(self) -> float | None:
        """One more outcome came; nats of surety where it is time to judge."""
        self.since += 1
        if self.since < self.every:
            return None
        self.since = 0
        self.asked += 1
        return math.log(RULES * BOUNDS * (math.pi * self.asked) ** 2 / 6 / RISK)


class Split:
    """The traffic between a stable artifact and a new one.

    Args:
        name: the model's; two models put one request id on different sides.
        gate: what rolls back.
        shares: to begin with.
        clock: seconds, monotonic.
        seed: of the choice for requests without an id.
    """

    def __init__(
        self,
        name: str,
        gate: SplitGate,
        shares: Shares,
        *,
        clock: Callable[[], float],
        seed: int | None = None,
    ) -> None:
        self._name = name
        self._gate = gate
        self._asked = shares
        self._shares = shares
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - no secret depends on it
        self._counts: dict[Side, Counter[str]] = {"stable": Counter(), "new": Counter()}
        self._compared: Counter[str] = Counter()
        self._begin()

    def _begin(self) -> None:
        """Judge from here on; what came before does not count."""
        gate = self._gate
        self.rolled_back: RolledBack | None = None
        self._recent: dict[Side, _Recent] = {
            "stable": _Recent(gate.window_s),
            "new": _Recent(gate.window_s),
        }
        self._pairs = _Recent(gate.window_s)
        self._questions = _Questions(gate.min_requests)
        self._comparisons = _Questions(gate.min_requests)

    @property
    def weight(self) -> float:
        """Share of requests that the new artifact answers; 0 once it was rolled back."""
        return 0.0 if self.rolled_back else self._shares.weight

    @property
    def sample(self) -> float:
        """Share of requests that both get; 0 once it was rolled back."""
        return 0.0 if self.rolled_back else self._shares.sample

    def change(self, hot: HotSplit) -> None:
        """Take other shares; what ``hot`` leaves out is as at the beginning.

        Shares that are the present ones change nothing; others start a split that was rolled
        back anew.
        """
        shares = self._asked.but(hot)
        if shares != self._shares:
            self._shares = shares
            self._begin()

    def choose(self, request_id: str = "") -> Choice:
        """Who answers: for one id always the same, also on other gates.

        An id that the new artifact answers stays with it when the weight grows.
        """
        answers, copied = self._places(request_id)
        return Choice("new" if answers < self.weight else "stable", copied < self.sample)

    def _places(self, request_id: str) -> tuple[float, float]:
        """Two numbers in [0, 1), the same for the same id."""
        if not request_id:
            return self._random.random(), self._random.random()
        key = self._name.encode()[:64]
        found = hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=16, key=key)
        digest = found.digest()
        scale = 2.0**53
        first, second = (int.from_bytes(part, "big") >> 11 for part in (digest[:8], digest[8:]))
        return first / scale, second / scale

    def answered(self, side: Side, outcome: Outcome, seconds: float) -> None:
        """An artifact answered.

        Args:
            side: which.
            outcome: how.
            seconds: how long it took.
        """
        self._counts[side][outcome] += 1
        if outcome == "refused" or self.rolled_back:
            return
        self._recent[side].add(self._clock(), seconds, bad=outcome == "failed")
        nats = self._questions.due() if side == "new" else None
        if nats is not None:
            self._forget()
            self._judge_errors(nats)
            self._judge_latency(nats)

    def compared(self, distance: float) -> None:
        """Both answered one request.

        Args:
            distance: of their answers, in units of the gate's tolerance; above 1 they disagree.
        """
        apart = not distance <= 1  # NaN, too
        self._compared["disagree" if apart else "agree"] += 1
        if self.rolled_back:
            return
        self._pairs.add(self._clock(), 0.0, bad=apart)
        nats = self._comparisons.due()
        if nats is not None:
            self._forget()
            self._judge_parity(nats)

    def dropped(self) -> None:
        """A copy was not sent, or not answered for want of room: it tells nothing."""
        self._compared["dropped"] += 1

    def _forget(self) -> None:
        now = self._clock()
        for recent in (*self._recent.values(), self._pairs):
            recent.forget(now)

    def _judge_errors(self, nats: float) -> None:
        new, stable, most = self._recent["new"], self._recent["stable"], self._gate.max_error_rate
        if most is None:
            return
        least = lower(new.bad, len(new), nats)
        allowed = upper(stable.bad, len(stable), nats) if len(stable) else 0.0
        if least <= allowed + most:
            return
        why = (
            f"{new.bad} of {len(new)} requests failed, at least {least:.1%} for sure; "
            f"on the stable artifact {stable.bad} of {len(stable)}, at most {allowed:.1%}"
        )
        figures = {"new": new.bad / len(new), "new_at_least": least, "stable_at_most": allowed}
        self._roll_back("error_rate", why, figures)

    def _judge_latency(self, nats: float) -> None:
        ratio, quantile = self._gate.max_latency_ratio, self._gate.latency_quantile
        if ratio is None or self.rolled_back:
            return
        new, stable = self._recent["new"].good_seconds, self._recent["stable"].good_seconds
        bound = ratio * quantile_upper(stable, quantile, nats)
        slow = sum(seconds > bound for seconds in new)
        if lower(slow, len(new), nats) <= 1 - quantile:
            return
        figures = {
            "new_ms": 1000 * new[int(quantile * len(new))],
            "stable_ms": 1000 * stable[int(quantile * len(stable))],
            "bound_ms": 1000 * bound,
        }
        why = (
            f"{slow} of {len(new)} answers took longer than {figures['bound_ms']:.3g} ms, "
            f"{ratio:g} times what the stable artifact needs for {quantile:.0%}"
        )
        self._roll_back("latency", why, figures)

    def _judge_parity(self, nats: float) -> None:
        gate, pairs = self._gate.parity, self._pairs
        if gate is None:
            return
        least = lower(pairs.bad, len(pairs), nats)
        if least <= gate.max_share:
            return
        why = (
            f"{pairs.bad} of {len(pairs)} answers disagree, at least {least:.1%} for sure; "
            f"allowed are {gate.max_share:.1%}"
        )
        figures = {"disagree": pairs.bad / len(pairs), "at_least": least}
        self._roll_back("parity", why, figures)

    def _roll_back(
        self,
        rule: Literal["error_rate", "latency", "parity"],
        why: str,
        figures: dict[str, float],
    ) -> None:
        figures = {name: round(value, 6) for name, value in figures.items()}
        self.rolled_back = RolledBack(rule, why, figures, self._clock())

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values.

        ``state`` is ``running`` or ``rolled_back``, with ``reason`` (``rule``, ``why``,
        ``figures``, ``seconds_ago``); ``counts`` by side and outcome and ``compared`` are since
        the replica started.
        """
        told = self.rolled_back
        reason = told and {
            "rule": told.rule,
            "why": told.why,
            "figures": told.figures,
            "seconds_ago": round(self._clock() - told.at, 3),
        }
        return {
            "state": "rolled_back" if told else "running",
            "reason": reason,
            "weight": self.weight,
            "sample": self.sample,
            "counts": {side: dict(counts) for side, counts in self._counts.items()},
            "compared": dict(self._compared),
            "gate": self._gate.model_dump(),
        }
