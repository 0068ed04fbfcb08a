"""``top_k``: the best classes, best first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Fused, Graph, Libraries, Stage, Symbols
from specs.ops._checks import need_classes, need_float_tensor
from specs.ops._labels import Labelled, ranked
from specs.values import FlowError, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST", "TopK", "best_classes", "entry_word"]

MOST = 3840
"""The largest k of TensorRT's TopK (its operator reference, ITopKLayer)."""


class TopK(Labelled):
    """Rank the classes and keep the best; of equal ones, the first comes first, and NaN last.

    An entry's value is called ``probability`` where softmax or sigmoid came before (values from
    0 to 1), else ``score``. In the graph, the place of NaN is the engine's.
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
        return self.with_labels(
            Value(
                "classes",
                value.dtype,
                (value.shape[0], self.k),
                probability=value.probability,
                fewer=isinstance(classes, str),
            )
        )

    def emit(self, value: Value) -> Emitted:
        call = f'top_k({{x}}, {self.k}, "{entry_word(value)}", {self.label_names})'
        return self._naming(call, top_k)

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        if isinstance(value.shape[1], str) or self.k > MOST:
            return None
        call = f'name_best({{x}}, "{entry_word(value)}", {self.label_names})'
        return Fused(best_classes(graph, x, value, self.k), self._naming(call, name_best))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        tensor = lib.torch.from_numpy(x)
        # Unlike torch.topk, a stable sort tells which of equal ones comes first.
        keys = tensor.double().nan_to_num(-np.inf, np.inf, -np.inf)
        order = keys.sort(dim=1, descending=True, stable=True)[1][:, : self.k]
        rows = zip(tensor.gather(1, order).tolist(), order.tolist(), strict=True)
        return [
            [{"index": i, entry_word(value): v} for v, i in zip(*row, strict=True)] for row in rows
        ]

    def _naming(self, call: str, function: Callable[..., Any]) -> Emitted:
        comment = f"Name the best {self.k}." if self.k > 1 else "Name the best one."
        return Emitted(call, comment, (function, *self.label_readers()), self.label_constants())


def entry_word(value: Value) -> str:
    """What a class's value is called."""
    return "probability" if value.probability else "score"


def best_classes(graph: Graph, x: str, value: Value, k: int) -> dict[str, str]:
    """The ``k`` best of each row as ``values`` and ``indices`` [batch, k], for ``ranked`` to sort.

    float16 as float32. ONNX asks for the first ones of equal elements, and OpenVINO (2026.4) gives
    others, so TopK's own indices are not used: what is above the last of its values comes first,
    then what equals it, each by the place in the row, which no two elements share (as integers, so
    that no engine's fp16 makes two of them equal).
    """
    dtype = "float64" if value.dtype == "float64" else "float32"
    wide = x if value.dtype == dtype else graph.cast(x, dtype)
    values, indices = graph.add_many("TopK", (wide, graph.ints(k)), 2, axis=1)
    count = value.shape[1]
    assert isinstance(count, int)  # noqa: S101 - `fuse` looked
    if k == count:
        return {"values": values, "indices": indices}
    last = graph.add("Slice", values, graph.ints(k - 1), graph.ints(k), graph.ints(1))
    places = np.arange(count)
    keys = graph.add(
        "Where",
        graph.add("Greater", wide, last),
        graph.constant(2 * count - places, "int32"),
        graph.add(
            "Where",
            graph.add("Equal", wide, last),
            graph.constant(count - places, "int32"),
            graph.constant(-places, "int32"),
        ),
    )
    _, best = graph.add_many("TopK", (keys, graph.ints(k)), 2, axis=1)
    return {"values": graph.add("GatherElements", wide, best, axis=1), "indices": best}


def top_k(
    x: NDArray[Any],
    k: int,
    word: str,
    labels: list[Any] | None,
) -> list[Any]:
    """Return the ``k`` best classes of every row, best first."""
    best = np.argsort(-x, axis=1, kind="stable")[:, :k]
    rows = zip(np.take_along_axis(x, best, 1), best, strict=True)
    return [ranked(values, indices, word, labels) for values, indices in rows]


def name_best(
    best: dict[str, NDArray[Any]],
    word: str,
    labels: list[Any] | None,
) -> list[Any]:
    """Return every row's classes, which the graph has ranked, as entries."""
    rows = zip(best["values"], best["indices"], strict=True)
    return [ranked(values, indices, word, labels) for values, indices in rows]
