"""A comparison for people, and for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from compiler.diff.differences import Difference
from compiler.diff.side import Side, pairs

__all__ = ["as_json", "notes", "show"]

PIPE_WIDTH = 200
LONGEST = 60
"""Characters of a value that a table shows."""


def notes(a: Side, b: Side) -> list[str]:
    """What a person should be told beside the differences."""
    told = [*a.notes, *b.notes]
    if a.manifest is None or b.manifest is None:
        return told
    for side, manifest in ((a, a.manifest), (b, b.manifest)):
        told += [f"{side.path}: {warning}" for warning in manifest.warnings()]
    for old, new in pairs(a, b):
        if new and not (old.name in a.profiles and new.name in b.profiles):
            lacking = [str(s.path) for s, v in ((a, old), (b, new)) if v.name not in s.profiles]
            told.append(f"{old.name}: latency: not measured in {', '.join(lacking)}")
    return told


def as_json(a: Side, b: Side, found: Sequence[Difference], broken: Sequence[str]) -> dict[str, Any]:
    """Everything as JSON data."""
    return {
        "a": str(a.path),
        "b": str(b.path),
        "kind": a.kind,
        "differences": [{**asdict(each), "growth": each.growth} for each in found],
        "notes": notes(a, b),
        "broken": list(broken),
    }


def show(a: Side, b: Side, found: Sequence[Difference]) -> None:
    """A table of the differences on stdout."""
    # Into a pipe nothing is cut to the 80 columns that Rich assumes there.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, markup=False, soft_wrap=True, width=width)
    console.print(f"A: {a.path}\nB: {b.path}")
    if not found:
        console.print("no difference")
    for section, group in groupby(found, key=lambda each: each.section):
        console.print(_table(section, list(group)))
    if any(each.section == "machine" for each in found):
        console.print("! measured on different machines: the latencies are not comparable")
    for note in notes(a, b):
        console.print(f"! {note}")


def _table(section: str, found: list[Difference]) -> Table:
    table = Table(title=f"\n{section}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "A", "B", ""):
        table.add_column(column, overflow="fold")
    for each in found:
        growth = "" if each.growth is None else f"{each.growth:+.1%}"
        table.add_row(each.name, _value(each, each.old), _value(each, each.new), growth)
    return table


def _value(difference: Difference, value: Any) -> str:  # noqa: ANN401 - plain data
    if value is None:
        return "-"
    if difference.unit == "ms":
        return f"{value:.4g} ms"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,} {difference.unit}".rstrip()
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
