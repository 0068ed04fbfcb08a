"""Servers written for asyncio, run in virtual time.

Their code reads a clock and sleeps on timers, so it runs on an event loop whose clock jumps to the
next timer in place of waiting for it. A subclass of ``Replica`` says how a request is handed over.
"""

# ruff: noqa: S311 - the dice of a simulation keep no secret

from __future__ import annotations

import asyncio
import random
import selectors
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

from simulator import BACK_OFF_S, Closed, Engine, Job, Outcome, Traffic

__all__ = ["Clock", "Replica", "VirtualLoop", "replaced", "run"]

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


class Clock:
    """Stands for the module ``time`` in a module that reads no clock but ``time.time``."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.time = loop.time


@contextmanager
def replaced(module: ModuleType, **mine: object) -> Generator[None, None, None]:
    """Give a module other globals, and take them back."""
    before = {name: getattr(module, name) for name in mine}
    _set(module, mine)
    try:
        yield
    finally:
        _set(module, before)


def _set(module: ModuleType, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        setattr(module, name, value)


def run(loop: VirtualLoop, main: Coroutine[Any, Any, None], name: str) -> None:
    """Run to the end.

    Raises:
        RuntimeError: a task or callback of what ``name`` names has failed.
    """
    failures = list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main)
    if failures:
        raise RuntimeError(f"{name} failed: {failures[0]}")


class Replica(ABC):
    """A queue, the engine behind it and the traffic before it.

    Args:
        limit: requests that it holds at once; more are refused. None: no bound.
    """

    refusals: ClassVar[tuple[type[Exception], ...]] = ()
    """What a future fails with where the queue has turned its request away."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._ongoing = 0

    @abstractmethod
    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Hand a request over; the future is done when it is answered or turned away."""

    async def play(self, engine: Engine, traffic: Traffic, seed: int | str, into: Outcome) -> None:
        """Send everything, and wait for the last answer; the time of ``into`` begins now."""
        self._engine, self._outcome, self._began = engine, into, self._loop.time()
        self._engine_dice = random.Random(f"engine {seed}")
        self._dice = random.Random(f"traffic {seed}")
        if isinstance(traffic, Closed):
            clients = [self._client(traffic, client) for client in range(traffic.clients)]
            await asyncio.gather(*clients)
            return
        for job in traffic.jobs(into.end, self._dice):
            await asyncio.sleep(job.arrived - self._now())
            self._send(job, _forget)
        while self._ongoing:  # noqa: ASYNC110 - sleeping takes no time here
            await asyncio.sleep(0.01)

    async def run(self, batch: Sequence[Job]) -> Sequence[Job]:
        """What the queue calls: an engine that the event loop awaits."""
        self._outcome.batches += 1
        self._outcome.items += len(batch)
        await asyncio.sleep(self._engine.run(len(batch), self._now(), self._engine_dice))
        return batch

    def _now(self) -> float:
        return self._loop.time() - self._began

    async def _client(self, loop: Closed, client: int) -> None:
        while True:
            await asyncio.sleep(self._dice.expovariate(1 / loop.think))
            now = self._now()
            if now >= self._outcome.end:
                return
            answered: asyncio.Future[bool] = self._loop.create_future()
            self._send(Job(now, now + loop.timeout, client=client), answered.set_result)
            if not await answered:
                await asyncio.sleep(BACK_OFF_S)

    def _send(self, job: Job, then: Callable[[bool], object]) -> None:
        if self._limit is not None and self._ongoing >= self._limit:
            self._outcome.refused(job)
            then(False)  # noqa: FBT003 - as a future's result
            return
        self._ongoing += 1
        self.submit(job).add_done_callback(lambda done: self._over(job, done, then))

    def _over(self, job: Job, done: asyncio.Future[Any], then: Callable[[bool], object]) -> None:
        self._ongoing -= 1
        refused = isinstance(done.exception(), self.refusals)
        if refused:
            self._outcome.refused(job)
        else:
            done.result()
            self._outcome.answered(self._now(), job)
        then(not refused)


def _forget(_: bool) -> None:
    pass
