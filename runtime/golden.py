"""Golden tensors of an artifact: inputs, and the outputs that the reference gave for them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.tensors import Tensors, rows
from specs.errors import ArtifactError

__all__ = ["CASES", "GOLDEN", "SHIFTS", "Case", "Golden", "batch_of", "read_golden"]

GOLDEN = "golden"
"""Their folder in an artifact."""
CASES = "cases.json"
"""The list of the cases in that folder."""
SHIFTS = (0, 1)
"""Where a batch starts among the items: each item is answered in two neighbourhoods."""


@dataclass(frozen=True)
class Case:
    """Some items, and the batch sizes to run them at.

    Args:
        name: what a person sees: ``samples``, ``random``, ``height=16``.
        inputs: the items, by input name, along the first dimension.
        batches: sizes at which the case is run.
    """

    name: str
    inputs: Tensors
    batches: tuple[int, ...]


@dataclass(frozen=True)
class Golden:
    """A case with the reference's outputs, one row an item."""

    case: Case
    outputs: Tensors


def batch_of(inputs: Tensors, size: int, shift: int) -> Tensors:
    """A batch of ``size`` items, repeated in order from item ``shift`` on."""
    index = (np.arange(size) + shift) % rows(inputs)
    return {name: np.ascontiguousarray(array[index]) for name, array in inputs.items()}


def read_golden(folder: Path) -> Iterator[Golden]:
    """The golden cases in ``folder``, one at a time.

    Raises:
        ArtifactError: they are missing or cannot be read (``golden_unreadable``).
    """
    try:
        for entry in json.loads((folder / CASES).read_text("utf-8")):
            yield _read_case(folder / entry["file"], entry["name"], tuple(entry["batches"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        message = f"the golden tensors in {folder} cannot be read: {error}"
        hint = "run `deployc build SPEC` again"
        raise ArtifactError(message, hint=hint, code="golden_unreadable") from error


def _read_case(file: Path, name: str, batches: tuple[int, ...]) -> Golden:
    with np.load(file, allow_pickle=False) as arrays:
        inputs = {key[7:]: arrays[key] for key in arrays.files if key.startswith("inputs/")}
        outputs = {key[8:]: arrays[key] for key in arrays.files if key.startswith("outputs/")}
    return Golden(Case(name, inputs, batches), outputs)
