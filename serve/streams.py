"""One engine, two ways to use a CPU's cores: all of them on one batch, or its parts side by side.

On all cores at once a batch is done soonest on an idle machine, but each operator waits for the
thread that other work held up last. Side by side, a part is computed by threads of its own, and
what holds one up holds up no other: `bench/side_by_side.py` says what that is worth.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Protocol

from runtime.tensors import Tensors, chunks, joined
from specs.errors import EngineError

__all__ = ["HELD_UP", "Running", "Streams"]

MOST_STREAMS = 4
"""More parts would be too small, and the cores are shared out to so many."""
HELD_UP = 0.85
"""Beside busy cores, what runs on all of them at once keeps about so much of its rate next to what
runs side by side. Sizes are compared by rates that were measured on idle cores."""
CLOSE = 1 / HELD_UP
"""Side by side may take so much longer than at once, measured on idle cores: beside busy ones both
are as fast then."""
SURE = 3
"""Fewer timed runs than this say little: other work may stall each of them."""
UNSURE = 1.3
"""Where smaller batches run side by side, such a size may take so much longer."""


class Running(Protocol):
    """What is used of ``runtime.Predictor``."""

    def run(self, items: Sequence[Tensors]) -> Sequence[Tensors]: ...
    def beside(self, threads: int) -> Running | None: ...
    def close(self) -> None: ...


class Streams:
    """Runs batches one way or the other. Called from one thread.

    Args:
        predictor: on all threads.
        least: the smallest batch that the graph takes without padding.
        cores: of this machine, as far as this process may use them.
    """

    def __init__(self, predictor: Running, least: int, cores: int) -> None:
        self._whole = predictor
        self.count = min(cores, MOST_STREAMS)
        self.threads = cores // self.count
        alone = least > 1 or self.count < 2  # noqa: PLR2004 - two streams at least
        self.warning = ""
        """Why nothing can run side by side, where it should."""
        self._narrow = None if alone else self._second()
        self._pool = ThreadPoolExecutor(self.count, "stream") if self._narrow else None
        self._sizes: list[int] = []
        self._side: dict[int, bool] = {}

    def _second(self) -> Running | None:
        try:
            return self._whole.beside(self.threads)
        except EngineError as error:  # all cores at once are slower, and right
            self.warning = f"nothing runs side by side: {error.message}"
            return None

    @property
    def can(self) -> bool:
        """Whether parts can run side by side here."""
        return self._narrow is not None

    def use(self, size: int, *, side: bool) -> None:
        """Run batches of this size, and of those below it down to the next, side by side or not."""
        self._side[size] = side
        self._sizes = sorted(self._side)

    def side(self, size: int) -> bool:
        """Whether a batch of this size runs side by side."""
        if size < 2 or not self._sizes:  # noqa: PLR2004 - one item has no parts
            return False
        place = min(bisect_left(self._sizes, size), len(self._sizes) - 1)
        return self._side[self._sizes[place]]

    def worth(self, size: int) -> float:
        """What a size's rate on idle cores counts, next to those of others."""
        return 1.0 if self.side(size) or self.step == 1 else HELD_UP

    @property
    def step(self) -> int:
        """Parts that run at the same time, where any do; else 1."""
        return self.count if any(self._side.values()) else 1

    def choose(self, size: int, side_s: Sequence[float], whole_s: Sequence[float]) -> bool:
        """Run batches of this size the better way from now on; whether that is side by side.

        Sizes come from the smallest on.

        Args:
            size: of the batch.
            side_s: what runs of it took side by side, seconds.
            whole_s: and on all cores at once.
        """
        few = min(len(side_s), len(whole_s)) < SURE
        smaller = [self._side[each] for each in self._sizes if each < size]
        allowed = UNSURE if few and smaller and smaller[-1] else CLOSE
        # The shortest: other work on the machine only adds.
        self.use(size, side=min(side_s) <= allowed * min(whole_s))
        return self._side[size]

    def run(self, items: Sequence[Tensors], most: int) -> Sequence[Tensors]:
        """The outputs of each.

        Args:
            items: any number.
            most: the largest batch.
        """
        if self._pool is None or not self.side(len(items)):
            return _in_batches(self._whole, items, most)
        parts = [items[part] for part in _shares(len(items), self.count)]
        narrow = self._narrow or self._whole
        running = [self._pool.submit(_in_batches, narrow, part, most) for part in parts]
        wait(running)  # all of them, also where one fails: the engine is free afterwards
        return joined([each.result() for each in running])

    def to_json(self) -> dict[str, object] | None:
        """For ``GET /models``: None where nothing runs side by side."""
        sizes = [size for size in self._sizes if self._side[size]]
        if not sizes:
            return None
        return {"streams": self.count, "threads": self.threads, "batches": sizes}

    def close(self) -> None:
        """Give the engine's memory back."""
        if self._pool:
            self._pool.shutdown(wait=False)
        if self._narrow:
            self._narrow.close()
        self._whole.close()


def _in_batches(predictor: Running, items: Sequence[Tensors], most: int) -> Sequence[Tensors]:
    if len(items) <= most:
        return predictor.run(items)
    return joined([predictor.run(items[part]) for part in chunks(len(items), most)])


def _shares(count: int, parts: int) -> Iterator[slice]:
    """Slices of about equal length, none of them empty."""
    ends = [count * number // parts for number in range(parts + 1)]
    for start, end in pairwise(ends):
        if end > start:
            yield slice(start, end)
