"""Names of classes: the option that several steps share, how they are read, and ranked entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from specs.ops._base import Op
from specs.values import Dim, FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Labelled",
    "Labels",
    "class_entry",
    "join_languages",
    "label_file",
    "ranked",
    "read_labels",
]

Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}([_-][A-Za-z0-9]+)*$")]
File = Annotated[str, Field(min_length=1)]
Labels = File | Annotated[dict[Language, File], Field(min_length=1)]


class Labelled(Op):
    """An op that names classes."""

    labels: Labels | None = None
    """A text file with one name per line in class order, or one file for each language."""

    def label_files(self) -> dict[str, str]:
        """The spec's files by language; the key "" where there is one without a language."""
        if self.labels is None:
            return {}
        return {"": self.labels} if isinstance(self.labels, str) else dict(self.labels)

    def check_labels(self, classes: Dim) -> None:
        """Refuse labels where the number of classes is open, so that none can be missing."""
        if self.labels is not None and isinstance(classes, str):
            message = f"labels need a fixed number of classes, found '{classes}'"
            raise FlowError(message, "give the output's shape a size, or remove labels")

    def with_labels(self, value: Value) -> Value:
        """``value``, which tells the languages of the labels that come with it."""
        languages = tuple(language for language in self.label_files() if language)
        return value.but(labels=self.labels is not None, languages=languages)

    @property
    def label_names(self) -> str:
        """The expression of the labels."""
        return "LABELS" if self.labels else "None"

    def label_readers(self) -> tuple[Callable[..., Any], ...]:
        """The functions that ``label_constants`` calls."""
        if self.labels is None:
            return ()
        return (read_labels,) if isinstance(self.labels, str) else (join_languages,)

    def label_constants(self) -> dict[str, str]:
        """The generated file's ``LABELS``."""
        names = {language: label_file(language) for language in self.label_files()}
        if not names:
            return {}
        if "" in names:
            return {"LABELS": f'read_labels("{names[""]}")'}
        pairs = ", ".join(f'"{language}": "{name}"' for language, name in names.items())
        return {"LABELS": f"join_languages({{{pairs}}})"}


def label_file(language: str) -> str:
    """Name of the label file in the artifact."""
    return f"labels.{language}.txt" if language else "labels.txt"


def read_labels(name: str) -> list[str]:
    """Read one label per line from a file that lies beside this one."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n")


def join_languages(files: dict[str, str]) -> list[dict[str, str]]:
    """Read one file per language; a class's label is its names by language."""
    names = {language: read_labels(name) for language, name in files.items()}
    count = min(len(lines) for lines in names.values())
    return [{key: lines[i] for key, lines in names.items()} for i in range(count)]


def class_entry(index: int, labels: list[Any] | None) -> dict[str, Any]:
    """Return a class of an answer, with its label where there are any."""
    return {"index": index} | ({"label": labels[index]} if labels else {})


def ranked(
    values: NDArray[Any],
    indices: NDArray[Any],
    word: str,
    labels: list[Any] | None,
) -> list[Any]:
    """Return one item's classes, best first: of equal ones the first, NaN last."""
    return [
        class_entry(int(indices[place]), labels) | {word: float(values[place])}
        for place in np.lexsort((indices, -values))
    ]
