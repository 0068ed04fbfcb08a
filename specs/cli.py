"""``deployc``: finds the subcommands of all packages, and loads the one that is run."""

from __future__ import annotations

import ast
import errno
import os
import sys
from contextlib import suppress
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from specs.errors import DeploycError, SpecError
from specs.faults import nearest

__all__ = ["EXTRAS", "main", "print_error"]

EXTRAS = {
    "jinja2": "build",
    "matplotlib": "build",
    "onnx": "build",
    "onnxscript": "build",
    "openvino": "openvino",
    "ray": "serve",
    "requests": "build",
    "safetensors": "build",
    "tensorrt": "tensorrt",
    "torch": "build",
    "torchvision": "build",
}
"""Which extra of the installation brings an imported package."""

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What stdout says where a disk is full, or gone."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


class Commands(click.Group):
    """The commands of the entry-point group ``deployc.commands``, each loaded when it is run."""

    @cached_property
    def points(self) -> dict[str, EntryPoint]:
        """Entry points by the command's name."""
        return {point.name: point for point in entry_points(group="deployc.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(self.points)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        point = self.points.get(cmd_name)
        return point.load() if point else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.points:
            ctx.fail(f"no command {args[0]!r}: {nearest(args[0], self.points)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, summary(self.points[name])) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.filename is not None or error.errno not in UNWRITABLE:
                raise
            _give_up_stdout()
            click.echo(f"error: the output cannot be written: {error.strerror}", err=True)
            click.echo("hint: make room, or send it elsewhere", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().invoke(ctx)
        except DeploycError as error:
            print_error(error)
            ctx.exit(1)
        except ModuleNotFoundError as error:
            _print_extra(error)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _give_up_stdout() -> None:
    """Let what Python still holds for stdout go nowhere: flushing it at exit would fail again."""
    with suppress(OSError, ValueError):  # a stdout that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def summary(point: EntryPoint) -> str:
    """First line of a command's docstring, read without importing it.

    `deployc --help` shows every command, also those whose libraries are not installed or take
    seconds to import.
    """
    package, *modules = point.module.split(".")
    spec = PathFinder.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder, *modules).with_suffix(".py")
        if file.is_file():
            return _docstring(file.read_text(encoding="utf-8"), point.attr)
    return ""


def _docstring(source: str, function: str) -> str:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def print_error(error: DeploycError) -> None:
    """Print what is wrong and what to do, to stderr."""
    problems = error.problems if isinstance(error, SpecError) else ()
    for text in problems or (error.message,):
        click.echo(f"error: {text}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)


def _print_extra(error: ModuleNotFoundError) -> None:
    """Say what to install; a module that no extra brings is a fault of ours, and raised."""
    package = (error.name or "").split(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        raise error
    click.echo(f"error: this command needs {package}, which is not installed", err=True)
    click.echo(f'hint: pip install "deployc[{extra}]"', err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deployc", message="deployc %(version)s")
def main() -> None:
    """Build, prove and serve a model from one YAML file.

    Exit status: 0 done; 1 the spec, build, check or input is at fault; 2 wrong usage.
    """


if __name__ == "__main__":
    sys.exit(main())
