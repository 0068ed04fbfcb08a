"""The production policy as the simulator drives it, and its rivals re-implemented."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from simulator import Job

from serve.law import Admitted, Curve, Cut, Hold, Law

__all__ = [
    "Clipper",
    "ClipperKnobs",
    "Greedy",
    "GreedyKnobs",
    "NoKnobs",
    "Ours",
    "Triton",
    "TritonKnobs",
]

Answer = tuple[Sequence[Job], Sequence[Job], float | None]


class Ours:
    """``serve.law.Law`` itself."""

    def __init__(self, curve: Curve, slo_s: float) -> None:
        self.law = Law(curve, slo_s=slo_s)

    def offer(self, now: float, job: Job) -> bool:
        """Ask the law."""
        return isinstance(self.law.offer(now, job), Admitted)

    def cut(self, now: float) -> Answer:
        """Ask the law."""
        answer = self.law.cut(now)
        dropped = [shed.ticket for shed in answer.dropped if isinstance(shed.ticket, Job)]
        if isinstance(answer, Cut):
            return [each for each in answer.batch if isinstance(each, Job)], dropped, None
        return (), dropped, answer.until if isinstance(answer, Hold) else None

    def done(self, now: float, batch: Sequence[Job], seconds: float) -> None:
        """Tell the law."""
        self.law.done(now, tuple(batch), seconds)


@dataclass(frozen=True, slots=True)
class NoKnobs:
    """There is nothing to tune."""


@dataclass(frozen=True, slots=True)
class GreedyKnobs:
    """The one option of late binding."""

    max_batch: int


class Greedy:
    """Late binding and nothing else: what waits when the engine is free, up to the maximum."""

    def __init__(self, knobs: GreedyKnobs) -> None:
        self._max_batch = knobs.max_batch
        self._queue: deque[Job] = deque()

    def offer(self, now: float, job: Job) -> bool:
        """Take everything."""
        self._queue.append(job)
        return True

    def cut(self, now: float) -> Answer:
        """Take the oldest, at once."""
        size = min(self._max_batch, len(self._queue))
        return [self._queue.popleft() for _ in range(size)], (), None

    def done(self, now: float, batch: Sequence[Job], seconds: float) -> None:
        """Learn nothing."""


@dataclass(frozen=True, slots=True)
class TritonKnobs:
    """Options of Triton's dynamic batcher."""

    max_batch: int
    preferred: tuple[int, ...] = ()
    """``preferred_batch_size``, growing."""
    delay: float = 0.0
    """``max_queue_delay_microseconds``, in seconds."""
    timeout: float | None = None
    """The time a request may wait, with the action REJECT, as a share of its own deadline: what a
    client may set under ``allow_timeout_override``."""
    levels: bool = False
    """``priority_levels``: requests with shorter deadlines go first."""


class Triton:
    """Triton's dynamic batcher, after ``dynamic_batch_scheduler.cc``.

    Binds when the engine is free. The largest preferred size that waits goes at once; otherwise
    what waits goes when the oldest has waited for the delay, or when the batch is full.
    """

    def __init__(self, knobs: TritonKnobs) -> None:
        self._knobs = knobs
        self._queues: dict[float, deque[Job]] = {}

    def offer(self, now: float, job: Job) -> bool:
        """Take everything; what waits too long is rejected later."""
        level = job.deadline - job.arrived if self._knobs.levels else 0.0
        if level not in self._queues:
            self._queues[level] = deque()
            self._queues = dict(sorted(self._queues.items()))
        self._queues[level].append(job)
        return True

    def cut(self, now: float) -> Answer:
        """Reject, then bind or wait."""
        dropped = self._expire(now)
        knobs, waiting = self._knobs, sum(map(len, self._queues.values()))
        if not waiting:
            return (), dropped, None
        oldest = min(queue[0].arrived for queue in self._queues.values() if queue)
        ready = [size for size in knobs.preferred if size <= waiting]
        if waiting >= knobs.max_batch or now >= oldest + knobs.delay:
            size = min(waiting, knobs.max_batch)
        elif ready:
            size = ready[-1]
        else:
            return (), dropped, oldest + knobs.delay
        return self._take(size), dropped, None

    def done(self, now: float, batch: Sequence[Job], seconds: float) -> None:
        """Learn nothing."""

    def _take(self, size: int) -> list[Job]:
        every = itertools.chain.from_iterable(self._queues.values())
        batch = list(itertools.islice(every, size))
        left = size
        for queue in self._queues.values():
            for _ in range(min(left, len(queue))):
                queue.popleft()
                left -= 1
        return batch

    def _expire(self, now: float) -> list[Job]:
        share = self._knobs.timeout
        if share is None:
            return []
        dropped: list[Job] = []
        for level, queue in self._queues.items():
            late = [
                job for job in queue if now - job.arrived > share * (job.deadline - job.arrived)
            ]
            if late:
                gone = set(map(id, late))
                self._queues[level] = deque(job for job in queue if id(job) not in gone)
                dropped += late
        return dropped


@dataclass(frozen=True, slots=True)
class ClipperKnobs:
    """Options of Clipper's batching."""

    target: float
    """Time that a batch may take, as a share of the SLO."""
    step: int = 2
    """Added to the maximum after a full batch within the target."""
    back_off: float = 0.9
    """The maximum is multiplied by this after a batch beyond it; the paper's 10 %."""
    delay: float = 0.0
    """Time that the oldest waits for a full batch, seconds: the paper's delayed batching."""


class Clipper:
    """Clipper's AIMD (Crankshaw et al., NSDI 2017, 4.3), with its queue by deadline.

    As in its ``task_executor.hpp``, what is past its deadline is dropped when a batch is formed.
    """

    def __init__(self, knobs: ClipperKnobs, slo_s: float, max_batch: int) -> None:
        self._knobs = knobs
        self._target = knobs.target * slo_s
        self._limit = max_batch
        self._max_batch = 1.0
        self._queue: list[tuple[float, int, Job]] = []
        self._order = itertools.count()

    def offer(self, now: float, job: Job) -> bool:
        """Take everything."""
        heapq.heappush(self._queue, (job.deadline, next(self._order), job))
        return True

    def cut(self, now: float) -> Answer:
        """Drop what is late, then the earliest deadlines, up to the maximum of now."""
        dropped: list[Job] = []
        while self._queue and self._queue[0][0] <= now:
            dropped.append(heapq.heappop(self._queue)[2])
        if not self._queue:
            return (), dropped, None
        most = int(self._max_batch)
        due = self._queue[0][2].arrived + self._knobs.delay
        if len(self._queue) < most and now < due:
            return (), dropped, due
        size = min(most, len(self._queue))
        return [heapq.heappop(self._queue)[2] for _ in range(size)], dropped, None

    def done(self, now: float, batch: Sequence[Job], seconds: float) -> None:
        """Grow by addition, shrink by multiplication."""
        if seconds > self._target:
            self._max_batch = max(1.0, self._max_batch * self._knobs.back_off)
        elif len(batch) >= int(self._max_batch):
            self._max_batch = min(self._limit, self._max_batch + self._knobs.step)
