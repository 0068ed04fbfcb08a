"""Warming up: which sizes run, how they are timed, and what they are compared with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from runtime.golden import Case, Golden
from runtime.tensors import Tensors
from serve.law import Curve
from serve.tuning import HOP_MS
from serve.warmup import Sample, WarmUp, off_profile, sample_of
from specs.axes import AxisRange
from specs.errors import ParityError
from specs.manifest import Manifest
from specs.precision import TolerancePair
from specs.profile import Profile
from specs.schema import TensorSpec

MakeManifest = Callable[..., Manifest]
MakeProfile = Callable[..., Profile]


class Engine:
    """Doubles; each run takes the next of ``seconds`` on its own clock."""

    def __init__(self, *seconds: float) -> None:
        self.now = 0.0
        self.seconds = list(seconds)
        self.sizes: list[int] = []
        self.off = 0.0

    def __call__(self) -> float:
        return self.now

    async def run(self, items: Sequence[Tensors]) -> Sequence[Tensors]:
        self.sizes.append(len(items))
        self.now += self.seconds.pop(0) if self.seconds else 0.01
        return [{"y": np.add(np.multiply(item["x"], 2), self.off)} for item in items]


def warm_of(engine: Engine, manifest: Manifest, atol: float | None = 0.1) -> WarmUp:
    variant = manifest.variants[0]
    pair = None if atol is None else TolerancePair(atol=atol, rtol=0.0)
    return WarmUp(engine.run, variant.model_copy(update={"tolerance": pair}), engine)


def zeros_or(manifest: Manifest, golden: Sequence[Golden]) -> Sample:
    return sample_of(manifest, manifest.variants[0], golden)


def golden_of(*shape: int, batches: tuple[int, ...] = (1, 2)) -> Golden:
    inputs = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Golden(Case("samples", {"x": inputs}, batches), {"y": inputs * np.float32(2)})


def test_the_first_run_of_a_size_is_preparation_and_does_not_count(
    make_manifest: MakeManifest,
) -> None:
    engine = Engine(0.2, *[0.01] * 4, 0.02, *[0.03] * 5)
    warm = warm_of(engine, make_manifest())
    asyncio.run(warm.size(zeros_or(make_manifest(), ()), 4))
    assert engine.sizes == [4] * 11
    assert warm.ms() == {4: pytest.approx(25)}


def test_a_size_that_takes_long_runs_once(make_manifest: MakeManifest) -> None:
    engine = Engine(3.0)
    warm = warm_of(engine, make_manifest())
    asyncio.run(warm.size(zeros_or(make_manifest(), ()), 4))
    assert engine.sizes == [4]
    assert warm.ms() == {4: 3000}
    assert warm.curve(fixed=True) == Curve((4,), (3000.0,), fixed=True)


def test_every_bucket_s_outputs_are_compared_with_the_golden_ones(
    make_manifest: MakeManifest,
) -> None:
    manifest, engine = make_manifest(), Engine()
    warm = warm_of(engine, manifest)
    sample = zeros_or(manifest, [golden_of(3, 2)])
    asyncio.run(warm.size(sample, 5))
    engine.off = 0.05
    asyncio.run(warm.size(sample, 1))
    told = warm.to_json(None)["golden"]
    assert told["batches"] == 2
    assert told["largest_excess"] == pytest.approx(0.5, abs=1e-3)
    engine.off = 0.2
    with pytest.raises(
        ParityError, match=r"golden case samples, batch 2: output 'y' at \["
    ) as error:
        asyncio.run(warm.size(sample, 2))
    assert "deployc verify" in error.value.hint


def test_a_variant_whose_parity_was_only_measured_is_not_refused(
    make_manifest: MakeManifest,
) -> None:
    engine = Engine()
    engine.off = 100.0
    warm = warm_of(engine, make_manifest(), atol=None)
    asyncio.run(warm.size(zeros_or(make_manifest(), [golden_of(3, 2)]), 2))
    assert warm.cases == 1


def test_other_golden_cases_run_at_the_smallest_of_their_sizes(make_manifest: MakeManifest) -> None:
    engine = Engine()
    warm = warm_of(engine, make_manifest())
    asyncio.run(warm.case(golden_of(3, 7, batches=(3, 2, 8))))
    assert engine.sizes == [2]
    assert warm.ms() == {}


def test_the_sample_has_the_sizes_to_be_fast_at(make_manifest: MakeManifest) -> None:
    axes = {"batch": AxisRange(min=1, opt=4, max=8), "width": AxisRange(min=1, opt=5, max=9)}
    manifest = make_manifest(
        axes=axes, inputs={"x": TensorSpec(shape=("batch", "width"), dtype="float32")}
    )
    narrow, fit = golden_of(3, 2), golden_of(2, 5)
    assert zeros_or(manifest, [narrow, fit]).golden is fit
    zeros = zeros_or(manifest, [narrow])
    assert zeros.golden is None
    assert [item["x"].shape for item in zeros.batch(3)] == [(5,)] * 3
    pixels = {"pixels": TensorSpec(shape=("batch", "height", 4, 3), dtype="uint8")}
    changes = {"inputs": pixels, "axes": {"height": AxisRange(min=1, opt=7, max=9)}}
    (item,) = sample_of(manifest, manifest.variants[0].model_copy(update=changes), ()).items
    assert (item["pixels"].shape, item["pixels"].dtype) == ((7, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("ms", "far"),
    [
        (10.0, False),
        (14.9, False),
        (15.1, True),
        (6.7, False),
        (6.6, True),
    ],
)
def test_a_time_is_far_from_the_profile_beyond_one_and_a_half_times(
    make_profile: MakeProfile, ms: float, far: bool
) -> None:
    assert bool(off_profile({4: ms}, make_profile({1: 5.0, 4: 10.0}))) == far


def test_the_way_to_the_engine_s_thread_is_not_told_as_slowness(make_profile: MakeProfile) -> None:
    profile: Any = make_profile({1: 0.1})
    assert not off_profile({1: 0.1 + HOP_MS}, profile)
    (off,) = off_profile({1: 0.2 + HOP_MS}, profile)
    assert str(off) == "a batch of 1 takes 1.2 ms here, 12 times the profile's 0.1 ms"
