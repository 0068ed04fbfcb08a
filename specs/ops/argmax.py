"""``argmax``: the best class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from specs.ops._base import Emitted, Stage
from specs.ops._checks import need_classes
from specs.ops._labels import Labelled, class_entry
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Argmax"]


class Argmax(Labelled):
    """Name the best class alone, without its score; of equal ones, the first."""

    name: ClassVar[str] = "argmax"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    def flow(self, value: Value) -> Value:
        self.check_labels(need_classes("argmax", value))
        return Value("classes", shape=value.shape[:1])

    def emit(self, value: Value) -> Emitted:
        del value
        labels = "LABELS" if self.labels else "None"
        return Emitted(
            f"argmax({{x}}, {labels})",
            "Name the best class.",
            (argmax, *self.label_readers()),
            self.label_constants(),
        )


def argmax(x: NDArray[Any], labels: list[Any] | None) -> list[Any]:
    """Return the best class of every row, as a list of one."""
    return [[class_entry(int(i), labels)] for i in x.argmax(axis=1)]
