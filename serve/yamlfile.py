"""A YAML file as Ray reads it, with the line and column of every key and value.

Ray Serve reads its config with PyYAML's safe loader, so that is what reads it here, too: what is
checked is what Ray would see. (Specs have a reader of their own, with other rules for scalars.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from specs.errors import Problem
from specs.faults import Path as FieldPath

__all__ = ["MAX_BYTES", "YamlFile", "YamlFileError", "read_yaml"]

MAX_BYTES = 1_000_000
"""Largest file that is read as a Serve config."""


class YamlFileError(Exception):
    """The file cannot be read; ``problem`` says why and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A mapping read from a file."""

    path: Path
    data: dict[str, Any]
    places: dict[FieldPath, tuple[int, int]]
    """Line and column of each key or list item, from 1."""

    def problem(self, where: FieldPath, code: str, message: str, hint: str = "") -> Problem:
        """A problem at ``where``, or at the nearest of its parents that stands in the file."""
        found = where
        while found and found not in self.places:
            found = found[:-1]
        line, column = self.places.get(found, (1, 1))
        return Problem(str(self.path), line, column, _dotted(where), code, message, hint)


def read_yaml(path: Path) -> YamlFile:
    """The mapping in the file at ``path``. Raises YamlFileError."""
    try:
        node, data = _load(_text(path))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise _error(path, f"not valid YAML: {error.problem}", line, column) from error
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise _error(path, f"not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict):
        raise _error(path, "found no mapping, expected a Ray Serve config")
    places: dict[FieldPath, tuple[int, int]] = {}
    for where, mark in _walk(node, ()):
        if where in places and isinstance(where[-1], str):
            message = f"the key '{where[-1]}' stands twice, first in line {places[where][0]}"
            raise _error(path, message, mark.line + 1, mark.column + 1)
        places[where] = (mark.line + 1, mark.column + 1)
    return YamlFile(path, cast("dict[str, Any]", data), places)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _error(path, f"the file is larger than {MAX_BYTES:,} bytes")
        return path.read_text("utf-8")
    except OSError as error:
        raise _error(path, f"the file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _error(path, "the file is not text in UTF-8") from error


def _load(text: str) -> tuple[Any, object]:
    loader = yaml.SafeLoader(text)
    try:
        node = cast("Any", loader).get_single_node()
        return node, cast("Any", loader).construct_document(node) if node else None
    finally:
        cast("Any", loader).dispose()


def _walk(node: Any, path: FieldPath) -> Iterator[tuple[FieldPath, yaml.Mark]]:  # noqa: ANN401 - PyYAML's nodes are untyped
    """Every path in the tree with its mark; a key that stands twice comes twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in cast("list[tuple[Any, Any]]", node.value):
            where = (*path, str(key.value))
            yield where, key.start_mark
            yield from _walk(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(cast("list[Any]", node.value)):
            yield (*path, index), value.start_mark
            yield from _walk(value, (*path, index))


def _dotted(path: FieldPath) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def _error(path: Path, message: str, line: int = 0, column: int = 0) -> YamlFileError:
    return YamlFileError(Problem(str(path), line, column, "", "serve_config", message))
