"""``deployc doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from runtime.doctor import (
    TIME_LIMIT,
    Finding,
    Place,
    Verdict,
    check_artifact,
    check_spec,
    conflicts,
    extras,
    find_engines,
    find_gpus,
    this_place,
)

__all__ = ["doctor"]

PIPE_WIDTH = 200


@click.command(short_help="Say what can be built and run here, by trying it.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[SPEC|ARTIFACT]...")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=TIME_LIMIT,
    show_default=True,
    metavar="SECONDS",
    help="Limit of each try.",
)
@click.pass_context
def doctor(ctx: click.Context, paths: tuple[Path, ...], *, as_json: bool, timeout: float) -> None:
    """Open a real session on every engine and device, and say what works and what lacks.

    Each SPEC is held against it: can its targets be built and run here? Each ARTIFACT's variants
    are loaded and run. Exit status 1 where one of them cannot, or where no engine works at all.
    """
    engines = find_engines(timeout)
    gpus = find_gpus(timeout)
    verdicts = [
        check_artifact(path, timeout) if path.is_dir() else check_spec(path, engines)
        for path in paths
    ]
    found = list(engines.values())
    if as_json:
        data = _as_json(this_place(), gpus, found, verdicts)
        click.echo(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        _show(this_place(), gpus, found, verdicts)
    works = any(finding.ok for finding in found)
    ctx.exit(0 if works and all(verdict.ok for verdict in verdicts) else 1)


def _as_json(
    place: Place, gpus: Finding, engines: list[Finding], verdicts: list[Verdict]
) -> dict[str, Any]:
    return {
        "machine": place.machine.model_dump(mode="json"),
        "instructions": list(place.flags),
        "gpus": _row(gpus),
        "engines": [_row(finding) for finding in engines],
        "packages": extras(),
        "conflicts": conflicts(),
        "checked": [
            {**asdict(verdict), "rows": [_row(row) for row in verdict.rows]} for verdict in verdicts
        ],
    }


def _row(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "ok": finding.ok, "seconds": round(finding.seconds, 3)}


def _show(place: Place, gpus: Finding, engines: list[Finding], verdicts: list[Verdict]) -> None:
    # Into a pipe nothing is cut to the 80 columns that Rich assumes there.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, markup=False, soft_wrap=True, width=width)
    console.print(f"machine: {place.machine}, Python {place.machine.python}")
    console.print(f"instructions: {', '.join(place.flags) or 'not known'}")
    console.print(f"GPU: {_versions(gpus) if gpus.ok else gpus.message}")
    console.print(_findings("engines", engines))
    for extra, packages in extras().items():
        told = ", ".join(f"{name} {known or 'LACKS'}" for name, known in packages.items())
        console.print(f"{'' if all(packages.values()) else '! '}extra {extra}: {told}")
    for verdict in verdicts:
        console.print(_verdict(verdict))
    for conflict in conflicts():
        console.print(f"! {conflict}")


def _verdict(verdict: Verdict) -> Table:
    if verdict.kind == "spec":
        told = "can be built and run here" if verdict.ok else "cannot be built here"
    else:
        told = f"runs here, as {verdict.chosen}" if verdict.ok else "does not load here"
    return _findings(f"{verdict.path} {told}", list(verdict.rows))


def _findings(title: str, findings: list[Finding]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "", "found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        state = "works" if finding.ok else "LACKS"
        table.add_row(finding.name, state, _versions(finding) if finding.ok else finding.message)
        if finding.hint:
            table.add_row("", "", f"-> {finding.hint}")
    return table


def _versions(finding: Finding) -> str:
    return ", ".join(f"{name} {value}" for name, value in finding.versions.items())
