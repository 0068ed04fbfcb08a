"""Results of the simulations: kept as JSON, told as a table and a plot."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from cork import CORK
from scenarios import SCENARIOS, SLO_S
from tuning import OURS, PLAYERS, RAY

__all__ = ["Result", "Results", "read_results", "write_plot", "write_results", "write_table"]

GOAL_FIRST = 0.99
GOAL_OVERLOAD = 0.97
GOAL_CLOSED = 1.4


@dataclass(frozen=True, slots=True)
class Result:
    """One player in one scenario, over all seeds."""

    scenario: str
    capacity: float
    player: str
    knobs: str
    goodputs: list[float]
    """Answers in time per second, by seed."""
    late: int
    shed: int
    batch: float
    """Mean size."""
    p50_ms: float
    """Median latency of what was answered."""
    cpu_s: float
    seconds: float
    """Of virtual time that one run counts."""
    version: str = ""
    """Of the package whose code played; "" for what is in this repository."""

    @property
    def mean(self) -> float:
        """Of the seeds."""
        return statistics.fmean(self.goodputs)

    @property
    def line(self) -> dict[str, object]:
        """For the log."""
        about = {"scenario": self.scenario, "player": self.player, "knobs": self.knobs}
        return {**about, "goodput": round(self.mean, 1), "cpu_s": round(self.cpu_s, 1)}


Results = dict[tuple[str, str], Result]


def read_results(file: Path) -> Results:
    """Those kept before; none where there is no file."""
    if not file.exists():
        return {}
    entries: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return {(each["scenario"], each["player"]): Result(**each) for each in entries}


def write_results(results: Results, file: Path) -> None:
    """All of them, in the table's order, however many runs they come from."""
    keys = [(each.name, player) for each in SCENARIOS for player in PLAYERS]
    rounded = [
        {**asdict(each), "goodputs": [round(rate, 2) for rate in each.goodputs]}
        for each in (results[key] for key in keys if key in results)
    ]
    lines = ",\n".join(json.dumps(each) for each in rounded)
    file.write_text(f"[\n{lines}\n]\n", "utf-8")


def half_width(values: list[float]) -> float:
    """Half of the 95 % confidence interval of the mean, by Student's t.

    The quantile is Fisher's expansion in 1/n, Abramowitz and Stegun 26.7.5: 2.093 for 20 values.
    """
    if len(values) < 2:  # noqa: PLR2004 - no spread in one value
        return math.nan
    free, z = len(values) - 1, statistics.NormalDist().inv_cdf(0.975)
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return t * statistics.stdev(values) / math.sqrt(len(values))


def columns(results: Results) -> list[str]:
    """The players that have played everything: one whose package is missing has no column."""
    names = _names(results)
    return [each for each in PLAYERS if all((name, each) in results for name in names)]


def _names(results: Results) -> list[str]:
    """The scenarios that the law has played."""
    return [each.name for each in SCENARIOS if (each.name, OURS) in results]


def best_rival(results: Results, scenario: str) -> Result:
    """The one with the most answers in time."""
    rivals = (results[scenario, player] for player in columns(results) if player != OURS)
    return max(rivals, key=lambda each: each.mean)


def against(results: Results, scenario: str) -> tuple[float, float]:
    """The law's goodput over the best rival's, and half of its interval, paired by seed."""
    ours, rival = results[scenario, OURS], best_rival(results, scenario)
    if not rival.mean:
        return math.inf, math.nan
    differences = [a - b for a, b in zip(ours.goodputs, rival.goodputs, strict=True)]
    return ours.mean / rival.mean, half_width(differences) / rival.mean


def goals(results: Results) -> list[tuple[str, str, bool]]:
    """Each goal, what was found, and whether it was met."""
    names = _names(results)
    worst = min(names, key=lambda name: against(results, name)[0])
    ratio = against(results, worst)[0]
    found = [
        (
            "first, or within 1 % of first, in every scenario",
            f"lowest ratio to the best rival {ratio:.3f} ({worst})",
            ratio >= GOAL_FIRST,
        )
    ]
    for name in ("steady, 120%", "steady, 200%"):
        if name in names:
            result = results[name, OURS]
            share = result.mean / result.capacity
            what = f"above {GOAL_OVERLOAD} of capacity: {name}"
            found.append((what, f"{share:.3f}", share > GOAL_OVERLOAD))
    name = "closed loop, 8 clients"
    if name in names:
        share = results[name, OURS].mean / results[name, "greedy"].mean
        what = f"at least {GOAL_CLOSED} times greedy: {name}"
        found.append((what, f"{share:.3f}", share >= GOAL_CLOSED))
    return found


def write_table(results: Results, file: Path) -> None:
    """The page that is committed."""
    names = _names(results)
    text = [
        _head(results),
        "",
        *_goal_rows(results),
    ]
    text += [
        "",
        *_rows(results, names),
        "",
        "![goodput](goodput.svg)",
        "",
        *_details(results, names),
    ]
    file.write_text("\n".join(text) + "\n", "utf-8")


def _head(results: Results) -> str:
    some = {player: results[_names(results)[0], player] for player in columns(results)}
    ray, cork = (some[each].version if each in some else "" for each in (RAY, CORK))
    return _HEAD.format(
        seeds=len(some[OURS].goodputs),
        seconds=some[OURS].seconds,
        slo=1000 * SLO_S,
        ray=f", Ray {ray}" * bool(ray),
        cork=_WITH_CORK.format(version=cork) if cork else _WITHOUT_CORK,
    )


def _goal_rows(results: Results) -> list[str]:
    rows = ["| goal | found | met |", "|---|---|---|"]
    for goal, found, met in goals(results):
        rows.append(f"| {goal} | {found} | {'yes' if met else '**no**'} |")
    return rows


def _rows(results: Results, names: list[str]) -> list[str]:
    players = columns(results)
    rows = [
        f"| scenario | {' | '.join(players)} | {OURS} over the best rival |",
        "|---|" + "---:|" * (len(players) + 1),
    ]
    for name in names:
        first = max(results[name, player].mean for player in players)
        cells = [_cell(results[name, player], first) for player in players]
        ratio, half = against(results, name)
        rows.append(f"| {name} | {' | '.join(cells)} | {ratio:.3f} ± {half:.3f} |")
    return rows


def _cell(result: Result, first: float) -> str:
    text = f"{result.mean:.0f} ± {half_width(result.goodputs):.0f}"
    return f"**{text}**" if result.mean >= GOAL_FIRST * first else text


def _details(results: Results, names: list[str]) -> list[str]:
    rows = [
        _DETAILS,
        "",
        "| scenario | player | batch | p50 ms | late | turned away | knobs |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for name in names:
        for each in (results[name, player] for player in columns(results)):
            figures = f"{each.batch:.1f} | {each.p50_ms:.1f} | {each.late} | {each.shed}"
            rows.append(f"| {name} | {each.player} | {figures} | `{each.knobs}` |")
    return rows


def write_plot(results: Results, file: Path) -> None:
    """Goodput as a share of the best player's, per scenario."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "batching"  # the same figures give the same file
    from matplotlib import pyplot as plt

    names, players = _names(results)[::-1], columns(results)
    figure, axes = cast("Any", plt).subplots(figsize=(9, 0.42 * len(names) + 1.4))
    for index, player in enumerate(players):
        firsts = [max(results[name, each].mean for each in players) for name in names]
        pairs = list(zip(names, firsts, strict=True))
        shares = [results[name, player].mean / first for name, first in pairs]
        halves = [half_width(results[name, player].goodputs) / first for name, first in pairs]
        places = [place + 0.13 * ((len(players) - 1) / 2 - index) for place in range(len(names))]
        axes.errorbar(shares, places, xerr=halves, fmt="o", markersize=4, label=player)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("answers in time per second, over the best player's (95 % interval)")
    axes.set_xlim(-0.02, 1.05)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


_DETAILS = """\
Over all seeds: mean batch, median latency of what was answered, answers that came late, requests
turned away, and the knobs that were chosen."""

_HEAD = """\
# The batching law against its rivals, in virtual time

Written by `python bench/batching/run.py`. Answers in time per second, mean of {seeds} seeds and its
95 % confidence interval; {seconds:g} s per run after the warm-up. Bold: within 1 % of the best.

- **Engine.** One slot, L(b) = 4 ms + 0.25 ms per item up to 128 items, lognormal jitter of 2 %.
  Fixed buckets: sizes 1, 4, 16 and 64 alone, and what lies between is padded.
- **Capacity.** The largest b / L(b) with 2 L(b) within the SLO of {slo:g} ms, since what arrives
  just after a batch was cut waits for that one and rides in the next: 3,360 items per second, in
  batches of 84; with fixed buckets 3,200. A policy that turns away the right requests may exceed
  it: then nobody who is answered has waited for a whole batch.
- **Players.** deployc is `serve.law.Law` itself, with nothing tuned. Ray's is `_BatchQueue` from
  the installed package{ray}: its own code on an event loop in virtual time.
{cork}
  Triton's delayed batcher, Clipper's AIMD and greedy late binding are re-implemented. All rivals'
  knobs are chosen for every scenario by a grid search on three seeds of their own: with knowledge
  of the traffic to come that a server in the field does not have.
- **Traffic.** Poisson at a share of capacity. Bursts: 180 % for 0.1 s, 20 % for 0.3 s. The slower
  engine is so from the middle of the run on. Closed loops: each client sends its next request
  0.3 ms (exponential mean) after an answer, 5 ms after a refusal."""

_WITH_CORK = """\
  BentoML's is `CorkDispatcher` of BentoML {version}, its own code as well. It fits the engine's
  times anew every 5 s, so that it lives through each scenario for that long before the run that
  counts."""

_WITHOUT_CORK = """\
  BentoML's `CorkDispatcher` was not played: its package was not found."""
