"""Which batch sizes to measure: powers of two until nothing is gained, then around the knee."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from specs.axes import AxisRange
from specs.errors import DeploycError

__all__ = ["GAIN", "knee", "parse_batches", "powers", "sweep"]

GAIN = 0.05
"""A gain in items per second that is smaller counts as none."""
PATIENCE = 2
"""So many doublings in a row without a gain end the sweep: one alone may be a size that is odd."""
ROUNDS = 2
"""How often the neighbourhood of the knee is halved."""

Measure = Callable[[int], float | None]
"""Items per second at a batch size; None where it could not be measured."""


def powers(batch: AxisRange) -> tuple[int, ...]:
    """The powers of two of a range, and its two ends."""
    within = (2**n for n in range(batch.max.bit_length()) if batch.min <= 2**n <= batch.max)
    return tuple(sorted({batch.min, batch.max, *within}))


def sweep(measure: Measure, batch: AxisRange) -> None:
    """Measure sizes upwards until two in a row gain less than 5 %, then refine around the knee.

    A size that cannot be measured ends the way upwards, too: larger ones take more memory still.
    """
    rates = _upwards(measure, powers(batch))
    for _ in range(ROUNDS if rates else 0):
        for size in _around(rates):
            rate = measure(size)
            if rate is not None:
                rates[size] = rate


def _upwards(measure: Measure, sizes: Iterable[int]) -> dict[int, float]:
    rates: dict[int, float] = {}
    best, idle = 0.0, 0
    for size in sizes:
        rate = measure(size)
        if rate is None:
            break
        rates[size] = rate
        idle = 0 if rate > best * (1 + GAIN) else idle + 1
        best = max(best, rate)
        if idle == PATIENCE:
            break
    return rates


def knee(rates: Mapping[int, float]) -> int:
    """The smallest size whose rate is within 5 % of the best."""
    enough = max(rates.values()) * (1 - GAIN)
    return min(size for size, rate in rates.items() if rate >= enough)


def _around(rates: Mapping[int, float]) -> list[int]:
    """The sizes in the middle between the knee and its neighbours, where there are any."""
    sizes = sorted(rates)
    at = sizes.index(knee(rates))
    near = [sizes[at - 1] if at else sizes[at], *sizes[at + 1 : at + 2]]
    return sorted({(sizes[at] + other) // 2 for other in near} - set(sizes))


def parse_batches(text: str, batch: AxisRange) -> tuple[int, ...]:
    """Sizes from ``1,2,4`` and ``1-64``; a range stands for its powers of two and its ends.

    Raises:
        DeploycError: it is no such list (``batches_form``), or a size is outside of what the
            artifact takes (``batches_range``).
    """
    sizes: set[int] = set()
    for part in text.split(","):
        sizes.update(_part(part.strip(), text))
    outside = [size for size in sorted(sizes) if not batch.min <= size <= batch.max]
    if outside:
        found = ", ".join(map(str, outside))
        takes = f"{batch.min} to {batch.max}" if batch.min < batch.max else f"{batch.min} alone"
        message = f"--batches: found {found}, the artifact takes {takes}"
        hint = "name sizes of that range, or widen dynamic_axes in the spec and build again"
        raise DeploycError(message, hint=hint, code="batches_range")
    return tuple(sorted(sizes))


def _part(part: str, text: str) -> Sequence[int]:
    ends = part.split("-")
    numbers = [int(end) for end in _digits(ends)]
    if len(numbers) == len(ends) == 1 and numbers[0] > 0:
        return numbers
    if len(numbers) == len(ends) == 2 and 0 < numbers[0] <= numbers[1]:  # noqa: PLR2004 - two ends
        return powers(AxisRange(min=numbers[0], opt=numbers[0], max=numbers[1]))
    message = f"--batches: found {part!r} in {text!r}, expected sizes such as 1,2,4 or 1-64"
    raise DeploycError(message, hint="sizes are whole numbers from 1 on", code="batches_form")


def _digits(ends: Iterable[str]) -> Iterator[str]:
    return (end.strip() for end in ends if end.strip().isascii() and end.strip().isdigit())
