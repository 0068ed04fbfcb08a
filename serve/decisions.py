"""The last decisions of the batching law, each with the figures that it was made from."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from serve.law import Cut, Decision, Hold, Idle, Shed, Why

__all__ = ["KEPT", "DecisionLog", "figures"]

KEPT = 1000
"""Decisions kept; older ones are forgotten."""

Entry = tuple[float, Cut | Hold | Shed]


class DecisionLog:
    """A bounded list of decisions: cheap to add to, turned into JSON when somebody asks.

    An idle engine's "nothing waits" is no entry, and an item that is let in is told of by the
    batch that it rides in, or by what turned it away later.

    Args:
        clock: the clock whose times are added, seconds.
        wall: seconds since 1970.
        kept: how many decisions.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
        kept: int = KEPT,
    ) -> None:
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._to_wall = wall() - clock()

    def add(self, now: float, decision: Decision | Shed) -> None:
        """Take in a decision, and those to turn items away that came with it."""
        if isinstance(decision, Shed):
            self._entries.append((now, decision))
            return
        self._entries.extend((now, shed) for shed in decision.dropped)
        if not isinstance(decision, Idle):
            self._entries.append((now, decision))

    def to_json(self) -> list[dict[str, Any]]:
        """The decisions as JSON values, the newest first.

        Each has ``at`` (UTC, ISO 8601), ``type`` (``cut``, ``hold`` or ``shed``), ``rule``, ``why``
        in words, and the figures behind it: ``waiting`` and ``size`` in items, ``demand`` and
        ``rate`` in items per second, ``..._ms`` in milliseconds. What played no part is left out.
        """
        return [self._json(now, decision) for now, decision in reversed(self._entries)]

    def _json(self, now: float, decision: Cut | Hold | Shed) -> dict[str, Any]:
        at = datetime.fromtimestamp(now + self._to_wall, UTC).isoformat(timespec="microseconds")
        about = {"at": at, "type": type(decision).__name__.lower(), **figures(decision.why)}
        if isinstance(decision, Shed):
            about["waited_ms"] = _ms(now - decision.ticket.arrived)
            about["retry_after_s"] = round(decision.retry_after_s, 3)
        if isinstance(decision, Hold):
            about["until_ms"] = _ms(decision.until - now)
        return about


def figures(why: Why) -> dict[str, Any]:
    """The rule, its sentence and its figures, as ``DecisionLog.to_json`` has them."""
    found: dict[str, Any] = {
        "rule": why.rule,
        "why": str(why),
        "waiting": why.waiting,
        "size": why.size,
        "predicted_ms": _ms(why.predicted_s),
        "slack_ms": _ms(why.slack_s),
        "correction": _short(why.correction),
        "demand": _short(why.demand),
        "rate": _short(why.rate),
    }
    if why.wait:
        waited = asdict(why.wait)
        found["chance"] = _short(waited.pop("chance"))
        found |= {f"wait_{name}_ms": _ms(value) for name, value in waited.items()}
    return {name: value for name, value in found.items() if value is not None}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
