"""``threshold``: every class that is likely enough, or a mask of 0 and 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import model_validator

from specs.ops._base import Emitted, Fused, Graph, Libraries, Stage, Symbols
from specs.ops._checks import need_classes, need_float_tensor
from specs.ops._labels import Labelled, ranked
from specs.ops.top_k import MOST, best_classes, entry_word
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Threshold"]


class Threshold(Labelled):
    """Keep the classes whose probability or score is above ``at``, best first: none, some or all.

    With ``mask: true``, give a tensor of the same shape in place of classes: uint8, 1 where an
    element is above ``at``. What equals ``at`` is not above it, nor is NaN (in the graph, that is
    the engine's). float16 is compared in float32; ``at`` is rounded to the elements' type.
    """

    name: ClassVar[str] = "threshold"
    shorthand: ClassVar[str] = "at"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    at: float
    """What a class must be above."""
    mask: bool = False
    """Give 0 and 1 for every element in place of ranked classes."""

    @model_validator(mode="after")
    def _check(self) -> Threshold:
        if self.mask and self.labels is not None:
            raise ValueError("labels name classes, and a mask has none: remove labels or mask")
        return self

    def flow(self, value: Value) -> Value:
        need_float_tensor("threshold", value)
        self._check_reachable(value)
        if self.mask:
            return value.but(dtype="uint8", low=0, high=1, probability=False, step=None)
        classes = need_classes("threshold", value)
        self.check_labels(classes)
        return self.with_labels(
            Value(
                "classes",
                value.dtype,
                (value.shape[0], classes),
                probability=value.probability,
                fewer=True,
            )
        )

    def emit(self, value: Value) -> Emitted:
        if self.mask:
            call = f"above({{x}}, {self.at!r}).astype(np.uint8)"
            return Emitted(call, f"1 where an element is above {self.at!r}, else 0.", (above,))
        return self._naming(f"{{x}}, {self.at!r}", value, classes_above)

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        dtype = "float64" if value.dtype == "float64" else "float32"
        if self.mask:
            wide = x if value.dtype == dtype else graph.cast(x, dtype)
            mask = graph.add("Greater", wide, graph.constant(self.at, dtype))
            # TensorRT converts only floating point to uint8.
            return Fused(graph.cast(graph.cast(mask, "float32"), "uint8"))
        classes = value.shape[1]
        if isinstance(classes, str) or classes > MOST:
            return None
        rest = self._naming(f"{{x}}, {self.at!r}", value, best_above)
        return Fused(best_classes(graph, x, value, classes), rest)

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        tensor = lib.torch.from_numpy(x)
        tensor = tensor.float() if value.dtype == "float16" else tensor
        if self.mask:
            return (tensor > self.at).to(lib.torch.uint8).numpy()
        word, answers = entry_word(value), list[Any]()
        for row in tensor:
            kept = lib.torch.nonzero(row > self.at)[:, 0]
            order = kept[row[kept].sort(descending=True, stable=True)[1]]
            pairs = zip(order.tolist(), row[order].tolist(), strict=True)
            answers.append([{"index": index, word: number} for index, number in pairs])
        return answers

    def _check_reachable(self, value: Value) -> None:
        """Refuse a bound that everything or nothing is above."""
        low = 0.0 if value.probability else value.low
        high = 1.0 if value.probability else value.high
        if high is not None and self.at >= high:
            message = f"nothing can be above {self.at:g}: the values are {high:g} at most"
            raise FlowError(message, f"choose at below {high:g}")
        if low is not None and self.at < low:
            message = f"everything is above {self.at:g}: the values are {low:g} at least"
            raise FlowError(message, f"choose at from {low:g} on, or rank them with - top_k")

    def _naming(self, arguments: str, value: Value, function: Callable[..., Any]) -> Emitted:
        word = entry_word(value)
        return Emitted(
            f'{function.__name__}({arguments}, "{word}", {self.label_names})',
            f"Name the classes whose {word} is above {self.at!r}.",
            (function, *self.label_readers()),
            self.label_constants(),
        )


def above(x: NDArray[Any], at: float) -> NDArray[Any]:
    """Return where elements are above ``at``, which is rounded to their type."""
    x = x.astype(np.promote_types(x.dtype, np.float32))
    return x > x.dtype.type(at)


def classes_above(
    x: NDArray[Any],
    at: float,
    word: str,
    labels: list[Any] | None,
) -> list[Any]:
    """Return the classes of every row that are above ``at``, best first."""
    kept = (np.flatnonzero(row) for row in above(x, at))
    return [ranked(row[i], i, word, labels) for row, i in zip(x, kept, strict=True)]


def best_above(
    best: dict[str, NDArray[Any]],
    at: float,
    word: str,
    labels: list[Any] | None,
) -> list[Any]:
    """Return those above ``at`` of every row's classes, which the graph has ranked."""
    values, indices = best["values"], best["indices"]
    rows = zip(values, indices, above(values, at), strict=True)
    return [ranked(row[kept], i[kept], word, labels) for row, i, kept in rows]
