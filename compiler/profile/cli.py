"""``deployc profile`` and ``deployc report``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from compiler.disk import disk_errors
from compiler.profile.measure import Settings, profile_variant
from compiler.profile.store import open_artifact, redraw, store
from compiler.profile.sweep import parse_batches
from compiler.profile.table import lines, remark, table
from compiler.progress import Reporter
from compiler.report import REPORT, lacking
from runtime.artifact import choose_variant
from specs.errors import DeploycError, EngineError
from specs.manifest import Manifest, Variant
from specs.profile import Profile

__all__ = ["profile", "report"]

INSTALL = "pip install 'deployc[build]'"
PIPE_WIDTH = 200
POSITIVE = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True)
class Skipped:
    """A variant that cannot be measured here."""

    variant: str
    error: EngineError


@click.command(short_help="Measure an artifact per batch size, and keep the table in it.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--variant", "names", multiple=True, help="Measure this one alone; repeatable.")
@click.option("--batches", metavar="LIST", help="Sizes such as 1,2,4 or 1-64; else a sweep.")
@click.option("--seconds", type=POSITIVE, default=3.0, show_default=True, help="Per point.")
@click.option("--timeout", type=POSITIVE, default=300.0, show_default=True, help="Per point.")
@click.option("--slo", type=POSITIVE, metavar="MS", help="p99 to advise for; else the spec's.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw into this .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print the profiles as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def profile(  # noqa: PLR0913 - one argument per option
    artifact: Path,
    *,
    names: tuple[str, ...],
    batches: str | None,
    seconds: float,
    timeout: float,
    slo: float | None,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure ARTIFACT's latency, throughput and memory per batch size on this machine.

    The table is stored in the artifact, for serving, and report.html is drawn again. Ctrl-C leaves
    the artifact as it was. Exit status 1 where nothing could be measured.
    """
    manifest = open_artifact(artifact)
    chosen = [choose_variant(manifest, name) for name in names] or list(manifest.variants)
    _check_plot(plot, len(chosen))
    settings = Settings(
        batches=parse_batches(batches, manifest.batch) if batches is not None else (),
        seconds=seconds,
        timeout=timeout,
        slo_ms=slo or (manifest.serving.slo.p99_ms if manifest.serving.slo else None),
    )
    reporter = Reporter(quiet=quiet)
    profiles, skipped = _measure(artifact, manifest, chosen, settings, reporter)
    _keep(artifact, profiles, reporter)
    if plot is not None:
        _draw(profiles[0], plot)
    _print(profiles, skipped, as_json=as_json)


def _check_plot(plot: Path | None, variants: int) -> None:
    """Refuse before minutes are spent."""
    if plot is None:
        return
    if variants > 1:
        message = f"--plot draws one variant, the artifact has {variants}: name one with --variant"
        raise click.UsageError(message)
    if "matplotlib" in lacking():
        message = "--plot needs matplotlib, which is not installed"
        raise DeploycError(message, hint=INSTALL, code="plot_failed")


def _measure(
    artifact: Path,
    manifest: Manifest,
    variants: Sequence[Variant],
    settings: Settings,
    reporter: Reporter,
) -> tuple[list[Profile], list[Skipped]]:
    profiles: list[Profile] = []
    skipped: list[Skipped] = []
    for variant in variants:
        try:
            profiles.append(profile_variant(artifact, manifest, variant, settings, reporter))
        except EngineError as error:
            skipped.append(Skipped(variant.name, error))
    if not profiles:
        raise skipped[0].error
    return profiles, skipped


def _keep(artifact: Path, profiles: Sequence[Profile], reporter: Reporter) -> None:
    missing = lacking()
    with disk_errors():
        store(artifact, profiles, report=not missing)
    if missing:
        what = " and ".join(missing)
        reporter.note(f"{REPORT} was not drawn again, which needs {what}: {INSTALL}")


def _draw(found: Profile, plot: Path) -> None:
    from compiler.report.plots import draw_file

    draw_file(found, plot)


def _print(profiles: Sequence[Profile], skipped: Sequence[Skipped], *, as_json: bool) -> None:
    if as_json:
        told = {
            "profiles": [each.model_dump(mode="json") for each in profiles],
            "not_measured": [{"variant": s.variant, **s.error.to_dict()} for s in skipped],
        }
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    # Into a pipe nothing is cut to the 80 columns that Rich assumes there.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, markup=False, soft_wrap=True, width=width)
    for each in profiles:
        for line in lines(each):
            console.print(line)
        console.print(table(each))
        console.print(remark(each))
    for each in skipped:
        console.print(f"! {each.error.message}")


@click.command(short_help="Draw an artifact's report.html again.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it here instead.")
def report(artifact: Path, output: Path | None) -> None:
    """Draw ARTIFACT's report.html again, from its manifest, audits and profiles."""
    missing = lacking()
    if missing:
        message = f"a report needs {' and '.join(missing)}, which this installation lacks"
        raise DeploycError(message, hint=INSTALL, code="report_needs")
    with disk_errors():
        click.echo(redraw(artifact, output))
