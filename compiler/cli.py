"""``deployc build``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from compiler.build import BuildResult, build
from compiler.check import check as run_check
from compiler.disk import disk_errors
from compiler.lock import check_lock
from compiler.outcomes import check_data, check_lines, error_data, outcomes_of, write_reports
from compiler.progress import Reporter
from compiler.weights import find_weights, parse_override
from runtime.cli import choice_table
from specs.digests import file_sha256
from specs.errors import DeploycError
from specs.loader import LoadedSpec, load_spec
from specs.manifest import MANIFEST, Variant
from specs.reports import Outcome, problems_of
from specs.schema import Weights

__all__ = ["build_command"]


@dataclass(frozen=True)
class _Asked:
    """What the command line asks.

    Args:
        spec: the spec's file.
        output: the artifact's folder; by default ``build/<name>``.
        targets: names of the targets to build; all of them by default.
        weights: in place of the spec's.
        locked: hold everything to ``deployc.lock`` first.
        junit, sarif: reports to write.
        as_json: print the result as JSON.
    """

    spec: Path
    output: Path | None
    targets: tuple[str, ...]
    weights: str | None
    locked: bool
    junit: Path | None
    sarif: Path | None
    as_json: bool

    def report(self, outcomes: Sequence[Outcome]) -> None:
        """Write the reports."""
        write_reports(f"deployc build {self.spec}", outcomes, self.junit, self.sarif)


EARLY = {"lock": "lock", "weights": "weights", "target": "targets"}
"""The step that an error before the first stage belongs to, by how its code begins."""
REPORT = click.Path(path_type=Path, dir_okay=False)


@click.command("build", short_help="Build a spec into a proven artifact.")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the artifact.")
@click.option("--target", "targets", multiple=True, help="Build this target alone; repeatable.")
@click.option("--weights", metavar="FILE|random:SEED", help="In place of the spec's weights.")
@click.option("--locked", is_flag=True, help="Refuse what differs from deployc.lock.")
@click.option("--check", is_flag=True, help="Check all that needs no GPU; write no artifact.")
@click.option("--junit", type=REPORT, help="Write a JUnit XML report of the stages.")
@click.option("--sarif", type=REPORT, help="Write a SARIF 2.1.0 report of what is at fault.")
@click.option("--json", "as_json", is_flag=True, help="Print the result, or the error, as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
@click.pass_context
def build_command(  # noqa: PLR0913 - one argument per option
    ctx: click.Context,
    spec: Path,
    output: Path | None,
    targets: tuple[str, ...],
    weights: str | None,
    *,
    locked: bool,
    check: bool,
    junit: Path | None,
    sarif: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Build SPEC into an artifact: export, check, prove, write (default: build/<name>).

    Progress goes to stderr, the result to stdout. Exit status 1 where anything is not as the spec
    asks; the artifact that was there before then stays.

    --check tries every step that needs no GPU, also after one has failed, and tells the others as
    not run: exit status 1 where a step failed.
    """
    asked = _Asked(spec, output, targets, weights, locked, junit, sarif, as_json)
    if check:
        if output is not None:
            raise click.UsageError("--check writes no artifact: leave -o out")
        ctx.exit(_check(asked, Reporter(quiet=quiet)))
    _build(asked, Reporter(quiet=quiet))


def _build(asked: _Asked, reporter: Reporter) -> None:
    """Build, and tell the outcome in every form that was asked for."""
    try:
        loaded, override = _loaded(asked, reporter)
        folder = asked.output or Path("build") / loaded.spec.name
        with _stdout_to_stderr():
            result = build(
                loaded, folder, reporter=reporter, targets=asked.targets, weights=override
            )
    except DeploycError as error:
        asked.report(outcomes_of(reporter, error, asked.spec))
        if asked.as_json:
            click.echo(json.dumps(error_data(error), indent=1, ensure_ascii=False))
        raise
    asked.report(outcomes_of(reporter, None, asked.spec))
    if asked.as_json:
        click.echo(json.dumps(_as_json(result, reporter), indent=1))
    else:
        _print(result)


def _loaded(asked: _Asked, reporter: Reporter) -> tuple[LoadedSpec, Weights | None]:
    """The spec, held to its lock where that is asked, and the weights that take its own's place."""
    override = None if asked.weights is None else parse_override(asked.weights)
    loaded = load_spec(asked.spec)
    if asked.locked:
        found = override and find_weights(loaded.spec, loaded.folder, override, reporter)
        with disk_errors():
            check_lock(loaded, found)
    return loaded, override


def _check(asked: _Asked, reporter: Reporter) -> int:
    """Check, and tell every step; the exit status."""
    try:
        loaded, override = _loaded(asked, reporter)
        with _stdout_to_stderr():
            outcomes = run_check(loaded, reporter=reporter, targets=asked.targets, weights=override)
    except DeploycError as error:
        problems = problems_of(error, asked.spec)
        name = next((name for code, name in EARLY.items() if error.code.startswith(code)), "schema")
        outcomes = [Outcome(name, "failed", problems=problems)]
    else:
        outcomes[1:1] = [Outcome("lock", "passed")] if asked.locked else []
    asked.report(outcomes)
    if asked.as_json:
        click.echo(json.dumps(check_data(asked.spec, outcomes), indent=1, ensure_ascii=False))
    else:
        for line in check_lines(asked.spec, outcomes):
            click.echo(line)
    for outcome in outcomes:
        for problem in outcome.problems:
            click.echo(f"error: {outcome.name}: {problem}", err=True)
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


@contextlib.contextmanager
def _stdout_to_stderr() -> Generator[None, None, None]:
    """Keep stdout for the result: the user's own model, and torch's C++, print as they like."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _as_json(result: BuildResult, reporter: Reporter) -> dict[str, object]:
    steps = [
        {"stage": step.name, "cached": step.cached, "seconds": round(step.seconds, 3)}
        for step in reporter.steps
    ]
    manifest = result.manifest
    return {
        "artifact": str(result.folder),
        "digest": file_sha256(result.folder / MANIFEST),
        "written": result.written,
        "warnings": list(manifest.warnings()),
        "stages": steps,
        "variants": [variant.model_dump(mode="json") for variant in manifest.variants],
    }


def _print(result: BuildResult) -> None:
    console = Console(highlight=False)
    state = "built" if result.written else "unchanged"
    console.print(f"{state} {result.folder}", soft_wrap=True, markup=False)
    for variant in result.manifest.variants:
        console.print(f"  {variant.name}: {proof(variant)}", soft_wrap=True, markup=False)
    for choice in result.manifest.choices:
        console.print(choice_table(choice))
    for warning in result.manifest.warnings():
        console.print(f"  ! {warning}", soft_wrap=True, markup=False)


def proof(variant: Variant) -> str:
    """What was proven of a variant, in one line."""
    worst = variant.largest_difference
    told = f"parity over {len(variant.parity)} runs, largest difference {worst:.2g}"
    return told if variant.accuracy is None else f"{told}; {variant.accuracy}"
