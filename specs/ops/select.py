"""``select``: one of several outputs, or one place of an axis."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from specs.faults import nearest
from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.values import FlowError, Value, show_shape

__all__ = ["Select"]


class Select(Op):
    """Go on with one of the model's outputs, with one place of an axis, or with both.

    ``{output: last_hidden_state, index: 0}`` is the vector of the first token ([CLS]).
    """

    name: ClassVar[str] = "select"
    shorthand: ClassVar[str] = "output"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    output: str | None = None
    """The name of one of several outputs."""
    index: int | None = None
    """A place of ``axis``, which is dropped; -1 is the last one."""
    axis: int = 1
    """The axis that ``index`` counts in; 0 is the batch."""

    @model_validator(mode="after")
    def _check(self) -> Select:
        if self.output is None and self.index is None:
            raise ValueError("expected output, index or both, found none")
        if self.index is None and self.axis != 1:
            raise ValueError("axis says where index counts, and there is no index")
        return self

    def flow(self, value: Value) -> Value:
        value = self._output(value)
        return value if self.index is None else self._place(value, self.index)

    def _output(self, value: Value) -> Value:
        """The type of the output that is meant."""
        if self.output is None:
            if value.kind != "tensor":
                message = f"select with index alone takes a tensor, found {value}"
                raise FlowError(message, "add output, the name of one of them")
            return value
        if value.kind != "tensors":
            message = f"select takes one of several outputs, found {value}"
            raise FlowError(message, "there is only one: remove output")
        if self.output not in value.fields:
            hint = nearest(self.output, value.fields)
            raise FlowError(f"there is no output '{self.output}'", hint)
        first = self.output == next(iter(value.fields))
        return value.fields[self.output].but(origin="" if first else self.output)

    def _place(self, value: Value, index: int) -> Value:
        rank, shape = len(value.shape), show_shape(value.shape)
        if not -rank <= self.axis < rank or self.axis % rank == 0:
            message = f"select has axis {self.axis}, the tensor is {shape}"
            raise FlowError(message, "axis 0 is the batch; use axis: 1 for the one after it")
        axis = self.axis % rank
        size = value.shape[axis]
        if isinstance(size, str):
            if index not in (0, -1):
                message = f"select has index {index} of '{size}', which may be as small as 1"
                raise FlowError(message, "use index: 0, the first, or index: -1, the last")
        elif not -size <= index < size:
            message = f"select has index {index}, axis {self.axis} of {shape} has {size}"
            raise FlowError(message, f"use an index from 0 to {size - 1}")
        return value.but(shape=value.shape[:axis] + value.shape[axis + 1 :], layout="")

    def emit(self, value: Value) -> Emitted:
        del value
        named = "" if self.output is None else f'["{self.output}"]'
        taken = "" if self.index is None else f".take({self.index}, axis={self.axis})"
        words = [f"output '{self.output}'"] if named else []
        words += [f"place {self.index} of axis {self.axis}"] if taken else []
        return Emitted(f"{{x}}{named}{taken}", f"Take {', '.join(words)}.")

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused:
        del value
        tensor = x if isinstance(x, str) else x[str(self.output)]
        if self.index is None:
            return Fused(graph.add("Identity", tensor))
        return Fused(
            graph.add("Gather", tensor, graph.constant(self.index, "int64"), axis=self.axis)
        )

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        del value
        tensor = lib.torch.from_numpy(x if self.output is None else x[self.output])
        if self.index is not None:
            tensor = lib.torch.select(tensor, self.axis, self.index)
        return tensor.numpy()
