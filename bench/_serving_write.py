"""The table and the JSON of ``bench/serving.py``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _serving_table import beside_table, live_rows, served_table, table_head, words_row

if TYPE_CHECKING:
    from _players import Played
    from serving import Lengths, Results

__all__ = ["GOALS", "busy", "lines", "write"]

GOALS = {"digits": 0.7, "resnet50": 0.9}
"""Throughput over the bare engine loop."""
BUSY_PER_CORE = 0.5
HEAD = ("load", "server", "goodput, /s", "of capacity", "deployc over it")
ENDS = ("in time", "late", "refused", "failed", "p50, ms", "p99, ms")


def busy(load: tuple[float, float, float]) -> bool:
    """Whether others kept the machine busy when the run began: its ratios are rough, then."""
    return load[0] > BUSY_PER_CORE * (os.cpu_count() or 1)


def write(results: Results, lengths: Lengths, stretch: float, out: Path) -> None:
    """Write the table as serving.md, and all figures as serving.json."""
    text = "\n".join(lines(results, lengths, stretch))
    out.mkdir(parents=True, exist_ok=True)
    (out / "serving.md").write_text(f"{text}\n", "utf-8")
    (out / "serving.json").write_text(json.dumps(_plain(results), indent=1), "utf-8")


def lines(results: Results, lengths: Lengths, stretch: float) -> list[str]:
    """The table's text."""
    goals = {name: GOALS[name.partition(",")[0]] for name in results.served}
    found = ["# Serving, measured", "", *_about(results, lengths, stretch), ""]
    found += [*beside_table(results.beside), "", *served_table(results.served, goals)]
    for model in results.models:
        found += ["", *_live(results, model)]
    return found


def _about(results: Results, lengths: Lengths, stretch: float) -> list[str]:
    before, after = (_three(each) for each in (results.load_before, results.load_after))
    rounds = f"{lengths.rounds} round{'s' * (lengths.rounds > 1)}"
    written = f"Written by `python bench/serving.py`, {results.started}, {results.seconds:.0f} s"
    found = [
        f"{written}, {os.cpu_count()} cores, {rounds}.",
        "Figures are medians over the rounds, with their range in brackets.",
        f"Load average (1, 5, 15 minutes) before: {before}; after, by the bench itself: {after}.",
        f"Sleeping engine: L(b) = {4 * stretch:g} ms + {0.25 * stretch:g} ms per item.",
    ]
    found += [f"{name} {version}." for name, version in results.versions.items() if version]
    if busy(results.load_before):
        found.append("**The machine was busy with other work before the run: ratios are rough.**")
    if not lengths.tuning:
        found.append("Quick: Ray's knobs were not tuned.")
    return found


def _three(load: tuple[float, float, float]) -> str:
    return ", ".join(f"{each:.1f}" for each in load)


def _live(results: Results, model: Played) -> list[str]:
    knobs = json.dumps(results.knobs.get(model.name, {}))
    capacity = f"capacity {model.capacity:.0f}/s in batches of {model.max_batch}"
    found = [f"{model.name}: {capacity}, SLO {model.slo_ms:g} ms. Ray's knobs: `{knobs}`.", ""]
    found += table_head([*HEAD, *ENDS])
    missing = [name for name, version in results.versions.items() if version is None]
    for share, outcomes in results.live[model.name].items():
        rows = live_rows(outcomes, model.capacity)
        rows += [words_row(name, "not installed") for name in missing]
        found += [f"| {share:.0%} | {' | '.join(row)} |" for row in rows]
    return found


def _plain(results: Results) -> dict[str, Any]:
    models = [
        {**asdict(m), "artifact": m.artifact.name, "body": len(m.body)} for m in results.models
    ]
    return {**asdict(results), "models": models}
