"""The batcher, in an event loop whose time jumps from timer to timer, and without threads.

Its own clock stands still unless a test moves it, so that no batch is held for arrivals to come;
where a test is about timers, it is the loop's.
"""

from __future__ import annotations

import asyncio
import pickle
import selectors
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from serve.batching import Batcher, ClosedError, OverloadError, StuckError, hang_s
from serve.decisions import DecisionLog
from serve.law import Curve, Law
from serve.stats import Stats


class Engine:
    """Holds each batch until it is let go; negative numbers break it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(batch))
        await self.gate.wait()
        if any(item < 0 for item in batch):
            raise ValueError(f"cannot take {min(batch)}")
        return [item * 10 for item in batch]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def law_of(
    max_batch: int, max_items: int | None = None, *, slo_s: float = 60.0, alone_ms: float = 1.0
) -> Law:
    """L(1) = ``alone_ms``, and a tenth of it for each further item."""
    ms = {1: alone_ms, max_batch: alone_ms * (0.9 + 0.1 * max_batch)}
    curve = Curve(tuple(ms), tuple(ms.values()))
    return Law(curve, slo_s=slo_s, max_items=max_items)


def make(  # noqa: PLR0913 - each with its default
    engine: Callable[[Sequence[int]], Awaitable[Sequence[int]]],
    *,
    max_batch: int,
    max_items: int | None = None,
    slo_s: float = 60.0,
    alone_ms: float = 1.0,
    clock: Callable[[], float] | None = None,
    **options: Any,
) -> Batcher[int, int]:
    """A batcher whose law expects little of the engine."""
    law = law_of(max_batch, max_items, slo_s=slo_s, alone_ms=alone_ms)
    return Batcher(engine, law, clock=clock or Clock(), **options)


class Jumping(selectors.SelectSelector):
    """Waits for no timer: the time jumps to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def loop_time() -> float:
    """The event loop's clock."""
    return asyncio.get_running_loop().time()


def run(scenario: Callable[[Engine], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(_started(scenario(Engine())), 1000)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


async def _started(scenario: Awaitable[None]) -> None:
    await scenario


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def outputs(batcher: Batcher[int, int], *items: int) -> list[int]:
    return list((await batcher.submit(items)).outputs)


def test_an_item_comes_back_computed() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4, max_items=8)
        assert await outputs(batcher, 3) == [30]

    run(scenario)


def test_what_arrives_together_rides_together_without_waiting() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4, max_items=8)
        results = await asyncio.gather(*(outputs(batcher, n) for n in range(3)))
        assert results == [[0], [10], [20]]
        assert engine.batches == [[0, 1, 2]]

    run(scenario)


def test_what_arrives_while_the_engine_is_busy_gathers_into_the_next_batch() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4, max_items=16)
        engine.gate.clear()
        tasks = [asyncio.create_task(outputs(batcher, 1))]
        await settle()
        for n in range(2, 8):
            tasks.append(asyncio.create_task(outputs(batcher, n)))
            await settle()
        assert engine.batches == [[1]]
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert engine.batches == [[1], [2, 3, 4, 5], [6, 7]]

    run(scenario)


def test_one_call_may_be_larger_than_a_batch() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=2, max_items=8)
        assert await outputs(batcher, 1, 2, 3, 4, 5) == [10, 20, 30, 40, 50]
        assert [len(batch) for batch in engine.batches] == [2, 2, 1]

    run(scenario)


def test_the_engine_is_called_once_at_a_time() -> None:
    async def scenario(_: Engine) -> None:
        running, most = 0, 0

        async def engine(batch: Sequence[int]) -> Sequence[int]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return batch

        batcher = make(engine, max_batch=2, max_items=100)
        await asyncio.gather(*(batcher.submit([n]) for n in range(20)))
        assert most == 1

    run(scenario)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("bad", [0, 3, 7])
def test_a_bad_item_fails_alone(size: int, bad: int) -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=size, max_items=100)
        items = [-1 if n == bad else n for n in range(8)]
        results = await asyncio.gather(
            *(outputs(batcher, n) for n in items), return_exceptions=True
        )
        for n, (item, result) in enumerate(zip(items, results, strict=True)):
            if n == bad:
                assert isinstance(result, ValueError)
            else:
                assert result == [item * 10]

    run(scenario)


def test_a_call_fails_when_one_of_its_items_fails_and_others_do_not() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=8, max_items=100)
        bad, good = await asyncio.gather(
            outputs(batcher, 1, -2, 3), outputs(batcher, 4, 5), return_exceptions=True
        )
        assert isinstance(bad, ValueError)
        assert good == [40, 50]

    run(scenario)


def test_an_engine_that_loses_an_output_is_an_error_for_everyone() -> None:
    async def scenario(_: Engine) -> None:
        async def engine(batch: Sequence[int]) -> Sequence[int]:
            return batch[1:]

        batcher = make(engine, max_batch=8, max_items=100)
        with pytest.raises(Exception, match="0 outputs for 1 items"):
            await batcher.submit([1])
        assert batcher.load == 0

    run(scenario)


def test_a_cancelled_call_leaves_the_queue_at_once() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4, max_items=8)
        engine.gate.clear()
        first = asyncio.create_task(outputs(batcher, 1))
        await settle()
        gone = asyncio.create_task(outputs(batcher, 2, 3))
        kept = asyncio.create_task(outputs(batcher, 4))
        await settle()
        assert batcher.load == 4
        gone.cancel()
        await settle()
        assert batcher.load == 2
        engine.gate.set()
        assert await asyncio.gather(first, kept) == [[10], [40]]
        assert engine.batches == [[1], [4]]

    run(scenario)


def test_a_call_cancelled_while_it_runs_disturbs_nobody() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4, max_items=8)
        engine.gate.clear()
        tasks = [asyncio.create_task(outputs(batcher, n)) for n in (1, 2)]
        await settle()
        tasks[0].cancel()
        engine.gate.set()
        assert await tasks[1] == [20]
        assert await outputs(batcher, 3) == [30]

    run(scenario)


def test_beyond_the_bound_calls_are_refused_whole_and_the_others_are_answered() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=2, max_items=3)
        engine.gate.clear()
        tasks = [asyncio.create_task(outputs(batcher, n)) for n in (1, 2)]
        await settle()
        with pytest.raises(OverloadError) as caught:
            await batcher.submit([3, 4])
        assert caught.value.retry_after_s >= 1
        assert batcher.load == 2
        tasks.append(asyncio.create_task(outputs(batcher, 5)))
        engine.gate.set()
        assert await asyncio.gather(*tasks) == [[10], [20], [50]]

    run(scenario)


def _parity(number: int) -> int:
    return number % 2


def test_only_items_of_one_key_share_a_batch_and_order_holds_within_it() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=8, max_items=100, key=_parity)
        await asyncio.gather(*(outputs(batcher, n) for n in range(6)))
        assert engine.batches == [[0, 2, 4], [1, 3, 5]]

    run(scenario)


def test_closing_answers_what_was_taken_and_refuses_the_rest() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=2, max_items=100)
        engine.gate.clear()
        tasks = [asyncio.create_task(outputs(batcher, n)) for n in range(5)]
        await settle()
        closing = asyncio.create_task(batcher.close())
        await settle()
        with pytest.raises(ClosedError):
            await batcher.submit([9])
        assert not closing.done()
        engine.gate.set()
        await closing
        assert [task.result() for task in tasks] == [[n * 10] for n in range(5)]

    run(scenario)


def test_an_idle_batcher_closes_at_once() -> None:
    async def scenario(engine: Engine) -> None:
        await make(engine, max_batch=2, max_items=2).close()

    run(scenario)


def test_what_is_done_tells_its_times_and_its_batch() -> None:
    async def scenario(engine: Engine) -> None:
        now = 0.0

        async def timed(batch: Sequence[int]) -> Sequence[int]:
            nonlocal now
            now += 0.25
            return await engine(batch)

        batcher = make(timed, max_batch=1, max_items=8, clock=lambda: now)
        first, second = await asyncio.gather(batcher.submit([1]), batcher.submit([2, 3]))
        assert (first.queued_s, first.engine_s, first.batch) == (0.0, 0.25, 1)
        # Of several items, the slowest.
        assert (second.queued_s, second.engine_s, second.batch) == (0.5, 0.25, 1)

    run(scenario)


def test_an_overload_survives_the_trip_between_processes() -> None:
    error = pickle.loads(pickle.dumps(OverloadError("the bound is reached", 3)))  # noqa: S301 - our own
    assert isinstance(error, OverloadError)
    assert (error.retry_after_s, error.code) == (3, "overloaded")
    assert "the bound is reached" in error.message


def test_what_cannot_be_answered_in_time_is_refused_at_once_with_the_figures() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=1, alone_ms=5_000.0)
        engine.gate.clear()
        first = asyncio.create_task(outputs(batcher, 1))
        await settle()
        with pytest.raises(OverloadError, match=r"take 10000.0 ms.* 7000.0 ms") as caught:
            await batcher.submit([2], timeout_s=7.0)
        assert caught.value.retry_after_s == 5
        assert batcher.load == 1
        engine.gate.set()
        assert await first == [10]

    run(scenario)


def test_of_a_call_whose_second_item_is_turned_away_the_first_leaves_too() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4, slo_s=1.0, alone_ms=600.0)
        engine.gate.clear()
        busy = asyncio.create_task(outputs(batcher, 1))
        await settle()
        assert batcher.load == 1
        with pytest.raises(OverloadError):
            await batcher.submit([2, 3])
        assert batcher.load == 1
        engine.gate.set()
        assert await busy == [10]
        assert engine.batches == [[1]]

    run(scenario)


def test_the_bound_on_items_is_kept_within_a_call() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=2, max_items=3)
        batcher._watcher = log = Stats()  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(OverloadError, match="0 items are waiting or running, and 3 are"):
            await batcher.submit([1, 2, 3, 4])
        assert batcher.load == 0
        assert log.sheds == {"bound": 1}
        assert log.log.to_json()[0]["rule"] == "bound"

    run(scenario)


def test_the_earliest_deadline_goes_first() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=1)
        engine.gate.clear()
        tasks = [asyncio.create_task(outputs(batcher, 1))]
        await settle()
        for item, timeout_s in ((2, 50.0), (3, 20.0), (4, 30.0)):
            tasks.append(asyncio.create_task(_outputs_within(batcher, item, timeout_s)))
            await settle()
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert engine.batches == [[1], [3], [4], [2]]

    run(scenario)


async def _outputs_within(batcher: Batcher[int, int], item: int, timeout_s: float) -> list[int]:
    return list((await batcher.submit([item], timeout_s=timeout_s)).outputs)


def test_a_higher_class_goes_first_whatever_the_deadlines() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=1)
        engine.gate.clear()
        tasks = [asyncio.create_task(batcher.submit([1]))]
        await settle()
        for item, priority, timeout_s in ((2, 1, 10.0), (3, 0, 40.0), (4, 2, 5.0), (5, 0, 30.0)):
            call = batcher.submit([item], timeout_s=timeout_s, priority=priority)
            tasks.append(asyncio.create_task(call))
            await settle()
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert engine.batches == [[1], [5], [3], [2], [4]]

    run(scenario)


def test_what_expired_while_it_waited_is_refused_when_the_next_batch_is_cut() -> None:
    async def scenario(engine: Engine) -> None:
        clock = Clock()
        batcher = make(engine, max_batch=1, clock=clock)
        engine.gate.clear()
        first = asyncio.create_task(outputs(batcher, 1))
        await settle()
        late = asyncio.create_task(_outputs_within(batcher, 2, 3.0))
        in_time = asyncio.create_task(_outputs_within(batcher, 3, 9.0))
        await settle()
        clock.now = 4.0
        engine.gate.set()
        assert await first == [10]
        with pytest.raises(OverloadError, match="less than the engine needs"):
            await late
        assert await in_time == [30]
        assert engine.batches == [[1], [3]]

    run(scenario)


def test_while_a_batch_overruns_nobody_waits_past_the_deadline_to_be_told() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=1, slo_s=0.05, clock=loop_time)
        engine.gate.clear()
        first = asyncio.create_task(outputs(batcher, 1))
        await settle()
        with pytest.raises(OverloadError):
            await asyncio.wait_for(batcher.submit([2]), 5)
        assert not first.done()
        engine.gate.set()
        assert await first == [10]

    run(scenario)


def test_a_batch_is_held_for_clients_that_always_come_back() -> None:
    """Late binding alone would run one of four and three of four in turns."""

    async def scenario(_: Engine) -> None:
        sizes: list[int] = []

        async def engine(batch: Sequence[int]) -> Sequence[int]:
            sizes.append(len(batch))
            await asyncio.sleep(0.02)
            return batch

        watcher = Stats()
        law = law_of(8, alone_ms=20.0)
        batcher = Batcher[int, int](engine, law, clock=loop_time, watcher=watcher)

        async def client(number: int) -> None:
            for _ in range(20):
                await batcher.submit([number])

        first = asyncio.create_task(client(0))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, *(client(number) for number in (1, 2, 3)))
        assert sizes[:2] == [1, 3]
        assert sizes[-10:-3] == [4] * 7
        assert "hold" in {each["type"] for each in watcher.log.to_json()}

    run(scenario)


def test_a_hold_too_short_for_a_timer_ends_in_time_or_when_an_item_comes() -> None:
    async def scenario(engine: Engine) -> None:
        clock = Clock()

        def ticking() -> float:
            clock.now += 1e-5
            return clock.now

        batcher: Any = make(engine, max_batch=4, clock=ticking, grain_s=0.001)
        await batcher._hold(0.0009)
        assert 0.0009 <= clock.now < 0.001
        batcher._changed.set()
        await batcher._hold(0.0009)
        assert clock.now < 0.001
        assert loop_time() == 0.0  # no timer had a part in it

    run(scenario)


async def _taking(
    seconds: float, batcher: Batcher[int, int], engine: Engine, item: int = 1
) -> None:
    """One batch that takes so long."""
    engine.gate.clear()
    asyncio.get_running_loop().call_later(seconds, engine.gate.set)
    await batcher.submit([item])


def test_a_failed_batch_teaches_nothing_of_the_engines_speed() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=1, clock=loop_time, alone_ms=1000.0)
        for _ in range(12):
            with pytest.raises(ValueError, match="cannot take"):
                await _taking(0.5, batcher, engine, -1)
        assert batcher.law.forecast.ratio(1) == 1.0
        for _ in range(12):
            await _taking(0.5, batcher, engine)
        assert batcher.law.forecast.ratio(1) == pytest.approx(0.5)

    run(scenario)


def _soon(_: float) -> float:
    return 0.05


def test_whoever_waits_for_an_engine_that_hangs_is_told_and_it_may_come_back() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=1, clock=loop_time, hang=_soon)
        engine.gate.clear()
        tasks = [asyncio.create_task(outputs(batcher, n)) for n in (1, 2, 3)]
        for task in tasks:
            with pytest.raises(StuckError, match="a batch has been running for"):
                await asyncio.wait_for(task, 5)
        with pytest.raises(StuckError):
            batcher.check_engine()
        with pytest.raises(StuckError):
            await batcher.submit([4])
        await asyncio.wait_for(batcher.close(), 5)  # does not wait for it
        engine.gate.set()
        await settle()
        batcher.check_engine()
        assert engine.batches == [[1]]
        assert batcher.load == 0

    run(scenario)


def test_an_engine_counts_as_hung_after_ten_seconds_or_twenty_times_what_was_expected() -> None:
    assert hang_s(0.01) == 10.0
    assert hang_s(2.0) == 40.0


def test_every_decision_can_be_explained() -> None:
    async def scenario(engine: Engine) -> None:
        clock = Clock()
        watcher = Stats(DecisionLog(clock, wall=lambda: 1e9))
        batcher = make(engine, max_batch=4, max_items=4, clock=clock, watcher=watcher)
        clock.now = 1.5
        await batcher.submit([1, 2])
        engine.gate.clear()
        busy = asyncio.create_task(batcher.submit([3]))
        await settle()
        late = asyncio.create_task(batcher.submit([4], timeout_s=2.0))
        await settle()
        clock.now = 5.5
        engine.gate.set()
        await asyncio.gather(busy, late, return_exceptions=True)
        shed, second, first = watcher.log.to_json()
        assert first["at"] == "2001-09-09T01:46:41.500000+00:00"
        assert (first["type"], first["rule"], first["size"]) == ("cut", "all", 2)
        assert first["why"].startswith("all 2 that waited; they take 1.1 ms")
        assert second["size"] == 1
        assert (shed["type"], shed["rule"], shed["waited_ms"]) == ("shed", "expired", 4000.0)
        assert watcher.sheds == {"expired": 1}

    run(scenario)


def _broken(_: float) -> float:
    return 1 / 0


def test_a_fault_in_the_driver_fails_those_who_wait_and_not_those_who_come_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=1)
        with monkeypatch.context() as patched:
            patched.setattr(batcher.law, "cut", _broken)
            calls = [asyncio.create_task(outputs(batcher, n)) for n in (1, 2)]
            for call in calls:
                with pytest.raises(ZeroDivisionError):
                    await asyncio.wait_for(call, 5)
        assert batcher.load == 0
        assert await outputs(batcher, 3) == [30]

    run(scenario)


# --- many items in one call


class Block(list[int]):
    """A sequence of items that says that they are alike."""

    alike = True


def test_items_that_are_alike_are_asked_for_their_key_once() -> None:
    async def scenario(engine: Engine) -> None:
        asked: list[int] = []
        batcher = make(engine, max_batch=4, key=asked.append)
        assert await outputs(batcher, *Block(range(6))) == [n * 10 for n in range(6)]
        seen = len(asked)
        assert list((await batcher.submit(Block(range(6)))).outputs) == [n * 10 for n in range(6)]
        assert (seen, len(asked)) == (6, 7)
        assert engine.batches == [[0, 1, 2, 3], [4, 5]] * 2

    run(scenario)


def test_a_call_without_items_is_refused_and_waits_for_nothing() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4)
        with pytest.raises(ValueError, match="no items"):
            await batcher.submit([])
        assert batcher.load == 0

    run(scenario)


def test_items_of_several_keys_come_back_in_their_order() -> None:
    async def scenario(engine: Engine) -> None:

        def odd(item: int) -> int:
            return item % 2

        batcher = make(engine, max_batch=2, key=odd)
        assert await outputs(batcher, 1, 2, 3, 4, 5) == [10, 20, 30, 40, 50]
        assert sorted(map(sorted, engine.batches)) == [[1, 3], [2, 4], [5]]

    run(scenario)


def test_a_poisonous_item_in_a_long_call_fails_that_call_alone() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=8)

        async def choking(batch: Sequence[int]) -> Sequence[int]:
            if 13 in batch:
                raise RuntimeError("choked")
            return await engine(batch)

        batcher._run = choking  # pyright: ignore[reportPrivateUsage]
        good = asyncio.create_task(outputs(batcher, 1, 2, 3))
        bad = asyncio.create_task(outputs(batcher, *range(10, 20)))
        after = asyncio.create_task(outputs(batcher, 4, 5, 6))
        assert await good == [10, 20, 30]
        with pytest.raises(RuntimeError, match="choked"):
            await bad
        assert await after == [40, 50, 60]
        await settle()
        assert batcher.load == 0

    run(scenario)


def test_what_is_left_of_a_call_that_went_away_is_not_computed() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = make(engine, max_batch=4)
        engine.gate.clear()
        long = asyncio.create_task(outputs(batcher, *range(20)))
        await settle()
        long.cancel()
        await settle()
        assert batcher.load == 4
        engine.gate.set()
        assert await outputs(batcher, 7) == [70]
        assert engine.batches == [[0, 1, 2, 3], [7]]

    run(scenario)


def test_a_cut_of_several_batches_is_told_as_such() -> None:
    class Seen:
        def __init__(self) -> None:
            self.batches: list[tuple[int, float]] = []

        def decided(self, now: float, decision: object) -> None: ...

        def computed(self, size: int, seconds: float) -> None:
            self.batches.append((size, seconds))

    async def scenario(engine: Engine) -> None:
        now, seen = 0.0, Seen()

        async def timed(batch: Sequence[int]) -> Sequence[int]:
            nonlocal now
            now += 0.5
            return await engine(batch)

        law = Law(Curve((1, 4), (1.0, 2.0)).repeated(0.007), slo_s=60.0)
        batcher = Batcher[int, int](timed, law, clock=lambda: now, watcher=seen)
        done = await batcher.submit(range(12))
        assert (done.batch, engine.batches) == (4, [list(range(12))])
        assert seen.batches == [(4, pytest.approx(0.5 / 3))] * 3

    run(scenario)
