"""Accuracy over labelled samples: PyTorch's, the variant's, and the drop between them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compiler.samples import preprocess_file
from runtime.processing import Processing
from runtime.tensors import Array, Tensors, chunks, group_by_shape, pad, stack
from specs.errors import ParityError, SourceError
from specs.manifest import AccuracyResult
from specs.schema import Accuracy, Spec

__all__ = ["Labelled", "check_drop", "count_right", "read_labels"]

TOP = {"top1": 1, "top5": 5}


@dataclass(frozen=True)
class Labelled:
    """A sample file and its class."""

    file: Path
    index: int


def read_labels(accuracy: Accuracy, folder: Path) -> list[Labelled]:
    """The rows of ``verify.accuracy.labels``.

    Raises:
        SourceError: the file is missing, has other columns, or names a sample that is not there.
    """
    path = folder / accuracy.labels
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        found = [Labelled(path.parent / row["file"], int(row["class_index"])) for row in rows]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        message = f"{path} cannot be read as labels: {type(error).__name__}: {error}"
        hint = "expected a CSV file with the columns file and class_index"
        raise SourceError(message, hint=hint, code="labels_unreadable") from error
    lost = [item.file.name for item in found if not item.file.is_file()]
    if lost or not found:
        told = f"samples that are not there: {', '.join(lost[:5])}" if lost else "no samples"
        raise SourceError(f"{path} names {told}", code="labels_samples")
    return found


def count_right(
    labelled: Sequence[Labelled],
    processing: Processing,
    run: Callable[[Tensors], Array],
    spec: Spec,
    metric: str,
) -> int:
    """How many samples ``run`` answers right.

    Args:
        labelled: the samples.
        processing: the generated pre-processing.
        run: gives [batch, classes] for a batch of the graph's inputs.
        spec: says the batch sizes.
        metric: ``top1`` or ``top5``.
    """
    right = 0
    for part in chunks(len(labelled), spec.batch.opt):
        samples = labelled[part]
        items = [preprocess_file(processing, sample.file, "verify.accuracy") for sample in samples]
        for group in group_by_shape(items):
            batch = pad(stack([items[index] for index in group]), spec.batch.min)
            scores = run(batch)[: len(group)].astype(np.float64)
            best = np.argsort(-scores, axis=1, kind="stable")[:, : TOP[metric]]
            right += sum(samples[i].index in row for i, row in zip(group, best, strict=True))
    return right


def check_drop(result: AccuracyResult, budget: Accuracy) -> None:
    """Raise ``ParityError`` (``accuracy_drop``) where the variant loses more than is allowed."""
    if result.drop > budget.max_drop:
        message = (
            f"{result.metric} fell from {result.reference}/{result.count} to "
            f"{result.variant}/{result.count}: a drop of {result.drop:.4f}, "
            f"allowed are {budget.max_drop:g}"
        )
        raise ParityError(message, hint="use a higher precision", code="accuracy_drop")
