"""Reads and checks the label files that a spec names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from specs.errors import Problem, SpecError
from specs.flow import postprocess_start, walk
from specs.ops._labels import Labelled
from specs.schema import Spec
from specs.values import Dim

__all__ = ["label_steps", "read_labels"]


def label_steps(spec: Spec) -> Iterator[tuple[int, Labelled, Dim]]:
    """The steps that name classes: their place, and how many classes they have."""
    for index, (step, value, _) in enumerate(walk(spec.postprocess, postprocess_start(spec))):
        if isinstance(step, Labelled) and step.labels:
            yield index, step, value.shape[-1]


def read_labels(spec: Spec, folder: Path) -> dict[str, list[str]]:
    """Labels by language; the key is "" where the spec names one file without a language.

    Args:
        spec: a valid spec.
        folder: the spec's own folder, which its paths are relative to.

    Raises:
        SpecError: a file is missing (``labels_missing``), is no UTF-8 text
            (``labels_encoding``), or has not one line per class (``labels_count``).
    """
    labels: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for index, step, classes in label_steps(spec):
        for language, name in step.label_files().items():
            place = f"postprocess[{index}].{type(step).name}.labels"
            place += f".{language}" if language else ""
            try:
                labels[language] = _read(folder / name, classes)
            except _BadLabelsError as error:
                code, message, hint = error.args
                problems.append(Problem(str(folder / name), 0, 0, place, code, message, hint))
    if problems:
        raise SpecError(
            "\n".join(str(problem) for problem in problems),
            code=problems[0].code,
            problems=tuple(problems),
        )
    return labels


class _BadLabelsError(Exception):
    """Code, message and hint of one faulty file."""


def _read(path: Path, classes: Dim) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = "paths are relative to the spec's folder"
        raise _BadLabelsError(
            "labels_missing", f"cannot be read: {error.strerror}", hint
        ) from error
    except UnicodeDecodeError as error:
        message = f"is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        raise _BadLabelsError("labels_encoding", message, "save the file as UTF-8") from error
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if len(lines) != classes:
        message = f"has {len(lines)} lines, the output has {classes} classes"
        hint = "write one name per line, line n + 1 for class n"
        raise _BadLabelsError("labels_count", message, hint)
    return lines
