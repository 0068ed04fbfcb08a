"""The files that a spec names as samples, and their items as the graph's inputs."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from runtime.processing import Processing
from runtime.tensors import Tensors
from specs.errors import InputError, SourceError
from specs.schema import Spec

__all__ = ["calibration_files", "preprocess_file", "read_item", "read_items", "sample_files"]


def sample_files(spec: Spec, folder: Path) -> list[Path]:
    """The files that ``verify.samples`` names, each pattern sorted."""
    return _files(spec.verify.samples, folder, "verify.samples")


def calibration_files(spec: Spec, folder: Path) -> list[Path]:
    """The files that int8 is calibrated with: ``calibration.samples``, else ``verify.samples``.

    At most ``calibration.count``, taken evenly: of files sorted by class, each class has its share.
    """
    if spec.calibration is None:
        return sample_files(spec, folder)
    files = _files(spec.calibration.samples, folder, "calibration.samples")
    count = min(spec.calibration.count, len(files))
    return [files[number * len(files) // count] for number in range(count)]


def _files(patterns: Iterable[str], folder: Path, field: str) -> list[Path]:
    files: list[Path] = []
    for pattern in patterns:
        # As the spec's own check does: an absolute pattern stands for itself.
        names = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207
        found = sorted(folder / name for name in names if (folder / name).is_file())
        if not found:
            message = f"{field}: no file matches {pattern} in {folder}"
            raise SourceError(message, hint="correct the pattern", code="samples_missing")
        files += found
    return files


def read_items(files: Iterable[Path], processing: Processing, field: str) -> Iterator[Tensors]:
    """The graph's inputs for each file, at batch 1."""
    for file in files:
        item = preprocess_file(processing, file, field)
        yield {name: array[np.newaxis] for name, array in item.items()}


def preprocess_file(processing: Processing, file: Path, field: str) -> Tensors:
    """The graph's inputs for one file, without the batch; ``field`` is what named the file."""
    try:
        found = processing.preprocess(read_item(file))
    except InputError as error:
        message = f"{field}: {file.name}: {error.message}"
        raise SourceError(message, hint=error.hint, code="sample_unusable") from error
    # What travels beside the inputs is no part of them.
    return {name: array for name, array in found.items() if not name.startswith("@")}


def read_item(file: Path) -> bytes | str | np.ndarray:
    """A sample as a request would bring it.

    The array in a ``.npy``, the text in a ``.txt``, else the bytes of a file.
    """
    if file.suffix == ".txt":
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file.name} is no text in UTF-8: {error}") from error
    if file.suffix == ".npy":
        try:
            return np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{file.name} is no .npy file: {error}") from error
    return file.read_bytes()
