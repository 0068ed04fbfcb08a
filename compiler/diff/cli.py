"""``deployc diff``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from compiler.diff.differences import differences
from compiler.diff.gates import SAME, Gates, broken
from compiler.diff.show import as_json, show
from compiler.diff.side import read_side, same_kind
from specs.faults import nearest
from specs.profile import Quantile

__all__ = ["diff"]

Command = Callable[..., Any]


def _share(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    """``5%`` or ``0.05``; a bare 5 would be 500 %, and is refused."""
    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        number = -1.0
    percent = text.strip().endswith("%")
    if not 0 <= number < (math.inf if percent else 1):
        raise click.BadParameter(f"{text!r} is no share, write 5% or 0.05")
    return number / 100 if percent else number


def _names(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
    """Some of ``SAME``, with commas between."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in SAME:
            raise click.BadParameter(f"{name!r} is nothing to compare: {nearest(name, SAME)}")
    return names


def _bound(option: str, name: str, told: str) -> Callable[[Command], Command]:
    return click.option(option, name, metavar="PERCENT", callback=_share, help=told)


@click.command(short_help="Say what differs between two artifacts or specs.")
@click.argument("a", type=click.Path(exists=True, path_type=Path), metavar="A")
@click.argument("b", type=click.Path(exists=True, path_type=Path), metavar="B")
@click.option("--json", "as_data", is_flag=True, help="Print everything as JSON.")
@click.option("--exit-code", is_flag=True, help="Exit 1 where anything differs.")
@_bound("--max-latency-regression", "latency", "Of any measured batch.")
@click.option(
    "--latency-quantile",
    "quantile",
    type=click.Choice(["p50", "p95", "p99"]),
    default="p50",
    show_default=True,
    help="What --max-latency-regression looks at.",
)
@click.option("--any-machine", is_flag=True, help="Compare latencies of different machines.")
@_bound("--max-size-growth", "size", "Of the graph, and of each variant.")
@_bound("--max-accuracy-drop", "accuracy", "Of the share of right answers.")
@click.option(
    "--max-parity-growth",
    "parity",
    type=click.FloatRange(min=0),
    metavar="FACTOR",
    help="Of the largest difference from the reference.",
)
@click.option(
    "--same",
    metavar="NAME,...",
    default="",
    callback=_names,
    help=f"What must be equal: {', '.join(SAME)}.",
)
@click.pass_context
def diff(  # noqa: PLR0913 - one argument per option
    ctx: click.Context,
    a: Path,
    b: Path,
    *,
    as_data: bool,
    exit_code: bool,
    latency: float | None,
    quantile: Quantile,
    any_machine: bool,
    size: float | None,
    accuracy: float | None,
    parity: float | None,
    same: tuple[str, ...],
) -> None:
    """Say what differs between A and B: two artifacts, or two specs.

    Without gates the exit status is 0 whatever differs, unless --exit-code is given. With gates it
    is 1 where one is broken; what cannot be judged, such as a latency that was not measured or a
    variant that B lacks, breaks its gate.
    """
    old, new = read_side(a), read_side(b)
    same_kind(old, new)
    found = differences(old, new)
    gates = Gates(latency, quantile, any_machine, size, accuracy, parity, same)
    faults = broken(old, new, gates)
    if as_data:
        click.echo(json.dumps(as_json(old, new, found, faults), indent=1, ensure_ascii=False))
    else:
        show(old, new, found)
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
    ctx.exit(1 if faults or (exit_code and found) else 0)
