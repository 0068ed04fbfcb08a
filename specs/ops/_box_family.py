"""What the families of ``box_decode`` share: where scores come from and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from specs.base import Frozen
from specs.faults import nearest
from specs.ops._base import Emitted, Graph, Libraries, Symbols
from specs.ops._boxes import boxes_value, columns, need_shape, symbol
from specs.ops._checks import FLOATS
from specs.ops.sigmoid import sigmoid
from specs.ops.softmax import softmax
from specs.values import Dim, FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Activation", "Family", "Heads", "Size", "as_float", "ceil_maps", "drop_class"]

Length = Annotated[int, Field(ge=1, strict=True)]
Size = tuple[Length, Length]
"""Height and width."""
Name = Annotated[str, Field(min_length=1)]
Activation = Literal["softmax", "sigmoid", "none"]
OP = "box_decode"
HEAD_RANK = 3


class Family(Frozen):
    """One way in which detectors write boxes; the methods are those of an op (``Op``)."""

    def flow(self, value: Value) -> Value:
        """The type of the boxes, or ``FlowError``."""
        raise NotImplementedError

    def emit(self, value: Value) -> Emitted:
        """The Python that production runs."""
        raise NotImplementedError

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> dict[str, str]:
        """The ONNX nodes: the names of ``boxes`` and ``scores``."""
        raise NotImplementedError

    def reference(self, x: Any, value: Value, lib: Libraries) -> dict[str, Any]:
        """The same in PyTorch."""
        raise NotImplementedError


class Heads(Family):
    """A family with two outputs: ``boxes`` [batch, n, 4] and ``scores`` [batch, n, classes]."""

    boxes: Name = "boxes"
    """The output with four numbers for each box."""
    scores: Name = "scores"
    """The output with one number for each box and class."""
    activation: Activation = "none"
    """What turns the scores into probabilities; none where the model did."""
    background: Annotated[int, Field(ge=0)] | None = None
    """Index of the class that means nothing is there: left out, and later ones move down."""

    def flow_scores(self, value: Value, count: Dim) -> tuple[Dim, ...]:
        """The shape of the class scores without the background, for ``count`` boxes."""
        need_shape(OP, self.boxes, float_part(value, self.boxes), ("batch", count, 4))
        scores = float_part(value, self.scores)
        need_shape(OP, self.scores, scores, ("batch", count, "classes"))
        batch, _, classes = scores.shape
        return batch, self.rows(value), self.kept(classes)

    def rows(self, value: Value) -> Dim:
        """How many boxes there are."""
        sizes = (part(value, name).shape[1] for name in (self.boxes, self.scores))
        return min(sizes, key=lambda size: isinstance(size, str))

    def kept(self, classes: Dim) -> Dim:
        """How many classes are left without the background."""
        if self.background is None or isinstance(classes, str):
            return classes
        if self.background >= classes or classes == 1:
            message = f"{OP} has background: {self.background}, found {classes} classes"
            raise FlowError(message, "name the class that means nothing is there, or none")
        return classes - 1

    def result(self, scores: tuple[Dim, ...], units: str) -> Value:
        """The type of the boxes."""
        return boxes_value(scores, units, probability=self.activation != "none")

    def activated(self, expression: str) -> tuple[str, tuple[Callable[..., Any], ...]]:
        """A Python expression of scores after the activation, and what it calls."""
        if self.activation == "softmax":
            return f"softmax({expression}, -1)", (softmax,)
        if self.activation == "sigmoid":
            return f"sigmoid({expression})", (sigmoid,)
        return expression, ()

    def emit_scores(self, expression: str) -> tuple[str, tuple[Callable[..., Any], ...]]:
        """A Python expression of the finished scores, and what it calls."""
        text, functions = self.activated(f"as_float({expression})")
        if self.background is None:
            return text, (as_float, *functions)
        return f"drop_class({text}, {self.background})", (as_float, drop_class, *functions)

    def fuse_activation(self, graph: Graph, x: str) -> str:
        """Scores after the activation, in the graph."""
        if self.activation == "softmax":
            return graph.add("Softmax", x, axis=-1)
        return graph.add("Sigmoid", x) if self.activation == "sigmoid" else x

    def fuse_background(self, graph: Graph, x: str) -> str:
        """Scores without the background's, in the graph."""
        if self.background is None:
            return x
        last = np.iinfo(np.int64).max
        after = columns(graph, x, self.background + 1, int(last))
        if self.background == 0:
            return after
        return graph.add("Concat", columns(graph, x, 0, self.background), after, axis=2)

    def fuse_scores(self, graph: Graph, x: Symbols, value: Value) -> str:
        """The finished scores, in the graph."""
        scores = float_symbol(graph, x, value, self.scores)
        return self.fuse_background(graph, self.fuse_activation(graph, scores))

    def activate(self, x: Any, lib: Libraries) -> Any:
        """A tensor of PyTorch after the activation."""
        if self.activation == "softmax":
            return lib.torch.nn.functional.softmax(x, dim=-1)
        return x.sigmoid() if self.activation == "sigmoid" else x

    def without_background(self, x: Any) -> Any:
        """A tensor of PyTorch [batch, n, classes] without the background's scores."""
        if self.background is None:
            return x
        return x[..., [each for each in range(x.shape[-1]) if each != self.background]]

    def reference_scores(self, x: Any, lib: Libraries) -> Any:
        """The finished scores, as PyTorch makes them."""
        scores = lib.torch.from_numpy(x[self.scores]).float()
        return self.without_background(self.activate(scores, lib)).numpy()


def part(value: Value, name: str) -> Value:
    """The type of the output ``name``."""
    if value.kind != "tensors":
        message = f"{OP} takes the model's outputs, found {value}"
        raise FlowError(message, f"make {OP} the first step, and list every output")
    if name not in value.fields:
        raise FlowError(f"{OP} reads '{name}', which is no output", nearest(name, value.fields))
    return value.fields[name]


def float_part(value: Value, name: str) -> Value:
    """The type of the output ``name``, which is floating point."""
    found = part(value, name)
    if found.dtype not in FLOATS:
        message = f"{OP} takes '{name}' as floating point, found {found.dtype}"
        raise FlowError(message, "name another output")
    return found


def float_symbol(graph: Graph, x: Symbols, value: Value, name: str) -> str:
    """The output ``name`` as float32, in the graph."""
    found = symbol(x, name)
    return found if part(value, name).dtype == "float32" else graph.cast(found, "float32")


def counted(value: Value, name: str, count: int, what: str) -> None:
    """The output ``name`` has as many boxes as follow from the options."""
    found = part(value, name).shape
    if len(found) == HEAD_RANK and isinstance(found[1], int) and found[1] != count:
        message = f"{OP}: the options make {count} {what}, '{name}' is {show_shape(found)}"
        raise FlowError(message, "correct the sizes of the maps, or what is at each of their cells")


def ceil_maps(image: Size, strides: tuple[int, ...]) -> list[Size]:
    """The sizes of feature maps of an image: what is left over makes one more cell."""
    return [(-(-image[0] // stride), -(-image[1] // stride)) for stride in strides]


def as_float(x: NDArray[Any]) -> NDArray[Any]:
    """Return the same values as float32."""
    return np.asarray(x, np.float32)


def drop_class(x: NDArray[Any], index: int) -> NDArray[Any]:
    """Return scores [batch, n, classes] without those of one class."""
    return np.delete(x, index, axis=2)


def pair(mapping: Mapping[str, str]) -> str:
    """A Python expression of a dict, from those of its values."""
    return "{" + ", ".join(f'"{name}": {text}' for name, text in mapping.items()) + "}"
