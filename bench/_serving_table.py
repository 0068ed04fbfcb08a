"""What came back, counted and set in tables. Pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from _load import OK, REFUSED, Closed, Open, Sent

__all__ = [
    "Beside",
    "Outcome",
    "Served",
    "answered",
    "beside",
    "beside_table",
    "live_rows",
    "outcome",
    "ratio",
    "served_table",
    "spread",
    "stage_ms",
    "table_head",
    "words_row",
]

BESIDE_GOAL_MS = 3.0
START = 0.25
"""Share of a closed loop that does not count."""
LIVE_CELLS = 10
"""Of a row of a live table, without the load."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the counted arrivals of one open loop."""

    sent: int
    in_time: int
    late: int
    refused: int
    failed: int
    """Lost connections, missing and wrong answers, 500s."""
    goodput: float
    """Right answers within the SLO per second."""
    p50_ms: float | None
    """Of the right answers, from the due time; None where there are none."""
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Beside:
    """One client's latency: the median, and what is not the engine's; milliseconds."""

    p50_ms: float
    engine_ms: float
    """As the server's Server-Timing says: from handing the batch over to having it back."""
    beside_ms: float
    """Median of latency minus engine, request by request."""
    processing_ms: float
    """Of it, pre- and post-processing."""
    bare_p50_ms: float
    """A batch of one in a bare loop over the engine."""


@dataclass(frozen=True, slots=True)
class Served:
    """Items per second at saturation."""

    served: float
    bare: float
    """Of the bare loop over the engine, at its best batch size."""
    pipeline: float
    """Of the bare loop that also does pre- and post-processing, in one thread."""


def outcome(sent: Sequence[Sent], plan: Open) -> Outcome:
    """Count the arrivals that were due after the warm-up."""
    counted = [each for each in sent if each.due >= plan.warm_up]
    took = sorted(1000 * each.took for each in counted if each.right and each.took is not None)
    in_time = sum(ms <= plan.slo_ms for ms in took)
    refused = sum(each.status in REFUSED for each in counted)
    return Outcome(
        sent=len(counted),
        in_time=in_time,
        late=len(took) - in_time,
        refused=refused,
        failed=len(counted) - len(took) - refused,
        goodput=in_time / plan.counted,
        p50_ms=_rank(took, 0.5),
        p99_ms=_rank(took, 0.99),
    )


def _rank(times: Sequence[float], share: float) -> float | None:
    """A quantile by nearest rank."""
    return times[min(len(times) - 1, int(share * len(times)))] if times else None


def stage_ms(timing: str, stage: str) -> float:
    """Milliseconds of one stage in a Server-Timing header; 0 where it is not named."""
    found = re.search(rf"(?:^|[ ,]){stage};dur=([\d.]+)", timing)
    return float(found[1]) if found else 0.0


def beside(sent: Sequence[Sent], bare_p50_ms: float) -> Beside:
    """Take the engine's own time out of what one client saw."""
    good = [each for each in sent if each.status == OK and each.took is not None]
    took = [1000 * (each.took or 0.0) for each in good]
    engine = [stage_ms(each.timing, "engine") for each in good]
    both = [stage_ms(each.timing, "pre") + stage_ms(each.timing, "post") for each in good]
    rest = [whole - part for whole, part in zip(took, engine, strict=True)]
    median = statistics.median
    return Beside(median(took), median(engine), median(rest), median(both), bare_p50_ms)


def answered(sent: Sequence[Sent], plan: Closed, items: int = 1) -> float:
    """Items per second of a closed loop, from the last answer of its first quarter to its last.

    Answers come in batches. Between two of them time and answers belong together; counting up to a
    fixed moment would lose the batch that runs then, and the first quarter is the loop's start.
    """
    ends = sorted(each.due + (each.took or 0.0) for each in sent if each.right)
    inside = [end for end in ends if end <= plan.seconds]
    begun = [end for end in inside if end <= START * plan.seconds]
    first, last = (begun or [0.0])[-1], (inside or [0.0])[-1]
    return items * (len(inside) - len(begun)) / (last - first) if last > first else 0.0


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the range over the rounds where there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round, where both have one and nothing is divided by 0."""
    return [a / b for a, b in zip(over, under, strict=False) if b > 0]


def table_head(names: Sequence[str]) -> list[str]:
    """The first two lines of a table whose first column alone is words."""
    return [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]


def beside_table(found: Mapping[str, Sequence[Beside]]) -> list[str]:
    """Rows for each model, over the rounds."""
    goal = f"under {BESIDE_GOAL_MS:g} ms"
    head = ["one client", "p50, ms", "engine, ms", "p50 beside the engine, ms", goal]
    rows = table_head([*head, "of it pre and post, ms", "bare engine p50, ms"])
    for name, rounds in found.items():
        rest = [each.beside_ms for each in rounds]
        cells = [
            spread([each.p50_ms for each in rounds]),
            spread([each.engine_ms for each in rounds]),
            spread(rest),
            _met(statistics.median(rest) < BESIDE_GOAL_MS),
            spread([each.processing_ms for each in rounds]),
            spread([each.bare_p50_ms for each in rounds]),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def served_table(
    found: Mapping[str, Sequence[Served]], goals: Mapping[str, float | None]
) -> list[str]:
    """Rows for each model and kind of request, over the rounds."""
    head = ["at saturation", "items/s", "bare engine, items/s", "ratio", "goal", "met"]
    rows = table_head([*head, "over the bare pipeline"])
    for name, rounds in found.items():
        served = [each.served for each in rounds]
        ratios = ratio(served, [each.bare for each in rounds])
        goal = goals[name]
        cells = [
            spread(served, 0),
            spread([each.bare for each in rounds], 0),
            spread(ratios),
            "" if goal is None else f"{goal:g}",
            "" if goal is None else _met(statistics.median(ratios) >= goal),
            spread(ratio(served, [each.pipeline for each in rounds])),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def live_rows(found: Mapping[str, Sequence[Outcome | str]], capacity: float) -> list[list[str]]:
    """One row for each server: goodput, and what became of the arrivals.

    Args:
        found: outcomes by server, a round each; the first server is ours. Words: there was none.
        capacity: items per second.
    """
    ours = next(iter(found.values()))
    return [_live_row(name, rounds, ours, capacity) for name, rounds in found.items()]


def words_row(name: str, words: str) -> list[str]:
    """A row of a live table for a server without figures."""
    return [name, words, *[""] * (LIVE_CELLS - 2)]


def _live_row(
    name: str, rounds: Sequence[Outcome | str], ours: Sequence[Outcome | str], capacity: float
) -> list[str]:
    pairs = list(zip(ours, rounds, strict=False))
    pairs = [(a, b) for a, b in pairs if isinstance(a, Outcome) and isinstance(b, Outcome)]
    known = [each for _, each in pairs]
    silent = [each for each in rounds if isinstance(each, str)]
    if not known:
        return words_row(name, silent[0] if silent else "")
    goodput = [each.goodput for each in known]
    return [
        f"{name} ({silent[0]}: {len(silent)} of {len(rounds)} rounds)" if silent else name,
        spread(goodput, 0),
        f"{statistics.median(goodput) / capacity:.2f}",
        _over([each.goodput for each, _ in pairs], goodput),
        *(_share(known, kind) for kind in ("in_time", "late", "refused", "failed")),
        _ms([each.p50_ms for each in known]),
        _ms([each.p99_ms for each in known]),
    ]


def _over(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """Ours over theirs; a word where they answered nothing in time in some round."""
    if all(each > 0 for each in theirs):
        return spread(ratio(mine, theirs))
    return "theirs is 0" if not any(theirs) else "theirs is 0 in a round"


def _share(rounds: Sequence[Outcome], kind: str) -> str:
    counts: list[Any] = [getattr(each, kind) for each in rounds]
    whole = sum(each.sent for each in rounds)
    return f"{100 * sum(counts) / whole:.0f} %" if whole else "-"


def _ms(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.0f}" if known else "-"


def _met(good: bool) -> str:
    return "yes" if good else "no"
