"""Reads specs: from a YAML file to a ``Spec``, or to every problem in it with its place.

Problems of YAML itself come first and alone; then those of single fields; then those between
fields; then files that are not there. A stage is reached when the one before found nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from specs._files import missing_files
from specs._nodes import Place, YamlError
from specs._translate import faults_of
from specs._yaml import Document, parse
from specs.errors import Problem, SpecError
from specs.faults import Fault
from specs.faults import Path as FieldPath
from specs.schema import Spec

__all__ = ["MAX_BYTES", "LoadedSpec", "field_path", "load_spec", "spec_files"]

MAX_BYTES = 1_000_000
"""Largest file that is read as a spec."""

_SUFFIXES = (".yaml", ".yml")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class LoadedSpec:
    """A spec and the file it came from.

    Args:
        spec: the validated spec.
        path: the file, as it was asked for.
        folder: the absolute folder that the spec's paths are relative to.
        document: the file's YAML with its places.
    """

    spec: Spec
    path: Path
    folder: Path
    document: Document

    def problem_at(self, path: FieldPath, code: str, message: str, hint: str = "") -> Problem:
        """A problem with the field at ``path``, such as ``("preprocess", 1, "resize")``."""
        return _problem(self.path, self.document, Fault(path, code, message, hint))


def load_spec(path: Path) -> LoadedSpec:
    """The spec in the file at ``path``.

    Raises:
        SpecError: the file cannot be read or is no valid spec; ``problems`` holds all of the
            stage that was reached.
    """
    document = _document(path)
    try:
        # Strict, since YAML has types of its own: true is no number, and "18" is a text.
        spec = Spec.model_validate(document.data, strict=True)
    except ValidationError as error:
        faults = faults_of(error, Spec, document.data)
        raise _error(path, document, faults) from error
    loaded = LoadedSpec(spec, path, path.absolute().parent, document)
    if missing := list(missing_files(spec, loaded.folder)):
        raise _error(path, document, missing)
    return loaded


def spec_files(paths: Iterable[Path]) -> list[Path]:
    """The files to take as specs: those named, and of folders every YAML file, each once.

    A file that is named is taken whatever its name. Folders are searched to the bottom, in
    alphabetical order; names that start with a dot are left out. YAML files that are no specs
    (``deploy.yaml``) are not told apart: a spec with a broken head would go unchecked.
    """
    found = (file for path in paths for file in (_walk(path) if path.is_dir() else [path]))
    return list({file.absolute(): file for file in found}.values())


def field_path(path: FieldPath) -> str:
    """``preprocess[1].resize.interpolation``."""
    return "".join(map(_part, path)).removeprefix(".")


def _part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _PLAIN_KEY.fullmatch(part) else f"[{part!r}]"


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(parent, name)
            for name in sorted(files)
            if name.endswith(_SUFFIXES) and not name.startswith(".")
        )


def _document(path: Path) -> Document:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise _at_file(path, "file_unreadable", f"the file cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES:,} bytes, no spec is"
        raise _at_file(path, "file_size", message)
    try:
        return parse(raw)
    except YamlError as error:
        faults = (_at(path, item.place, item.fault) for item in error.faults)
        raise SpecError.of(*faults) from error


def _error(path: Path, document: Document, faults: Iterable[Fault]) -> SpecError:
    problems = {_problem(path, document, fault) for fault in faults}
    # Several lie at one place: in which order they are told must not change from run to run.
    return SpecError.of(*sorted(problems, key=lambda p: (p.line, p.column, p.path, p.code)))


def _problem(path: Path, document: Document, fault: Fault) -> Problem:
    return _at(path, document.place(fault.path, of_key=fault.in_key), fault)


def _at(path: Path, place: Place, fault: Fault) -> Problem:
    where = field_path(fault.path)
    return Problem(
        _name(path), place.line, place.column, where, fault.code, fault.message, fault.hint
    )


def _at_file(path: Path, code: str, message: str) -> SpecError:
    return SpecError.of(Problem(_name(path), 0, 0, "", code, message))


def _name(path: Path) -> str:
    """The path as text that can be printed, even where the file's name is no UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
