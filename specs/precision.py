"""What a spec may ask of quantisation and of what it is calibrated with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.base import Frozen, with_list
from specs.faults import Fault, raise_faults

__all__ = ["Calibration", "Quantize", "TolerancePair", "Tolerances"]


class Quantize(Frozen):
    """How a target with ``precision: int8`` is quantized."""

    mode: Literal["static", "dynamic"] = "static"
    """``static`` inserts Q/DQ pairs with calibrated ranges; ``dynamic`` finds the ranges of
    activations at run time, which suits transformers."""
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    """How a range is found from the calibration items; static only."""
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    """Which percentile of the values the range covers, where ``method`` is percentile."""
    per_channel: bool = True
    """One scale per output channel of a weight in place of one per tensor."""
    reduce_range: bool | None = None
    """Weights of 7 bits, for x86 processors without VNNI: their sums of 8-bit products saturate. By
    default for targets on the CPU, where the machine that builds has such a processor."""
    exclude: tuple[str, ...] = ()
    """Regular expressions of node names that stay in fp32, each of a whole name."""

    @model_validator(mode="after")
    def _check(self) -> Quantize:
        raise_faults(_quantize(self))
        return self


def _quantize(value: Quantize) -> Iterator[Fault]:
    """An option that the chosen mode or method does not take is a fault."""
    # Compared with the defaults: a spec that is written out and read again says them all.
    default = Quantize.model_fields
    if value.mode == "dynamic" and value.method != default["method"].default:
        message = "mode: dynamic calibrates nothing"
        yield Fault(("method",), "quantize_option", message, "leave it out, or take mode: static")
    given = value.percentile != default["percentile"].default
    if given and value.method != "percentile":
        message = f"method: {value.method} has no percentile"
        yield Fault(("percentile",), "quantize_option", message, "add method: percentile")
    for index, pattern in enumerate(value.exclude):
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            message = f"no regular expression: {error}"
            yield Fault(("exclude", index), "regex", message)


class Calibration(Frozen):
    """The items that static quantisation is calibrated with."""

    samples: tuple[str, ...] = Field(min_length=1)
    """Files or globs relative to the spec, pre-processed like a request."""
    count: Annotated[int, Field(ge=1)] = 128
    """At most so many of them, taken evenly over the sorted files."""

    @model_validator(mode="before")
    @classmethod
    def _one_sample(cls, value: object) -> object:
        return with_list(value, "samples")


class TolerancePair(Frozen):
    """``|a - b| <= atol * max(1, RMS of b) + rtol * |b|``; for fp32 without the RMS."""

    atol: float = Field(ge=0.0)
    """Absolute tolerance, in units of the output's root mean square where that is above 1."""
    rtol: float = Field(ge=0.0)
    """Relative tolerance."""


class Tolerances(Frozen):
    """Tolerances of parity of the lower precisions; fp32 has ``verify.atol`` and ``rtol``."""

    fp16: TolerancePair = TolerancePair(atol=1e-2, rtol=1e-2)
    """About twenty times the rounding of one value (2**-11)."""
    bf16: TolerancePair = TolerancePair(atol=0.25, rtol=0.1)
    """25 to 64 times the rounding of one value (2**-8)."""
    int8: TolerancePair | None = None
    """None by default: ``verify.accuracy`` decides, and the difference is only measured."""
