"""Requests to simulate: read from a CSV file, or drawn."""

# ruff: noqa: S311 - the dice of a simulation keep no secret

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from serve.oip_parameters import MAX_PRIORITY
from specs.errors import ServeError
from specs.faults import nearest

__all__ = ["MAX_ITEMS", "Request", "poisson", "read_trace"]

T = TypeVar("T")

MAX_ITEMS = 1_000_000
"""Of a whole trace: memory and time are bounded, whatever the file."""
MAX_LINE = 10_000
"""Characters: what is longer is no line of four numbers."""
MAX_ARRIVAL_S = 1e10
"""Seconds since 1970 are fewer, milliseconds more."""
CYCLE_S = 10.0
BURST_S = 1.0
"""Bursts last for so long out of every cycle."""


@dataclass(frozen=True, slots=True)
class _Column(Generic[T]):
    name: str
    read: Callable[[str], T]
    fits: Callable[[T], bool]
    wanted: str

    def value(self, place: str, cells: dict[str, str]) -> T | None:
        """The cell's number; None where there is none."""
        text = cells.get(self.name)
        if not text:
            return None
        try:
            value = self.read(text)
        except ValueError as error:
            raise self._unfit(place, text) from error
        if not self.fits(value):
            raise self._unfit(place, text)
        return value

    def _unfit(self, place: str, text: str) -> ServeError:
        return _invalid(place, f"{self.name} is {text!r}", f"expected {self.wanted}")


_ARRIVAL = _Column(
    "arrival_s", float, lambda s: 0 <= s < MAX_ARRIVAL_S, "seconds from the start, 0 or more"
)
_TIMEOUT = _Column("timeout_ms", float, lambda ms: 0 < ms < math.inf, "milliseconds, more than 0")
_PRIORITY = _Column(
    "priority",
    int,
    lambda n: 0 <= n <= MAX_PRIORITY,
    f"a whole number from 0, which goes first, to {MAX_PRIORITY}",
)
_ITEMS = _Column("items", int, lambda n: n > 0, "a whole number from 1")
COLUMNS = (_ARRIVAL.name, _TIMEOUT.name, _PRIORITY.name, _ITEMS.name)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a trace."""

    arrived: float
    """Seconds from the first one."""
    timeout_s: float | None = None
    """What the client allows; None: the SLO."""
    priority: int = 0
    """The class; lower goes first."""
    items: int = 1


def read_trace(path: Path) -> list[Request]:
    """The requests in a CSV file, by arrival, whatever their order there.

    The first line names the columns: ``arrival_s``, and any of ``timeout_ms``, ``priority`` and
    ``items``. An empty cell is as if there were no such column. Only differences between arrivals
    count, so that seconds since 1970 are taken as well.

    Raises:
        ServeError: it cannot be read (``trace_unreadable``); or a line is at fault, there are no
            requests or too many (``trace_invalid``).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = sorted(_requests(str(path), file), key=lambda each: each.arrived)
    except (OSError, UnicodeDecodeError) as error:
        hint = f"a CSV file in UTF-8 whose first line is {','.join(COLUMNS)}"
        message = f"{path} cannot be read: {error}"
        raise ServeError(message, hint=hint, code="trace_unreadable") from error
    if not found:
        raise _invalid(str(path), "there is no request in it")
    first = found[0].arrived
    return [
        Request(each.arrived - first, each.timeout_s, each.priority, each.items) for each in found
    ]


def poisson(rate: float, seconds: float, seed: int, burst: float = 1.0) -> list[Request]:
    """Independent arrivals.

    Args:
        rate: requests per second, in the mean.
        seconds: for how long.
        seed: of the dice.
        burst: for ``BURST_S`` out of every ``CYCLE_S`` so many times as many, and fewer between
            them, so that the mean stays; 1: the same rate always.

    Raises:
        ServeError: that would be too many (``trace_invalid``).
    """
    if rate * seconds > MAX_ITEMS:
        message = f"{rate:g} per second for {seconds:g} s are more than {MAX_ITEMS:,} requests"
        raise ServeError(message, hint="fewer seconds tell as much", code="trace_invalid")
    dice = random.Random(f"traffic {seed}")
    share = BURST_S / CYCLE_S
    high, low = rate * burst, rate * (1 - share * burst) / (1 - share)
    return [Request(at) for at in _thinned(high, low, seconds, dice)]


def _thinned(high: float, low: float, seconds: float, dice: random.Random) -> Iterator[float]:
    """Exponential gaps at the higher rate, kept by the present rate over it."""
    top, now = max(high, low), 0.0
    while (now := now + dice.expovariate(top)) < seconds:
        # The burst ends a cycle: the law has seen the usual traffic before.
        here = high if now % CYCLE_S >= CYCLE_S - BURST_S else low
        if here == top or dice.random() * top < here:
            yield now


def _requests(name: str, file: TextIO) -> Iterator[Request]:
    rows = csv.reader(_lines(name, file), strict=True)
    nothing: list[str] = []
    try:
        columns = _header(name, next(rows, nothing))
        items = 0
        for row in rows:
            if not row:
                continue  # an empty line
            request = _request(f"{name}:{rows.line_num}", columns, row)
            items += request.items
            if items > MAX_ITEMS:
                raise _invalid(f"{name}:{rows.line_num}", f"more than {MAX_ITEMS:,} items")
            yield request
    except csv.Error as error:
        raise _invalid(f"{name}:{rows.line_num}", str(error)) from error


def _lines(name: str, file: TextIO) -> Iterator[str]:
    """Lines, of bounded length: a file may be anything."""
    number = 1
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise _invalid(f"{name}:{number}", f"the line is longer than {MAX_LINE:,} characters")
        yield line
        number += 1


def _header(name: str, row: list[str]) -> list[str]:
    columns = [cell.strip() for cell in row]
    for column in columns:
        if column not in COLUMNS:
            hint = nearest(column, COLUMNS)
            raise _invalid(f"{name}:1", f"{column!r} is no column of a trace", hint)
        if columns.count(column) > 1:
            raise _invalid(f"{name}:1", f"there are two columns {column}")
    if _ARRIVAL.name not in columns:
        raise _invalid(f"{name}:1", f"there is no column {_ARRIVAL.name}")
    return columns


def _request(place: str, columns: list[str], row: list[str]) -> Request:
    if len(row) != len(columns):
        raise _invalid(place, f"{len(row)} cells, and {len(columns)} columns")
    cells = dict(zip(columns, map(str.strip, row), strict=True))
    arrived = _ARRIVAL.value(place, cells)
    if arrived is None:
        raise _invalid(place, f"{_ARRIVAL.name} is empty", f"expected {_ARRIVAL.wanted}")
    timeout_ms = _TIMEOUT.value(place, cells)
    return Request(
        arrived,
        None if timeout_ms is None else timeout_ms / 1000,
        _PRIORITY.value(place, cells) or 0,
        _ITEMS.value(place, cells) or 1,
    )


def _invalid(place: str, message: str, hint: str = "") -> ServeError:
    wanted = f"a trace has the columns {', '.join(COLUMNS)}; all but the first may be missing"
    return ServeError(f"{place}: {message}", hint=hint or wanted, code="trace_invalid")
