"""The local files that a model is made of: what an export must be run again for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from specs.schema import Spec

__all__ = ["source_files"]

MOST = 1000
"""Python files beside a source that count as part of it, at most."""


def source_files(spec: Spec, folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of the files that the source names, and of those that these may read.

    Of a Python file the Python files beside and below it, which it may import; of an ONNX file
    those that hold its weights. What a Python file opens itself is not known here.
    """
    names = list(spec.model.files())
    if spec.export.custom_translations:
        names.append(spec.export.custom_translations.rpartition(":")[0])
    for name in names:
        file = folder / name
        if file.is_file():
            yield name, file
        for path in _read_by(file):
            yield path.relative_to(file.parent).as_posix(), path


def _read_by(file: Path) -> list[Path]:
    if file.suffix == ".py":
        return sorted(path for path in file.parent.rglob("*.py") if _counts(path, file.parent))[
            :MOST
        ]
    if file.suffix == ".onnx":
        from compiler.graph import external_files

        return [path for path in external_files(file) if path.is_file()]
    return []


def _counts(path: Path, folder: Path) -> bool:
    """Whether it can be a neighbour: what lies in an environment or a hidden folder is none."""
    parts = path.relative_to(folder).parts
    return not any(part.startswith(".") or part == "site-packages" for part in parts)
