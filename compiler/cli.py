"""``deployc build``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path

import click
from rich.console import Console

from compiler.build import BuildResult, build
from compiler.progress import Reporter
from compiler.weights import parse_override
from specs.digests import file_sha256
from specs.loader import load_spec
from specs.manifest import MANIFEST, Variant

__all__ = ["build_command"]


@click.command("build", short_help="Build a spec into a proven artifact.")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the artifact.")
@click.option("--target", "targets", multiple=True, help="Build this target alone; repeatable.")
@click.option("--weights", metavar="FILE|random:SEED", help="In place of the spec's weights.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress.")
def build_command(  # noqa: PLR0913 - one argument per option
    spec: Path,
    output: Path | None,
    targets: tuple[str, ...],
    weights: str | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Build SPEC into an artifact: export, check, prove, write (default: build/<name>).

    Progress goes to stderr, the result to stdout. Exit status 1 where anything is not as the spec
    asks; the artifact that was there before then stays.
    """
    override = None if weights is None else parse_override(weights)
    loaded = load_spec(spec)
    reporter = Reporter(quiet=quiet)
    folder = output or Path("build") / loaded.spec.name
    with _stdout_to_stderr():
        result = build(loaded, folder, reporter=reporter, targets=targets, weights=override)
    if as_json:
        click.echo(json.dumps(_as_json(result, reporter), indent=1))
    else:
        _print(result)


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
    for warning in result.manifest.warnings():
        console.print(f"  ! {warning}", soft_wrap=True, markup=False)


def proof(variant: Variant) -> str:
    """What was proven of a variant, in one line."""
    worst = variant.largest_difference
    told = f"parity over {len(variant.parity)} runs, largest difference {worst:.2g}"
    return told if variant.accuracy is None else f"{told}; {variant.accuracy}"
