"""What `deployc predict` answers: files and texts, each for itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.files import read_file
from runtime.predictor import Predictor
from runtime.tensors import Tensors
from specs.errors import InputError
from specs.manifest import Manifest

__all__ = ["Answer", "Given", "answer_all", "given_of"]

SHOWN_TEXT = 60
"""Characters of a text that name it in what is printed."""
Answer = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """An item and where it came from: a file, or the text itself; or why there is none."""

    key: Literal["file", "text"]
    source: str
    item: Any = None
    error: InputError | None = None

    def __str__(self) -> str:
        return self.source if self.key == "file" else f'"{_shortened(self.source)}"'

    def named(self, error: InputError) -> InputError:
        """The error, with what it is about."""
        return InputError(f"{self}: {error.message}", hint=error.hint, code=error.code)


def given_of(files: Iterable[Path], texts: Sequence[str], manifest: Manifest) -> Iterator[Given]:
    """Every item of the files, then the texts; InputError where the artifact takes no texts."""
    if texts and manifest.takes != "text":
        what = {"image": "pictures", "audio": "sounds"}.get(manifest.takes, "tensors")
        message = f"{manifest.name} takes {what}, no text"
        raise InputError(message, hint="name files in place of --text", code="wrong_input")
    for file in files:
        try:
            yield from (Given("file", str(file), item) for item in read_file(file, manifest))
        except InputError as error:
            yield Given("file", str(file), error=error)
    yield from (Given("text", text, text) for text in texts)


def answer_all(predictor: Predictor, given: Sequence[Given]) -> list[Answer | InputError]:
    """For each item its answer, or the error that names it."""
    prepared = [_prepared(predictor, each) for each in given]
    taken = [each for each in prepared if not isinstance(each, InputError)]
    answers = iter(predictor.postprocess(predictor.run(taken)) if taken else [])
    return [each if isinstance(each, InputError) else next(answers) for each in prepared]


def _prepared(predictor: Predictor, given: Given) -> Tensors | InputError:
    if given.error is not None:
        return given.named(given.error)
    try:
        return predictor.preprocess(given.item)
    except InputError as error:
        return given.named(error)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_TEXT else f"{line[: SHOWN_TEXT - 1]}…"
