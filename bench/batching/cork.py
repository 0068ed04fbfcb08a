"""BentoML's own ``CorkDispatcher``, from a folder that it was installed into, in virtual time.

BentoML is no package of this project: ``pip install --target FOLDER bentoml``. Its code is run as
it is; only its clock is the loop's. It fits its engine's times to a line when it starts, over ten
batches of one to three items, and then every five seconds: so it first lives through the scenario
for that long, with an engine that keeps its speed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator import Engine, Job, Length, Outcome, Traffic
from virtual import Clock, Replica, VirtualLoop, replaced, run

__all__ = ["CORK", "RIVALS", "CorkKnobs", "cork_version", "simulate_cork", "use"]

CORK = "BentoML CORK"
RIVALS = Path(tempfile.gettempdir()) / "rivals"
"""Where its package is looked for, as ``bench/serving.py`` does."""
DISPATCHER = "bentoml._internal.marshal.dispatcher"
BUCKET = "bentoml._internal.utils.alg"
"""The module of the bucket that paces its fits; it reads the time, too."""


@dataclass(frozen=True, slots=True)
class CorkKnobs:
    """Options of a batchable method and of the service around it."""

    max_batch: int
    """``max_batch_size``."""
    latency_ms: int
    """``max_latency_ms``: what is expected to take longer is refused with 503."""
    ongoing: int | None = None
    """``traffic.max_concurrency``: more are refused. None: no bound."""


def cork_version(folder: Path) -> str | None:
    """Of the package in ``folder``; None where there is none."""
    found = importlib.metadata.distributions(name="bentoml", path=[str(folder)])
    return next((each.version for each in found), None)


def use(folder: Path) -> None:
    """Let the package be found; what this project installs comes before what lies beside it."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


class _Overloaded(Exception):  # noqa: N818 - named as BentoML's ServiceUnavailable is
    """A request was turned away."""


class _Replica(Replica):
    """A service with one batchable method, ``run``."""

    refusals = (_Overloaded,)

    def __init__(self, knobs: CorkKnobs) -> None:
        super().__init__(knobs.ongoing)
        self._dispatcher: Any = importlib.import_module(DISPATCHER).CorkDispatcher(
            max_latency_in_ms=knobs.latency_ms,
            max_batch_size=knobs.max_batch,
            fallback=_overloaded,
            get_batch_size=_one,
        )
        self._method: Any = self._dispatcher(self.run)

    def submit(self, job: Job) -> asyncio.Future[Any]:
        return self._loop.create_task(self._method(job))

    def close(self) -> None:
        """End the dispatcher's task."""
        self._dispatcher.shutdown()

    async def learn(self, engine: Engine, traffic: Traffic, length: Length, seed: int) -> None:
        """Live through the scenario until the next batch brings a new fit."""
        interval = self._dispatcher.optimizer.INTERVAL_REFRESH_PARAMS
        life, even = 0, replace(engine, slower=1.0)
        while self._loop.time() < interval:
            life += 1
            nothing = Outcome(length.warm_up, length.whole)
            await self.play(even, traffic, f"life {life} of {seed}", nothing)


def _overloaded() -> None:
    """As BentoML's server, which raises ``ServiceUnavailable`` here."""
    raise _Overloaded


def _one(_: Job) -> int:
    return 1


@contextmanager
def _virtual(loop: VirtualLoop) -> Generator[None, None, None]:
    names = (DISPATCHER, BUCKET)
    first, second = map(importlib.import_module, names)
    with replaced(first, time=Clock(loop)), replaced(second, time=Clock(loop)):
        yield


def simulate_cork(
    knobs: CorkKnobs, engine: Engine, traffic: Traffic, length: Length, seed: int
) -> Outcome:
    """As ``simulate``, with BentoML's dispatcher."""
    outcome, loop = Outcome(length.warm_up, length.whole), VirtualLoop()

    async def main() -> None:
        replica = _Replica(knobs)
        await replica.learn(engine, traffic, length, seed)
        await replica.play(engine, traffic, seed, outcome)
        replica.close()

    with _virtual(loop):
        run(loop, main(), "BentoML's dispatcher")
    return outcome
