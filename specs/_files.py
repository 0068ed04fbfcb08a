"""Whether the files that a spec names are there. Weights may be fetched later."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from specs._own_code import own_code_faults
from specs.faults import Fault, nearest
from specs.faults import Path as FieldPath
from specs.flow import postprocess_start, walk
from specs.ops import Op
from specs.ops._labels import Labelled
from specs.ops.python import Python
from specs.schema import Spec

__all__ = ["missing_files"]

LINES_HINT = "a label file has one line per class, in class order"


def missing_files(spec: Spec, folder: Path) -> Iterator[Fault]:
    """A fault per named file that is not below ``folder``, and per glob that matches nothing."""
    for path, name in _named(spec):
        if not os.path.isfile(folder / name):  # noqa: PTH113 - Path.is_file raises on long names
            yield _missing(path, folder, name)
    yield from _short_labels(spec, folder)
    yield from _own_code(spec, folder)
    for index, pattern in enumerate(spec.verify.samples):
        if not _matches(folder, pattern):
            message = f"no file matches {pattern!r} in the spec's folder"
            yield Fault(("verify", "samples", index), "samples_missing", message)


def _missing(path: FieldPath, folder: Path, name: str) -> Fault:
    if os.path.isdir(folder / name):  # noqa: PTH112 - as with files
        message = f"{name!r} is a folder, expected a file"
        return Fault(path, "file_missing", message, "name a file in it")
    message = f"there is no file {name!r} in the spec's folder"
    return Fault(path, "file_missing", message, _close(folder, name))


def _own_code(spec: Spec, folder: Path) -> Iterator[Fault]:
    """Files of ``python`` steps that are no Python, or lack the function; none of them is run."""
    for stage, steps in (("preprocess", spec.preprocess), ("postprocess", spec.postprocess)):
        for index, step in enumerate(steps):
            if isinstance(step, Python) and (source := _source(folder / step.file)) is not None:
                path: FieldPath = (stage, index, step.name)
                for fault in own_code_faults(step, source):
                    yield replace(fault, path=(*path, *fault.path))


def _source(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (OSError, ValueError):
        return None  # told as a file that is not there


def _named(spec: Spec) -> Iterator[tuple[FieldPath, str]]:
    source = spec.model
    fields = {value: name for name, value in source if isinstance(value, str)}
    for file in source.files():
        yield ("model", source.name, fields.get(file, "")), file
    if spec.export.custom_translations:
        file, _, _ = spec.export.custom_translations.rpartition(":")
        yield ("export", "custom_translations"), file
    for stage, steps in (("preprocess", spec.preprocess), ("postprocess", spec.postprocess)):
        for index, step in enumerate(steps):
            for path, file in (*_labels(step), *_files(step)):
                yield (stage, index, *path), file
    if spec.verify.accuracy is not None:
        yield ("verify", "accuracy", "labels"), spec.verify.accuracy.labels


def _labels(step: Op) -> Iterator[tuple[FieldPath, str]]:
    """Label files of a step: one, or one per language."""
    if isinstance(step, Labelled):
        for language, file in step.label_files().items():
            yield (step.name, "labels", *([language] if language else [])), file


def _files(step: Op) -> Iterator[tuple[FieldPath, str]]:
    """What a step reads beside labels: a tokenizer, code."""
    for option, file in step.files().items():
        yield (step.name, option), file


def _short_labels(spec: Spec, folder: Path) -> Iterator[Fault]:
    """Files with fewer or more names than there are classes: each would name the wrong ones."""
    steps = walk(spec.postprocess, postprocess_start(spec))
    for index, (step, value, _) in enumerate(steps):
        for path, file in _labels(step):
            count, classes = _lines(folder / file), value.shape[-1]
            if count is not None and count != classes:
                message = f"{file!r} has {count} lines, the output has {classes} classes"
                yield Fault(("postprocess", index, *path), "labels_count", message, LINES_HINT)


def _lines(file: Path) -> int | None:
    """Number of labels, counted as the generated code does; None for an unreadable file."""
    try:
        return len(file.read_bytes().removesuffix(b"\n").split(b"\n"))
    except (OSError, ValueError):
        return None


def _matches(folder: Path, pattern: str) -> bool:
    try:
        # glob joins the folder itself: an absolute pattern stands for itself.
        found = glob.iglob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207
        return any(os.path.isfile(folder / name) for name in found)  # noqa: PTH113 - see above
    except ValueError:  # a NUL in the pattern
        return False


def _close(folder: Path, name: str) -> str:
    """The nearest name of a file in the folder where the file should be."""
    try:
        names = os.listdir((folder / name).parent)  # noqa: PTH208 - names are wanted, not paths
    except (OSError, ValueError):
        return "paths are relative to the spec's folder"
    hint = nearest(Path(name).name, names)
    return hint if hint.startswith("did you mean") else ""
