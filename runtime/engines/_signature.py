"""What a built file says of its own inputs and outputs, for engines that do not check them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import ValidationError

from runtime.tensors import Array, Tensors
from specs.axes import AxisRange
from specs.base import Frozen
from specs.engines import Precision
from specs.errors import EngineError
from specs.schema import TensorSpec
from specs.values import Dim, show_shape

__all__ = ["Signature"]


class Signature(Frozen):
    """Names, dtypes, dims and precision, as the spec gave them. Builders put it into their file."""

    inputs: dict[str, TensorSpec]
    """By name, in the order of the model's arguments."""
    outputs: dict[str, TensorSpec]
    """By name, in the model's order."""
    axes: dict[str, AxisRange]
    """The range of every dynamic axis."""
    precision: Precision
    """What the file was built to compute in."""

    @classmethod
    def read(cls, text: str, file: str) -> Self:
        """The signature that stands in a file, or ``EngineError`` where it is none."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            message = f"{file} does not say what its inputs and outputs are"
            raise EngineError(message, hint="build it with deployc", code="engine_load") from error

    def hold(self, sizes: Mapping[str, int] | None) -> Self:
        """The same with dynamic axes at one size.

        Raises:
            EngineError: there is no such axis, or the size is outside of its range.
        """
        axes = dict(self.axes)
        for name, size in (sizes or {}).items():
            known = self.axes.get(name)
            if known is None or not known.min <= size <= known.max:
                found = f"{known.min} to {known.max}" if known else "no such axis"
                message = f"cannot hold {name} at {size}: expected {found}"
                raise EngineError(message, hint="see dynamic_axes", code="axis_held")
            axes[name] = AxisRange(min=size, opt=size, max=size)
        return self.model_copy(update={"axes": axes})

    def range_of(self, dim: Dim) -> AxisRange:
        """The sizes of a dimension; a number stands for itself alone."""
        return self.axes[dim] if isinstance(dim, str) else AxisRange(min=dim, opt=dim, max=dim)

    @property
    def free(self) -> tuple[str, ...]:
        """The axes that may still take more than one size."""
        return tuple(name for name, axis in self.axes.items() if axis.min < axis.max)

    def check(self, tensors: Tensors) -> None:
        """Refuse a batch that the file was not built for.

        Raises:
            EngineError: names, dtypes, dims or the range of an axis differ.
        """
        for fault in self._faults(tensors):
            hint = "pass the inputs that the spec names, in its dtypes"
            raise EngineError(fault, hint=hint, code="engine_run")

    def _faults(self, tensors: Tensors) -> Iterator[str]:
        if tensors.keys() != self.inputs.keys():
            yield f"found the inputs {sorted(tensors)}, expected {sorted(self.inputs)}"
            return
        seen: dict[str, int] = {}
        for name, expected in self.inputs.items():
            found = tensors[name]
            if found.dtype != expected.dtype:
                yield f"input '{name}' is {found.dtype}, expected {expected.dtype}"
            if not self._fits(found, expected, seen):
                wanted = show_shape(self._shown(expected))
                yield f"input '{name}' has shape {show_shape(found.shape)}, expected {wanted}"

    def _fits(self, found: Array, expected: TensorSpec, seen: dict[str, int]) -> bool:
        if found.ndim != len(expected.shape):
            return False
        for size, dim in zip(found.shape, expected.shape, strict=True):
            allowed = self.range_of(dim)
            if not allowed.min <= size <= allowed.max:
                return False
            if isinstance(dim, str) and seen.setdefault(dim, size) != size:
                return False
        return True

    def _shown(self, tensor: TensorSpec) -> tuple[Dim, ...]:
        """The shape with the range of every named axis: ``batch 1..8``."""
        return tuple(
            f"{dim} {self._words(dim)}" if isinstance(dim, str) else dim for dim in tensor.shape
        )

    def _words(self, dim: str) -> str:
        axis = self.axes[dim]
        return f"{axis.min}..{axis.max}" if axis.min < axis.max else str(axis.min)
