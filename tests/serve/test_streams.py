"""The parts of a batch side by side: shared out, put together, chosen by time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime.tensors import Rows, Tensors
from serve.law import Curve, Law
from serve.model import Model, Options
from serve.streams import CLOSE, HELD_UP, Streams
from serve.tuning import Tuning
from serve.warmup import WarmUp, warm_up
from specs.errors import EngineError
from tests.serve.test_warmup import MakeManifest, MakeProfile, zeros_or


@dataclass
class Net:
    """Doubles x; notes the sizes and threads of its runs. 13 breaks it."""

    narrow: Net | None = None
    seconds: float = 0.0
    sizes: list[int] = field(default_factory=list[int])
    threads: set[int] = field(default_factory=set[int])
    closed: bool = False
    asked: int = 0

    def run(self, items: Sequence[Tensors]) -> Sequence[Tensors]:
        self.sizes.append(len(items))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if any((item["x"] == 13).any() for item in items):
            raise RuntimeError("choked")
        return [{"y": np.multiply(item["x"], 2)} for item in items]

    def beside(self, threads: int) -> Net | None:
        self.asked = threads
        return self.narrow

    def close(self) -> None:
        self.closed = True


def items(count: int) -> list[Tensors]:
    return [{"x": np.full(2, number, np.float32)} for number in range(count)]


def doubled(outputs: Sequence[Tensors]) -> list[float]:
    return [float(output["y"][0]) for output in outputs]


@pytest.mark.parametrize(("count", "parts"), [(2, [1, 1]), (3, [1, 2]), (8, [4, 4])])
def test_parts_run_on_threads_of_their_own_and_come_back_in_order(
    count: int, parts: list[int]
) -> None:
    narrow = Net(seconds=0.05)
    whole = Net(narrow)
    streams = Streams(whole, 1, 2)
    streams.use(8, side=True)
    assert doubled(streams.run(items(count), 8)) == [2.0 * number for number in range(count)]
    assert (sorted(narrow.sizes), whole.sizes, len(narrow.threads)) == (parts, [], 2)


def test_what_is_longer_than_the_largest_batch_is_shared_out_first() -> None:
    narrow = Net()
    streams = Streams(Net(narrow), 1, 2)
    streams.use(4, side=True)
    assert doubled(streams.run(items(12), 4)) == [2.0 * number for number in range(12)]
    assert sorted(narrow.sizes) == [2, 2, 4, 4]


def test_a_single_item_has_all_cores() -> None:
    whole = Net(narrow := Net())
    streams = Streams(whole, 1, 2)
    streams.use(1, side=True)
    streams.run(items(1), 8)
    assert (whole.sizes, narrow.sizes) == ([1], [])


def test_a_size_that_was_not_measured_runs_as_the_next_larger_one() -> None:
    streams = Streams(Net(Net()), 1, 2)
    streams.use(4, side=True)
    streams.use(8, side=False)
    assert [streams.side(size) for size in (1, 2, 4, 5, 8, 32)] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    assert streams.to_json() == {"streams": 2, "threads": 1, "batches": [4]}


@pytest.mark.parametrize(
    ("smaller", "side_s", "whole_s", "side"),
    [
        (False, [1.05], [1.0], True),
        (False, [1.2], [1.0], False),
        (False, [3.0, 1.05], [1.0, 2.0], True),  # the shortest count
        (True, [1.2], [1.0], True),  # a single run may have been stalled
        (True, [1.4], [1.0], False),
        (True, [1.2] * 3, [1.0] * 3, False),  # three were not
    ],
)
def test_the_shortest_runs_choose_and_few_of_a_large_batch_say_less_than_smaller_ones(
    smaller: bool, side_s: list[float], whole_s: list[float], side: bool
) -> None:
    streams = Streams(Net(Net()), 1, 2)
    streams.use(4, side=smaller)
    assert streams.choose(8, side_s, whole_s) == side
    assert (streams.side(8), streams.side(4)) == (side, smaller)


@pytest.mark.parametrize(
    ("cores", "least", "threads"), [(1, 1, 0), (2, 1, 1), (2, 4, 0), (3, 1, 1), (16, 1, 4)]
)
def test_cores_are_shared_out_to_four_streams_at_most(cores: int, least: int, threads: int) -> None:
    whole = Net(Net())
    streams = Streams(whole, least, cores)
    assert (streams.can, whole.asked) == (threads > 0, threads)


def test_a_part_that_fails_fails_the_batch_once_the_others_are_done() -> None:
    narrow = Net(seconds=0.05)
    streams = Streams(Net(narrow), 1, 2)
    streams.use(2, side=True)
    with pytest.raises(RuntimeError, match="choked"):
        streams.run([{"x": np.full(2, 13.0)}, {"x": np.zeros(2)}], 8)
    assert narrow.sizes == [1, 1]


def test_a_batch_on_all_cores_counts_less_where_others_run_side_by_side() -> None:
    streams = Streams(Net(Net()), 1, 2)
    assert (streams.step, streams.worth(1)) == (1, 1.0)
    streams.use(4, side=True)
    assert (streams.step, [streams.worth(size) for size in (1, 2, 4)]) == (2, [HELD_UP, 1.0, 1.0])
    curve = Curve((1, 4), (10.0, 41.0))
    alike = Law(curve, slo_s=1.0).forecast
    busy = Law(replace(curve, step=2), slo_s=1.0, worth=streams.worth).forecast
    assert [alike.best(4), busy.best(4), busy.best(1)] == [1, 2, 1]
    assert busy.rate(4) == alike.rate(4)  # times and rates stay what was measured


def test_a_batch_of_uneven_parts_takes_as_long_as_its_largest_part() -> None:
    curve = Curve((1, 2, 7), (10.0, 12.0, 37.0), step=2)
    assert [1000 * curve.seconds(size) for size in range(1, 8)] == pytest.approx(
        [10, 12, 22, 22, 32, 32, 37]
    )
    assert [curve.bucket(size) for size in (1, 2, 3, 7)] == [0, 1, 2, 2]


def test_where_no_second_session_can_be_had_all_cores_are_used_and_it_is_told() -> None:
    class Full(Net):
        def beside(self, threads: int) -> Net | None:
            raise EngineError("no memory")

    whole = Full()
    streams = Streams(whole, 1, 2)
    assert (streams.can, streams.warning) == (False, "nothing runs side by side: no memory")
    streams.use(2, side=False)
    assert doubled(streams.run(items(2), 8)) == [0.0, 2.0]
    streams.close()
    assert whole.closed


def test_both_are_closed() -> None:
    whole = Net(narrow := Net())
    Streams(whole, 1, 2).close()
    assert whole.closed
    assert narrow.closed


@pytest.mark.parametrize(("factor", "side"), [(0.6, True), (CLOSE + 0.4, False)])
def test_the_warm_up_runs_every_size_both_ways_and_keeps_the_better(
    make_manifest: MakeManifest, factor: float, side: bool
) -> None:
    manifest = make_manifest()
    narrow = Net(seconds=0.01 * factor)
    whole = Net(narrow, seconds=0.01)
    streams = Streams(whole, 1, 2)

    async def run(batch: Sequence[Tensors]) -> Sequence[Tensors]:
        return streams.run(batch, 8)

    warm = WarmUp(run, manifest.variants[0])
    tuning = Tuning(manifest, manifest.variants[0], Options("twice"), None)
    asyncio.run(warm_up(warm, [], zeros_or(manifest, ()), tuning, streams))
    assert [streams.side(size) for size in (2, 4, 8)] == [side] * 3
    assert narrow.sizes
    kept, other = (narrow, whole) if side else (whole, narrow)
    assert min(warm.times(8)) >= kept.seconds
    # What a run takes beyond its sleep is the machine's: ten runs are enough for one without.
    assert (min(warm.times(8)) < other.seconds) == (kept.seconds < other.seconds)


@pytest.mark.parametrize("hop_ms", [0.4, 0.0])
def test_several_batches_at_once_are_measured_as_such(
    make_manifest: MakeManifest,
    make_profile: MakeProfile,
    monkeypatch: pytest.MonkeyPatch,
    hop_ms: float,
) -> None:
    """A single batch of a tiny model is slower side by side, several at once are not."""
    manifest, clock = make_manifest(), [0.0]
    streams = Streams(Net(Net()), 1, 2)

    async def run(batch: Sequence[Tensors]) -> Sequence[Tensors]:
        # On this clock a way to the threads and back takes 1 ms, an item 0.1 ms and half of it.
        side = streams.side(len(batch))
        clock[0] += len(batch) * (0.00005 if side else 0.0001) + (0.001 if side else 0.0)
        return streams.run(batch, 8)

    def kept(*_: object) -> None:
        """The figure that was set stays."""

    warm = WarmUp(run, manifest.variants[0], lambda: clock[0])
    tuning = Tuning(manifest, manifest.variants[0], Options("twice"), None)
    tuning.profile = make_profile({1: 0.1, 4: 0.4, 8: 0.8})
    tuning.measured(Curve((1, 4, 8), (0.1, 0.4, 0.8)))
    assert tuning.evidence
    tuning.evidence = replace(tuning.evidence, hop_ms=hop_ms)
    monkeypatch.setattr(Tuning, "add_hop", kept)
    asyncio.run(warm_up(warm, [], zeros_or(manifest, ()), tuning, streams))
    assert not any(streams.side(size) for size in (2, 4, 8))
    most = tuning.most_cut()
    assert (most > 8) == (hop_ms > 0)
    assert streams.side(most) == streams.side(9) == (hop_ms > 0)
    assert set(warm.ms()) <= {1, 2, 4, 8}  # what a turn took is no batch's time


def test_a_real_net_computes_the_same_side_by_side(digits_artifact: Path) -> None:
    batch = Rows({"input": np.random.default_rng(0).random((7, 1, 8, 8), np.float32)})
    with runtime.load(digits_artifact) as predictor:
        streams = Streams(predictor, 1, 2)
        assert streams.can
        alone = predictor.run(batch)
        streams.use(32, side=True)
        beside = streams.run(batch, 32)
        assert isinstance(beside, Rows)
        for a, b in zip(beside, alone, strict=True):
            assert np.abs(np.subtract(a["logits"], b["logits"])).max() < 1e-4
        streams.close()


def test_the_card_says_what_runs_side_by_side(digits_artifact: Path) -> None:
    predictor = runtime.load(digits_artifact)
    model = Model(predictor, Options("digits"), digits_artifact)

    async def card() -> dict[str, Any]:
        await model.warm_up()
        found = await model.card()
        await model.close()
        return found

    found = asyncio.run(card())["side_by_side"]
    assert found is None or set(found) == {"streams", "threads", "batches"}
