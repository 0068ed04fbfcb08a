"""``deployc lock``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click

from compiler.disk import disk_errors
from compiler.lock import LOCK, Locked, check_lock, lock_entry, write_lock
from compiler.progress import Reporter
from compiler.weights import find_weights
from specs.errors import Problem, SpecError
from specs.loader import LoadedSpec, load_spec, spec_files
from specs.reports import problems_of

__all__ = ["lock"]


@click.command(short_help="Pin by hash what specs are built from.")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="SPEC...",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 where a lock would change.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def lock(paths: tuple[Path, ...], *, check: bool, quiet: bool) -> None:
    """Write deployc.lock beside each SPEC: the SHA-256 of its weights, sources and samples.

    SPEC is a file, or a folder, of which every .yaml and .yml file is taken. Weights that come by
    URL are downloaded, but for --check, which needs no network.
    `deployc build --locked` refuses to build where anything differs.
    """
    files = spec_files(paths)
    if not files:
        raise click.UsageError(f"no .yaml or .yml file in {', '.join(map(str, paths))}")
    specs = [load_spec(file) for file in files]
    with disk_errors():
        if check:
            _check(specs)
        else:
            _write(specs, Reporter(quiet=quiet))


def _check(specs: list[LoadedSpec]) -> None:
    problems: list[Problem] = []
    for loaded in specs:
        try:
            check_lock(loaded)
        except SpecError as error:
            problems += problems_of(error, loaded.path)
    if problems:
        hint = f"undo the changes, or run `deployc lock` where they are wanted, and commit {LOCK}"
        code = problems[0].code
        message = "\n".join(map(str, problems))
        raise SpecError(message, hint=hint, code=code, problems=tuple(problems))
    click.echo(f"{len(specs)} spec(s) as locked")


def _write(specs: list[LoadedSpec], reporter: Reporter) -> None:
    entries: dict[Path, dict[str, Locked]] = defaultdict(dict)
    for loaded in specs:
        with reporter.step("weights") as step:
            weights = find_weights(loaded.spec, loaded.folder, None, reporter)
            step.detail = f"{loaded.spec.name}: {weights.origin}"
        entries[loaded.path.parent][loaded.path.name] = lock_entry(loaded, weights)
    for folder, found in entries.items():
        changed = write_lock(folder, found)
        state = "wrote" if changed else "unchanged"
        click.echo(f"{state} {folder / LOCK}: {len(found)} spec(s)")
