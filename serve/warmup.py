"""What must hold before a replica is ready: every bucket has run, and the golden outputs agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.compare import Tolerance, worst_gap
from runtime.golden import Golden, batch_of, read_golden
from runtime.tensors import Tensors, stack, unstack
from serve.law import Curve
from serve.tuning import HOP_MS, Tuning
from specs.errors import ParityError
from specs.manifest import Manifest, Variant
from specs.profile import Profile

__all__ = ["Off", "Sample", "WarmUp", "off_profile", "read_cases", "sample_of", "warm_up"]

REPEATS = 10
"""Timed runs of a batch size after the first, whose time is the engine's preparation: from so many
on the law corrects a size by its own times alone."""
SECONDS = 0.5
"""A size is not run again once its runs have taken so long together."""
FAR = 1.5
"""Beyond this factor a time is no longer near the profile's."""
Run = Callable[[list[Tensors]], Awaitable[Sequence[Tensors]]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Items to warm up with: golden ones, where there are any, with what must come out."""

    items: list[Tensors]
    golden: Golden | None = None

    def batch(self, size: int) -> list[Tensors]:
        """So many of them, repeated in order."""
        return [self.items[number % len(self.items)] for number in range(size)]


@dataclass(frozen=True, slots=True)
class Off:
    """A batch size whose time is not the profile's."""

    batch: int
    ms: float
    profile_ms: float

    def __str__(self) -> str:
        factor = self.ms / self.profile_ms
        took = f"a batch of {self.batch} takes {self.ms:.3g} ms here"
        return f"{took}, {factor:.2g} times the profile's {self.profile_ms:.3g} ms"


class WarmUp:
    """Runs batches, checks what is known of their outputs, and keeps their times.

    Args:
        run: the engine, as serving runs it.
        variant: whose tolerance the golden outputs are held to.
        clock: seconds, monotonic.
    """

    def __init__(
        self, run: Run, variant: Variant, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._run = run
        self._clock = clock
        self._tolerance = Tolerance.of(variant.tolerance, variant.precision)
        self._times: dict[int, list[float]] = {}
        self.cases = 0
        """Golden batches that agreed."""
        self.excess = 0.0
        """The largest difference in them over the tolerance."""

    async def size(self, sample: Sample, size: int) -> list[Tensors]:
        """Run batches of ``size`` until their time is known; the outputs of the first.

        Raises:
            ParityError: the outputs are not the golden ones.
        """
        batch = sample.batch(size)
        times: list[float] = []
        first: Sequence[Tensors] = ()
        while len(times) <= REPEATS and sum(times) < SECONDS:
            began = self._clock()
            outputs = await self._run(batch)
            times.append(self._clock() - began)
            first = first or outputs
        self._times[size] = times[1:] or times
        if sample.golden:
            self._compare(sample.golden, first, size)
        return list(first)

    async def case(self, golden: Golden) -> None:
        """Run a golden case once, at the smallest of its batch sizes.

        Raises:
            ParityError: the outputs are not the golden ones.
        """
        size = min(golden.case.batches)
        outputs = await self._run(unstack(batch_of(golden.case.inputs, size, 0)))
        self._compare(golden, outputs, size)

    def ms(self) -> dict[int, float]:
        """Median time by batch size, milliseconds."""
        return {size: 1000 * statistics.median(t) for size, t in sorted(self._times.items())}

    def seconds(self) -> list[tuple[int, float]]:
        """Every timed run: batch size and seconds."""
        return [(size, each) for size, times in sorted(self._times.items()) for each in times]

    def curve(self, *, fixed: bool) -> Curve:
        """The measured times as a curve."""
        ms = self.ms()
        return Curve(tuple(ms), tuple(ms.values()), fixed=fixed)

    def to_json(self, profile: Profile | None) -> dict[str, Any]:
        """For ``GET /models``: times beside the profile's, and what agreed."""
        latency: list[dict[str, Any]] = []
        for size, ms in self.ms().items():
            entry: dict[str, Any] = {"batch": size, "ms": round(ms, 3)}
            if profile:
                expected = profile.latency_ms(size, "p50")
                entry |= {"profile_ms": round(expected, 3), "ratio": round(ms / expected, 3)}
            latency.append(entry)
        golden = {"batches": self.cases, "largest_excess": round(self.excess, 6)}
        return {"latency": latency, "golden": golden}

    def _compare(self, golden: Golden, outputs: Sequence[Tensors], size: int) -> None:
        reference = batch_of(golden.outputs, size, 0)
        gap = worst_gap(stack(outputs), reference, self._tolerance)
        if gap.excess > 1:
            message = (
                f"golden case {golden.case.name}, batch {size}: {gap}; "
                f"that is {gap.excess:.3g} times the tolerance"
            )
            hint = "run `deployc verify ARTIFACT` on this machine, and build again on it"
            raise ParityError(message, hint=hint)
        self.cases += 1
        self.excess = max(self.excess, gap.excess)


def sample_of(manifest: Manifest, variant: Variant, golden: Sequence[Golden]) -> Sample:
    """Golden items whose dynamic axes have the size to be fast at, else zeros of that size."""
    axes = {**manifest.axes, **variant.axes}
    inputs = variant.inputs or manifest.inputs
    shapes = {
        name: tuple(dim if isinstance(dim, int) else axes[dim].opt for dim in tensor.shape[1:])
        for name, tensor in inputs.items()
    }
    for each in golden:
        if all(array.shape[1:] == shapes[name] for name, array in each.case.inputs.items()):
            return Sample(unstack(each.case.inputs), each)
    return Sample([{name: np.zeros(shapes[name], each.dtype) for name, each in inputs.items()}])


def off_profile(found: dict[int, float], profile: Profile) -> list[Off]:
    """The sizes whose median time is far from the profile's, beyond what a replica adds."""
    pairs = [Off(size, ms, profile.latency_ms(size, "p50")) for size, ms in found.items()]
    return [
        each
        for each in pairs
        if abs(each.ms - each.profile_ms) > HOP_MS
        and not 1 / FAR <= each.ms / each.profile_ms <= FAR
    ]


def read_cases(folder: Path | None, variant: Variant) -> list[Golden]:
    """A variant's golden cases in the artifact in ``folder``; none where there is no folder.

    Raises:
        ArtifactError: they cannot be read.
    """
    return list(read_golden(folder / variant.golden)) if folder else []


async def warm_up(warm: WarmUp, golden: Sequence[Golden], sample: Sample, tuning: Tuning) -> None:
    """Run every bucket and every golden case; without a profile, measure the curve.

    Raises:
        ParityError: this machine computes something else than what was built.
        ServeError: an item alone takes longer than the SLO (``slo_impossible``).
    """
    if tuning.evidence:
        for size in tuning.limits.buckets.value:
            await warm.size(sample, size)
        tuning.add_hop(warm.ms())
    else:
        await _measure(warm, sample, tuning)
    for case in golden:
        if case is not sample.golden:
            await warm.case(case)
    tuning.started()


async def _measure(warm: WarmUp, sample: Sample, tuning: Tuning) -> None:
    """Sizes in doublings, until one takes longer than the SLO."""
    most, batch = tuning.most, tuning.batch
    least = min(batch.min, most)
    sizes = [least * 2**n for n in range(most.bit_length()) if least * 2**n < most]
    for size in [*sizes, most]:
        await warm.size(sample, size)
        if warm.ms()[size] > 1000 * tuning.wished_slo_s:
            break
    tuning.measured(warm.curve(fixed=batch.min == batch.max))
    largest = tuning.limits.max_batch.value
    if largest not in warm.ms():
        await warm.size(sample, largest)
