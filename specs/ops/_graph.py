"""ONNX nodes as plain data, so that an op can say what it is in a graph without importing onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from specs.ops._base import Emitted

__all__ = ["ELEMENT_TYPES", "Fused", "Graph", "Node", "Symbols"]

Symbols = str | Mapping[str, str]
"""The name of a tensor in the graph, or names by part."""

ELEMENT_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
}
"""``TensorProto.DataType`` of ONNX's IR specification, for the attribute ``to`` of Cast."""


@dataclass(frozen=True)
class Node:
    """One node; the compiler turns it into ONNX's."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Fused:
    """What a step became in the graph.

    Args:
        result: name of the tensor that holds the result, or names by part.
        rest: what Python still does with it (naming classes, dropping empty rows). ``{x}`` stands
            for the array, or for the mapping of arrays by part. A step with a rest ends the graph.
    """

    result: Symbols
    rest: Emitted | None = None


@dataclass
class Graph:
    """Nodes and constants as they are added. Standard operators of ``opset`` only.

    Args:
        opset: the graph's version of the operators, 18 or more.
        prefix: what every name begins with, so that two graphs can be joined.
        resize: how images are resized: as two products with exact weights, which every engine
            computes, or by the operator Resize on uint8, which only some do right.
        beside: names of the tensors that a post-processing step may read beside its value: the
            model's inputs, by their names in the spec, where the graph has them.
        whole_floats: keep uint8 images as float32 of whole numbers between the steps, for engines
            that compute nothing in uint8 (TensorRT); who makes the graph casts where they enter
            and leave it.
    """

    opset: int
    prefix: str
    resize: Literal["product", "native"] = "product"
    beside: Mapping[str, str] = field(default_factory=dict[str, str])
    whole_floats: bool = False
    nodes: list[Node] = field(default_factory=list[Node])
    constants: dict[str, NDArray[Any]] = field(default_factory=dict[str, "NDArray[Any]"])

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return the name of its first output; ``""`` leaves an input out."""
        return self.add_many(op, inputs, outputs, **attributes)[0]

    def add_many(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int,
        **attributes: Any,
    ) -> tuple[str, ...]:
        """Add a node and return the names of all its outputs."""
        stem = f"{self.prefix}{len(self.nodes)}_{op}"
        names = tuple(stem if n == 0 else f"{stem}_{n}" for n in range(outputs))
        self.nodes.append(Node(op, tuple(inputs), names, attributes))
        return names

    def constant(self, value: ArrayLike, dtype: str = "float32") -> str:
        """The name of a constant; equal ones are kept once."""
        array = np.asarray(value, dtype)
        for name, known in self.constants.items():
            same = known.dtype == array.dtype and known.shape == array.shape
            if same and known.tobytes() == array.tobytes():
                return name
        name = f"{self.prefix}c{len(self.constants)}"
        self.constants[name] = array
        return name

    def ints(self, *values: int) -> str:
        """The name of a constant vector of int64."""
        return self.constant(values, "int64")

    def cast(self, x: str, dtype: str) -> str:
        """``x`` as another type (numpy's name)."""
        return self.add("Cast", x, to=ELEMENT_TYPES[dtype])

    def pixels(self, x: str, dtype: str) -> str:
        """Whole numbers as the ``dtype`` of an image (see ``whole_floats``)."""
        floats = self.whole_floats and dtype == "uint8"
        return self.cast(x, "float32" if floats else dtype)

    def size(self, x: str, axis: int) -> str:
        """The length of one axis of ``x``, as a vector [1] of int64."""
        return self.add("Shape", x, start=axis, end=axis + 1)
