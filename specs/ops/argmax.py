"""``argmax``: the best class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from specs.ops._base import Emitted, Fused, Graph, Libraries, Stage, Symbols
from specs.ops._checks import need_classes
from specs.ops._labels import Labelled, class_entry
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Argmax", "best_index"]

WIDER = {
    "bool": "int32",
    "uint8": "int32",
    "int8": "int32",
    "int16": "int32",
    "float16": "float32",
}
"""Types that some engine has no ArgMax for, and one that holds all of their values."""


class Argmax(Labelled):
    """Name the best class alone, without its score; of equal ones, the first.

    NaN counts as the best, as in PyTorch; in the graph its place is the engine's.
    """

    name: ClassVar[str] = "argmax"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    def flow(self, value: Value) -> Value:
        self.check_labels(need_classes("argmax", value))
        return self.with_labels(Value("classes", shape=(value.shape[0], 1)))

    def emit(self, value: Value) -> Emitted:
        del value
        return self._naming("{x}.argmax(axis=1)")

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        return Fused(best_index(graph, x, value, 1), self._naming("{x}"))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        del value
        # torch.argmax knows no bool, and does not promise which one of equal elements it gives.
        best = (
            lib.torch.from_numpy(row).float().sort(descending=True, stable=True)[1] for row in x
        )
        return [[{"index": int(order[0])}] for order in best]

    def _naming(self, indices: str) -> Emitted:
        return Emitted(
            f"name_classes({indices}, {self.label_names})",
            "Name the best class.",
            (name_classes, *self.label_readers()),
            self.label_constants(),
        )


def best_index(graph: Graph, x: str, value: Value, axis: int) -> str:
    """The index of the largest element along ``axis``, which is dropped, as int64."""
    wider = WIDER.get(value.dtype)
    wide = graph.cast(x, wider) if wider else x
    return graph.add("ArgMax", wide, axis=axis, keepdims=0, select_last_index=0)


def name_classes(indices: NDArray[Any], labels: list[Any] | None) -> list[Any]:
    """Return every item's class, as a list of one."""
    return [[class_entry(int(index), labels)] for index in indices]
