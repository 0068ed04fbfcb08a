"""``deployc validate`` and ``deployc schema``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from specs.errors import Problem, SpecError
from specs.reports import Outcome, junit, problems_of, sarif, write_report

__all__ = ["schema", "validate"]

REPORT = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH...",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="Lines to read, a list of problems, or annotations for GitHub Actions.",
)
@click.option("--junit", "junit_file", type=REPORT, help="Write a JUnit XML report.")
@click.option("--sarif", "sarif_file", type=REPORT, help="Write a SARIF 2.1.0 report.")
@click.pass_context
def validate(
    ctx: click.Context,
    paths: tuple[Path, ...],
    form: str,
    junit_file: Path | None,
    sarif_file: Path | None,
) -> None:
    """Check specs, without torch and without a network.

    PATH is a file, or a folder, of which every .yaml and .yml file is taken, to the bottom.
    Exit status: 0 all are valid; 1 some are not; 2 wrong usage.
    """
    from specs.loader import load_spec, spec_files

    files = spec_files(paths)
    if not files:
        raise click.UsageError(f"no .yaml or .yml file in {', '.join(map(str, paths))}")
    outcomes = [_outcome(file, load_spec) for file in files]
    _report(outcomes, junit_file, sarif_file)
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    invalid = sum(outcome.state == "failed" for outcome in outcomes)
    for line in _FORMATS[form](problems, len(files), invalid):
        click.echo(line)
    ctx.exit(1 if invalid else 0)


def _outcome(file: Path, load: Callable[[Path], object]) -> Outcome:
    start = time.perf_counter()
    try:
        load(file)
    except SpecError as error:
        found = problems_of(error, file)
        return Outcome(str(file), "failed", time.perf_counter() - start, problems=found)
    return Outcome(str(file), "passed", time.perf_counter() - start)


def _report(outcomes: Sequence[Outcome], junit_file: Path | None, sarif_file: Path | None) -> None:
    if junit_file is not None:
        write_report(junit_file, junit("deployc validate", outcomes))
    if sarif_file is not None:
        write_report(sarif_file, sarif(outcomes))


@click.command()
def schema() -> None:
    """Print the JSON Schema of specs, for editors."""
    from specs.jsonschema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _text(problems: list[Problem], files: int, invalid: int) -> list[str]:
    return [*map(str, problems), _summary(problems, files, invalid)]


def _summary(problems: list[Problem], files: int, invalid: int) -> str:
    counts = f"{files - invalid} valid, {invalid} invalid"
    return f"{files} spec(s): {counts}, {len(problems)} problem(s)"


def _json(problems: list[Problem], files: int, invalid: int) -> list[str]:
    del files, invalid
    return [json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False)]


def _github(problems: list[Problem], files: int, invalid: int) -> list[str]:
    return [*map(_annotation, problems), _summary(problems, files, invalid)]


def _annotation(problem: Problem) -> str:
    """A workflow command, escaped as actions/toolkit's command.ts does."""
    properties = {"file": problem.file, "line": problem.line, "col": problem.column}
    given = {key: value for key, value in properties.items() if value}
    given["title"] = f"deployc {problem.code}"
    fields = ",".join(f"{key}={_escaped(str(value), ':,')}" for key, value in given.items())
    where = f"{problem.path}: " if problem.path else ""
    hint = f"\nhint: {problem.hint}" if problem.hint else ""
    return f"::error {fields}::{_escaped(where + problem.message + hint)}"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:  # % first, so that no escape is escaped
        text = text.replace(character, f"%{ord(character):02X}")
    return text


_FORMATS: dict[str, Callable[[list[Problem], int, int], list[str]]] = {
    "text": _text,
    "json": _json,
    "github": _github,
}
