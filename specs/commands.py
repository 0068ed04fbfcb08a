"""``deployc validate`` and ``deployc schema``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from specs.errors import Problem, SpecError

__all__ = ["schema", "validate"]


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
@click.pass_context
def validate(ctx: click.Context, paths: tuple[Path, ...], form: str) -> None:
    """Check specs, without torch and without a network.

    PATH is a file, or a folder, of which every .yaml and .yml file is taken, to the bottom.
    Exit status: 0 all are valid; 1 some are not; 2 wrong usage.
    """
    from specs.loader import load_spec, spec_files

    files = spec_files(paths)
    if not files:
        raise click.UsageError(f"no .yaml or .yml file in {', '.join(map(str, paths))}")
    found: dict[Path, tuple[Problem, ...]] = {}
    for file in files:
        try:
            load_spec(file)
        except SpecError as error:
            found[file] = error.problems
    problems = [problem for group in found.values() for problem in group]
    for line in _FORMATS[form](problems, len(files), len(found)):
        click.echo(line)
    ctx.exit(1 if found else 0)


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
