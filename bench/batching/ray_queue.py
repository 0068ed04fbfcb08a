"""Ray Serve's own ``_BatchQueue``, from the installed package, run in virtual time.

Only what talks to a cluster is left out: its metrics, and a log line that compares its limits with
the replica's.
"""

# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001
# The queue that `serve.batch` uses is private to Ray; running any other would prove nothing.

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from ray._common.signature import DUMMY_TYPE
from ray.serve import batching
from ray.serve.context import _RequestContext
from simulator import Engine, Job, Length, Outcome, Traffic
from virtual import Clock, Replica, VirtualLoop, replaced, run

__all__ = ["RayKnobs", "simulate_ray"]


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


class _Silent:
    """Stands for a metric: there is no cluster to send it to."""

    def __init__(self, *_args: object, **_named: object) -> None:
        pass

    def observe(self, *_args: object, **_named: object) -> None:
        """Forget."""

    set = inc = observe


class _Queue(batching._BatchQueue):
    def _warn_if_max_batch_size_exceeds_max_ongoing_requests(self) -> None:
        """Say nothing: there is no replica to compare with."""


class _Replica(Replica):
    """What ``serve.batch`` decorates ``run`` with."""

    def __init__(self, knobs: RayKnobs) -> None:
        super().__init__(knobs.ongoing)
        self._queue = _Queue(knobs.max_batch, knobs.wait, 1, self.run)

    def submit(self, job: Job) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        request = batching._SingleRequest(None, [DUMMY_TYPE, job], future, _RequestContext(), None)
        cast("Any", self._queue).put(request)  # Ray annotates it as a tuple, which it is not
        return future

    def close(self) -> None:
        """End the queue's task."""
        cast("asyncio.Task[None]", self._queue._handle_batch_task).cancel()


def simulate_ray(
    knobs: RayKnobs, engine: Engine, traffic: Traffic, length: Length, seed: int
) -> Outcome:
    """As ``simulate``, with Ray's queue."""
    outcome, loop = Outcome(length.warm_up, length.whole), VirtualLoop()

    async def main() -> None:
        replica = _Replica(knobs)
        await replica.play(engine, traffic, seed, outcome)
        replica.close()

    silent = dict.fromkeys(("Counter", "Gauge", "Histogram"), _Silent)
    with replaced(batching, time=Clock(loop), **silent):
        run(loop, main(), "Ray's queue")
    return outcome
