"""``top_k``: the best classes, best first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Stage
from specs.ops._checks import need_classes, need_float_tensor
from specs.ops._labels import Labelled, class_entry
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TopK"]


class TopK(Labelled):
    """Rank the classes and keep the best; of equal ones, the first comes first.

    An entry's value is called ``probability`` where softmax or sigmoid came before (values from
    0 to 1), else ``score``.
    """

    name: ClassVar[str] = "top_k"
    shorthand: ClassVar[str] = "k"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    k: Annotated[int, Field(ge=1, strict=True)] = 5
    """How many."""

    def flow(self, value: Value) -> Value:
        classes = need_classes("top_k", value)
        need_float_tensor("top_k", value)
        self.check_labels(classes)
        if isinstance(classes, int) and self.k > classes:
            message = f"top_k has k: {self.k}, the output has {classes} classes"
            raise FlowError(message, f"use k: {classes} or less")
        return Value("classes", shape=value.shape[:1])

    def emit(self, value: Value) -> Emitted:
        word = "probability" if value.probability else "score"
        labels = "LABELS" if self.labels else "None"
        return Emitted(
            f'top_k({{x}}, {self.k}, "{word}", {labels})',
            f"Name the best {self.k}." if self.k > 1 else "Name the best one.",
            (top_k, *self.label_readers()),
            self.label_constants(),
        )


def top_k(
    x: NDArray[Any],
    k: int,
    word: str,
    labels: list[Any] | None,
) -> list[Any]:
    """Return the ``k`` best classes of every row, best first."""
    best = np.argsort(-x, axis=1, kind="stable")[:, :k]
    return [
        [class_entry(int(i), labels) | {word: float(row[i])} for i in order]
        for row, order in zip(x, best, strict=True)
    ]
