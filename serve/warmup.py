"""What must hold before a replica is ready: every bucket has run, and the golden outputs agree."""

from __future__ import annotations

import asyncio
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
from serve.streams import Streams
from serve.tuning import HOP_MS, Tuning
from specs.errors import ParityError, ServeError
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
NEAR_S, PAUSE_S = 5.0, 0.5
"""Times that are far above the profile's are measured again for so long, after a pause each: what
else starts on this machine may be done by then."""
Run = Callable[[Sequence[Tensors]], Awaitable[Sequence[Tensors]]]


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
        first, self._times[size] = await self._timed(sample, size)
        return list(first)

    async def turn(self, sample: Sample, size: int) -> list[float]:
        """Run several batches at once, ``size`` items in all; what that took, seconds.

        Raises:
            ParityError: the outputs are not the golden ones.
        """
        _, times = await self._timed(sample, size)
        return times

    async def _timed(self, sample: Sample, size: int) -> tuple[Sequence[Tensors], list[float]]:
        """The outputs of the first run, and the times of the others."""
        batch = sample.batch(size)
        times: list[float] = []
        first: Sequence[Tensors] = ()
        while len(times) <= REPEATS and sum(times) < SECONDS:
            began = self._clock()
            outputs = await self._run(batch)
            times.append(self._clock() - began)
            first = first or outputs
        if sample.golden:
            self._compare(sample.golden, first, size)
        return first, times[1:] or times

    def times(self, size: int) -> list[float]:
        """Of the timed runs of this size, seconds."""
        return self._times[size]

    def keep(self, size: int, times: list[float]) -> None:
        """Take these in place of the last that were measured."""
        self._times[size] = times

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
        """The shortest of the measured times as a curve: other work on the machine only adds.

        With medians, a moment's stall at one size would make it look slow for as long as this
        runs, since a size that looks slow is not tried again.
        """
        ms = {size: 1000 * min(times) for size, times in sorted(self._times.items())}
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


async def warm_up(
    warm: WarmUp, golden: Sequence[Golden], sample: Sample, tuning: Tuning, streams: Streams
) -> None:
    """Run every bucket and every golden case; without a profile, measure the curve.

    Where batches can run side by side, each size runs both ways, and keeps the better one.

    Raises:
        ParityError: this machine computes something else than what was built.
        ServeError: an item alone takes longer than the SLO (``slo_impossible``); or times stay far
            above the profile's, and that is to be refused (``too_slow``).
    """
    if tuning.evidence:
        for size in tuning.limits.buckets.value:
            await _both_ways(warm, sample, size, streams)
        await _come_near(warm, sample, tuning, streams)
        tuning.add_hop(warm.ms())
    else:
        await _measure(warm, sample, tuning, streams)
    for case in golden:
        if case is not sample.golden:
            await warm.case(case)
    tuning.started()
    await _turn(warm, sample, tuning, streams)


async def _come_near(warm: WarmUp, sample: Sample, tuning: Tuning, streams: Streams) -> None:
    """Measure sizes again that are far slower than the profile says, for a while."""
    loop = asyncio.get_running_loop()
    end = loop.time() + NEAR_S
    while (slow := _slow(warm, tuning)) and loop.time() < end:
        await asyncio.sleep(PAUSE_S)
        for each in slow:
            if loop.time() < end:
                await _both_ways(warm, sample, each.batch, streams)
    if slow and tuning.refuses_slow:
        hint = "profile the artifact on a machine like this one, or allow it: `when_slow: warn`"
        raise ServeError(str(slow[0]), hint=hint, code="too_slow")


def _slow(warm: WarmUp, tuning: Tuning) -> list[Off]:
    off = off_profile(warm.ms(), tuning.profile) if tuning.profile else []
    return [each for each in off if each.ms > each.profile_ms]


async def _both_ways(warm: WarmUp, sample: Sample, size: int, streams: Streams) -> None:
    """A size, on all cores at once and then side by side; the way that it runs from now on."""
    streams.use(size, side=False)
    await warm.size(sample, size)
    if not streams.can or size < 2:  # noqa: PLR2004 - one item has no parts
        return
    whole = warm.times(size)
    streams.use(size, side=True)
    await warm.size(sample, size)
    if not streams.choose(size, warm.times(size), whole):
        warm.keep(size, whole)


async def _turn(warm: WarmUp, sample: Sample, tuning: Tuning, streams: Streams) -> None:
    """How several of the largest batches run that go to the engine at once, where any do.

    The way to other threads and back, which is most of what a tiny model's batch costs side by
    side, they have but once.
    """
    most = tuning.most_cut()
    if not streams.can or most <= tuning.limits.max_batch.value:
        return
    streams.use(most, side=False)
    whole = await warm.turn(sample, most)
    streams.use(most, side=True)
    streams.choose(most, await warm.turn(sample, most), whole)


async def _measure(warm: WarmUp, sample: Sample, tuning: Tuning, streams: Streams) -> None:
    """Sizes in doublings, until one takes longer than the SLO."""
    most, batch = tuning.most, tuning.batch
    least = min(batch.min, most)
    sizes = [least * 2**n for n in range(most.bit_length()) if least * 2**n < most]
    for size in [*sizes, most]:
        await _both_ways(warm, sample, size, streams)
        if warm.ms()[size] > 1000 * tuning.wished_slo_s:
            break
    tuning.measured(warm.curve(fixed=batch.min == batch.max))
    largest = tuning.limits.max_batch.value
    if largest not in warm.ms():
        await _both_ways(warm, sample, largest, streams)
