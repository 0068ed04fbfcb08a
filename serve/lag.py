"""How long a request waited before this process came to read it.

HAProxy notes when it received a request, in the header ``x-request-start`` (``t=`` and microseconds
since 1970, as other ingresses write it). When a process is short of CPU, requests wait in its
sockets, where nobody counts the time unless it is told.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping

__all__ = ["HEADER", "NOTED", "Lag"]

HEADER = "x-request-start"
NOTED = "DEPLOYC_REQUEST_START"
"""Set to 1 by `deployc serve` where its HAProxy writes the header over whatever a client sent;
elsewhere it is not believed: a client could make everybody else's requests look old."""
MICROSECONDS = 1e6
DRIFT = 50e-6
"""Seconds per second that two machines' clocks may drift apart."""
MOST_S = 60.0
"""A request that claims to be older is not believed."""
_START = re.compile(r"t=(\d{10,17})(?:\.\d+)?")


class Lag:
    """Tells the ages of requests.

    Two machines' clocks differ, and every request spends a moment on its way: the smallest age seen
    lately counts as none.

    Args:
        wall: seconds since 1970.
        noted: whether the header is ours; by default as the environment says.
    """

    def __init__(self, wall: Callable[[], float] = time.time, *, noted: bool | None = None) -> None:
        self._wall = wall
        self._noted = os.environ.get(NOTED) == "1" if noted is None else noted
        self._least: float | None = None
        self._at = 0.0

    def seconds(self, headers: Mapping[str, str]) -> float:
        """How long the request with these headers has waited; 0 where nobody noted it."""
        found = _START.fullmatch(headers.get(HEADER, "")) if self._noted else None
        if not found:
            return 0.0
        now = self._wall()
        age = now - int(found[1]) / MICROSECONDS
        if abs(age) > MOST_S:
            return 0.0
        drifted = DRIFT * max(0.0, now - self._at)
        self._least = age if self._least is None else min(age, self._least + drifted)
        self._at = now
        return age - self._least
