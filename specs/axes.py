"""Dynamic axes in both notations: ranges by name, and torch's ``{input: {0: batch}}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from pydantic import Field, model_validator

from specs.base import Frozen
from specs.faults import Fault, nearest, raise_faults

__all__ = ["AxisRange", "name_axes"]


class AxisRange(Frozen):
    """The sizes that a dynamic axis takes: TensorRT's optimisation profile and the batch limit."""

    min: int = Field(default=1, ge=1, strict=True)
    """Smallest size."""
    opt: int = Field(ge=1, strict=True)
    """The size to be fast at."""
    max: int = Field(ge=1, strict=True)
    """Largest size."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        mapping = cast("dict[str, Any]", value)
        high = mapping.get("max")
        if "opt" in mapping or high is None:
            return mapping
        # A max that is wrong is told of once, as max.
        return {**mapping, "opt": high if isinstance(high, int) and high > 0 else 1}

    @model_validator(mode="after")
    def _check(self) -> AxisRange:
        if not self.min <= self.opt <= self.max:
            found = f"min {self.min}, opt {self.opt}, max {self.max}"
            raise_faults([Fault((), "axis_range", f"{found}: expected min <= opt <= max")])
        return self


def name_axes(raw: dict[str, Any]) -> dict[str, Any]:
    """The raw spec with torch's notation rewritten as named dimensions with ranges.

    ``{input: {0: batch}}`` names axis 0 of ``input``; ``{input: [0]}`` names it ``batch`` (axis 0)
    or ``input_axis2``. The size that stands in ``shape`` becomes ``opt``. Where no range is given,
    a batch runs from 1 to 32 (or twice its size, if that is more), another axis from half of its
    size to twice. What is not in this notation is left for the schema to judge.
    """
    axes = raw.get("dynamic_axes")
    if not isinstance(axes, dict):
        return raw
    ranges: dict[Any, Any] = {}
    named: dict[Any, dict[int, str]] = {}
    for key, value in cast("dict[Any, Any]", axes).items():
        notation = _torch_notation(key, value)
        if notation is None:
            ranges[key] = value
        else:
            named[key] = notation
    if not named:
        return raw
    kinds = [kind for kind in ("inputs", "outputs") if isinstance(raw.get(kind), dict)]
    tensors = {kind: _rename(raw[kind], named, ranges) for kind in kinds}
    known = {name for kind in tensors.values() for name in kind}
    raise_faults(_unknown(named.keys() - known, known))
    return {**raw, **tensors, "dynamic_axes": ranges}


def _unknown(names: set[Any], known: set[Any]) -> Iterator[Fault]:
    for name in sorted(names, key=str):
        message = f"no input or output is called {name!r}"
        yield Fault(
            ("dynamic_axes", name), "axis_tensor", message, nearest(str(name), map(str, known))
        )


def _torch_notation(key: object, value: object) -> dict[int, str] | None:
    if isinstance(value, dict):
        mapping = cast("dict[object, object]", value)
        good = all(_is_axis(k) and isinstance(v, str) for k, v in mapping.items())
        return cast("dict[int, str]", mapping) if mapping and good else None
    if isinstance(value, (list, tuple)):
        axes = cast("list[int]", value)
        if axes and all(_is_axis(axis) for axis in axes):
            return {axis: "batch" if axis == 0 else f"{key}_axis{axis}" for axis in axes}
    return None


def _is_axis(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _rename(
    tensors: dict[Any, Any], named: dict[Any, dict[int, str]], ranges: dict[Any, Any]
) -> dict[Any, Any]:
    """``inputs`` or ``outputs`` with the named axes in their shapes; fills ``ranges``."""
    result = dict(tensors)
    for name, axes in named.items():
        tensor = result.get(name)
        fields = cast("dict[str, Any]", tensor) if isinstance(tensor, dict) else {}
        if not isinstance(fields.get("shape"), (list, tuple)):
            continue
        sizes: list[Any] = list(fields["shape"])
        for axis, dim in axes.items():
            if not -len(sizes) <= axis < len(sizes):
                fault = f"'{name}' has {len(sizes)} axes, so there is no axis {axis}"
                raise_faults([Fault(("dynamic_axes", name), "axis_unknown", fault)])
            size, sizes[axis] = sizes[axis], dim
            if _is_axis(size):
                ranges.setdefault(dim, _default_range(axis, size))
        result[name] = {**fields, "shape": tuple(sizes)}
    return result


def _default_range(axis: int, size: int) -> dict[str, int]:
    if axis == 0:
        return {"min": 1, "opt": size, "max": max(32, 2 * size)}
    return {"min": max(1, size // 2), "opt": size, "max": 2 * size}
