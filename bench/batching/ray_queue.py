"""Ray Serve's own ``_BatchQueue``, from the installed package, run in virtual time.

Its code is asyncio code that reads ``time.time()`` and sleeps on timers, so it runs on an event
loop whose clock jumps to the next timer in place of waiting for it. Only what talks to a cluster is
left out: its metrics, and a log line that compares its limits with the replica's.
"""

# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001
# The queue that `serve.batch` uses is private to Ray; running any other would prove nothing.
# ruff: noqa: S311 - the dice of a simulation keep no secret

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from ray._common.signature import DUMMY_TYPE
from ray.serve import batching
from ray.serve.context import _RequestContext
from simulator import BACK_OFF_S, Closed, Engine, Job, Length, Outcome, Traffic

__all__ = ["RayKnobs", "VirtualLoop", "simulate_ray"]


@dataclass(frozen=True, slots=True)
class RayKnobs:
    """Options of ``serve.batch`` and of the deployment around it."""

    max_batch: int
    """``max_batch_size``."""
    wait: float
    """``batch_wait_timeout_s``."""
    ongoing: int | None = None
    """Requests that the replica takes at once, ``max_ongoing_requests`` with
    ``max_queued_requests: 0``; more are refused. None: no bound."""


TURN_S = 1e-7
"""One turn of the loop takes this at least: Ray's queue sleeps again for what rounding has left of
its wait, and would never see the end of it on a clock that stands still."""


class _Jump(selectors.DefaultSelector):
    """Lets time pass in place of waiting for files: there are none but the loop's own pipe."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing is left to happen, and the simulation has not ended")
        self.now += max(TURN_S, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Seconds since the loop was made, virtual."""
        return self._jump.now


class _Silent:
    """Stands for a metric: there is no cluster to send it to."""

    def __init__(self, *_args: object, **_named: object) -> None:
        pass

    def observe(self, *_args: object, **_named: object) -> None:
        """Forget."""

    set = inc = observe


class _Clock:
    """Stands for the module ``time`` in Ray's module."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.time = loop.time


class _Queue(batching._BatchQueue):
    def _warn_if_max_batch_size_exceeds_max_ongoing_requests(self) -> None:
        """Say nothing: there is no replica to compare with."""


@contextmanager
def _without_cluster(loop: VirtualLoop) -> Generator[None, None, None]:
    """Give Ray's module the virtual clock and silent metrics, and take them back."""
    mine: dict[str, object] = {"time": _Clock(loop)}
    mine |= dict.fromkeys(("Counter", "Gauge", "Histogram"), _Silent)
    before = {name: getattr(batching, name) for name in mine}
    for name, value in mine.items():
        setattr(batching, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(batching, name, value)


class _Replica:
    """The queue, the engine behind it and the traffic before it."""

    def __init__(self, knobs: RayKnobs, engine: Engine, seed: int, outcome: Outcome) -> None:
        self._limit = knobs.ongoing
        self._engine = engine
        self._engine_dice = random.Random(f"engine {seed}")
        self._dice = random.Random(f"traffic {seed}")
        self._outcome = outcome
        self._loop = asyncio.get_running_loop()
        self._ongoing = 0
        self._queue = _Queue(knobs.max_batch, knobs.wait, 1, self._run)

    async def play(self, traffic: Traffic) -> None:
        """Send everything, and wait for the last answer."""
        if isinstance(traffic, Closed):
            clients = [self._client(traffic, client) for client in range(traffic.clients)]
            await asyncio.gather(*clients)
        else:
            for job in traffic.jobs(self._outcome.end, self._dice):
                await asyncio.sleep(job.arrived - self._loop.time())
                self._send(job, self._forget)
            while self._ongoing:  # noqa: ASYNC110 - sleeping takes no time here
                await asyncio.sleep(0.01)
        task = cast("asyncio.Task[None]", self._queue._handle_batch_task)
        task.cancel()

    async def _run(self, batch: Sequence[Job]) -> Sequence[Job]:
        """What ``serve.batch`` decorates: an engine that the event loop awaits."""
        self._outcome.batches += 1
        self._outcome.items += len(batch)
        await asyncio.sleep(self._engine.run(len(batch), self._loop.time(), self._engine_dice))
        return batch

    async def _client(self, loop: Closed, client: int) -> None:
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / loop.think))
            now = self._loop.time()
            if now >= self._outcome.end:
                return
            answered = asyncio.Event()
            if self._send(Job(now, now + loop.timeout, client=client), answered.set):
                await answered.wait()
            else:
                await asyncio.sleep(BACK_OFF_S)

    def _send(self, job: Job, then: Callable[[], object]) -> bool:
        if self._limit is not None and self._ongoing >= self._limit:
            self._outcome.refused(job)
            return False
        self._ongoing += 1
        future: asyncio.Future[Job] = self._loop.create_future()
        future.add_done_callback(lambda done: self._answered(done, then))
        request = batching._SingleRequest(None, [DUMMY_TYPE, job], future, _RequestContext(), None)
        cast("Any", self._queue).put(request)  # Ray annotates it as a tuple, which it is not
        return True

    def _answered(self, done: asyncio.Future[Job], then: Callable[[], object]) -> None:
        self._ongoing -= 1
        job = done.result()
        self._outcome.answered(self._loop.time(), job)
        then()

    def _forget(self) -> None:
        pass


def simulate_ray(
    knobs: RayKnobs, engine: Engine, traffic: Traffic, length: Length, seed: int
) -> Outcome:
    """As ``simulate``, with Ray's queue."""
    outcome = Outcome(length.warm_up, length.whole)

    async def main() -> None:
        await _Replica(knobs, engine, seed, outcome).play(traffic)

    loop, failures = VirtualLoop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    with _without_cluster(loop), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    if failures:
        raise RuntimeError(f"Ray's queue failed: {failures[0]}")
    return outcome
