"""The batcher, in an event loop of its own and without threads."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from serve.batching import Batcher, ClosedError, OverloadError


class Engine:
    """Holds each batch until it is let go; negative numbers break it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch: list[int]) -> Sequence[int]:
        self.batches.append(batch)
        await self.gate.wait()
        if any(item < 0 for item in batch):
            raise ValueError(f"cannot take {min(batch)}")
        return [item * 10 for item in batch]


def run(scenario: Callable[[Engine], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(Engine())

    asyncio.run(asyncio.wait_for(main(), 10))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def outputs(batcher: Batcher[int, int], *items: int) -> list[int]:
    return [done.output for done in await batcher.submit(items)]


def test_an_item_comes_back_computed() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = Batcher(engine, max_batch=4, max_items=8)
        assert await outputs(batcher, 3) == [30]

    run(scenario)


def test_what_arrives_together_rides_together_without_waiting() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = Batcher(engine, max_batch=4, max_items=8)
        results = await asyncio.gather(*(outputs(batcher, n) for n in range(3)))
        assert results == [[0], [10], [20]]
        assert engine.batches == [[0, 1, 2]]

    run(scenario)


def test_what_arrives_while_the_engine_is_busy_gathers_into_the_next_batch() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = Batcher(engine, max_batch=4, max_items=16)
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
        batcher = Batcher(engine, max_batch=2, max_items=8)
        assert await outputs(batcher, 1, 2, 3, 4, 5) == [10, 20, 30, 40, 50]
        assert [len(batch) for batch in engine.batches] == [2, 2, 1]

    run(scenario)


def test_the_engine_is_called_once_at_a_time() -> None:
    async def scenario(_: Engine) -> None:
        running, most = 0, 0

        async def engine(batch: list[int]) -> list[int]:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return batch

        batcher = Batcher(engine, max_batch=2, max_items=100)
        await asyncio.gather(*(batcher.submit([n]) for n in range(20)))
        assert most == 1

    run(scenario)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("bad", [0, 3, 7])
def test_a_bad_item_fails_alone(size: int, bad: int) -> None:
    async def scenario(engine: Engine) -> None:
        batcher = Batcher(engine, max_batch=size, max_items=100)
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
        batcher = Batcher(engine, max_batch=8, max_items=100)
        bad, good = await asyncio.gather(
            outputs(batcher, 1, -2, 3), outputs(batcher, 4, 5), return_exceptions=True
        )
        assert isinstance(bad, ValueError)
        assert good == [40, 50]

    run(scenario)


def test_an_engine_that_loses_an_output_is_an_error_for_everyone() -> None:
    async def scenario(_: Engine) -> None:
        async def engine(batch: list[int]) -> list[int]:
            return batch[1:]

        batcher = Batcher(engine, max_batch=8, max_items=100)
        with pytest.raises(Exception, match="0 outputs for 1 items"):
            await batcher.submit([1])
        assert batcher.load == 0

    run(scenario)


def test_a_cancelled_call_leaves_the_queue_at_once() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = Batcher(engine, max_batch=4, max_items=8)
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
        batcher = Batcher(engine, max_batch=4, max_items=8)
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
        batcher = Batcher(engine, max_batch=2, max_items=3)
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


def test_retry_after_follows_the_measured_time_of_a_batch() -> None:
    async def scenario(engine: Engine) -> None:
        now = 0.0

        async def slow(batch: list[int]) -> Sequence[int]:
            nonlocal now
            now += 5.0
            return await engine(batch)

        batcher = Batcher(slow, max_batch=1, max_items=2, clock=lambda: now)
        await batcher.submit([1])
        engine.gate.clear()
        tasks = [asyncio.create_task(outputs(batcher, n)) for n in (2, 3)]
        await settle()
        with pytest.raises(OverloadError) as caught:
            batcher.check()
        assert caught.value.retry_after_s == 10
        engine.gate.set()
        await asyncio.gather(*tasks)

    run(scenario)


def test_only_items_of_one_key_share_a_batch_and_order_holds_within_it() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = Batcher(engine, max_batch=8, max_items=100, key=lambda n: n % 2)
        await asyncio.gather(*(outputs(batcher, n) for n in range(6)))
        assert engine.batches == [[0, 2, 4], [1, 3, 5]]

    run(scenario)


def test_closing_answers_what_was_taken_and_refuses_the_rest() -> None:
    async def scenario(engine: Engine) -> None:
        batcher = Batcher(engine, max_batch=2, max_items=100)
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
        await Batcher[Any, Any](engine, max_batch=2, max_items=2).close()

    run(scenario)


def test_what_is_done_tells_its_times_and_its_batch() -> None:
    async def scenario(engine: Engine) -> None:
        now = 0.0

        async def timed(batch: list[int]) -> Sequence[int]:
            nonlocal now
            now += 0.25
            return await engine(batch)

        batcher = Batcher(timed, max_batch=1, max_items=8, clock=lambda: now)
        first, second = await batcher.submit([1, 2])
        assert (first.queued_s, first.engine_s, first.batch) == (0.0, 0.25, 1)
        assert (second.queued_s, second.engine_s, second.batch) == (0.25, 0.25, 1)

    run(scenario)


def test_an_overload_survives_the_trip_between_processes() -> None:
    error = pickle.loads(pickle.dumps(OverloadError(9, 8, 3)))  # noqa: S301 - our own
    assert isinstance(error, OverloadError)
    assert (error.retry_after_s, error.code) == (3, "overloaded")
