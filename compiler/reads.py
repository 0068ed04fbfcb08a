"""The local files that a model is made of: what an export must be run again for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from compiler.cache import RESULT
from specs.manifest import MANIFEST
from specs.schema import Spec

__all__ = ["source_files"]

MOST = 1000
"""Python files beside a source that count as part of it, at most."""
FOREIGN = frozenset({"site-packages", "node_modules", "__pycache__"})


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
        return list(islice(_python_files(file.parent), MOST))
    if file.suffix == ".onnx":
        from compiler.graph import external_files

        return [path for path in external_files(file) if path.is_file()]
    return []


def _python_files(folder: Path) -> Iterator[Path]:
    """What a file in ``folder`` may import: nothing hidden, installed, or built here.

    Folders that go away meanwhile, such as another build's drafts, are no error.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in FOREIGN)
        if MANIFEST in names or RESULT in names:
            folders.clear()
            continue
        yield from (Path(parent, name) for name in sorted(names) if name.endswith(".py"))
