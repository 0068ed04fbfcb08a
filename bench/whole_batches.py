"""Whether numeric steps of pre-processing pay on a whole batch: at once, or item by item.

Run ``python bench/whole_batches.py``; ``--write`` puts the table into ``bench/whole_batches.md``.
All ways begin with the same uint8 pictures and end with the same float32 batch: item by item each
picture is normalized with its channels first, and the results are stacked (what is done today); at
once the pictures are stacked and the very same function runs on the stack. A third way tells memory
from the rest: item by item, but each result is put into the batch before the next is made. Timing
is that of ``bench/processing.py``: one core, CPU time, all in every round, ratios within stretches.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processing import PARTS, compared, one_core, quick, rounds

TABLE = Path(__file__).with_suffix(".md")
SIDES = (8, 32, 64, 224)
BATCHES = (1, 8, 32, 64)
SECONDS = 2.0
"""How long a size and batch is measured, in CPU time."""
ITEMS, PLACED, WHOLE = "item by item", "item by item, put into place", "at once"
SEED = 0
ABOUT = """\
# Numeric steps on a whole batch

Written by `python bench/whole_batches.py --write`; nothing here is typed by hand. `normalize` and
`layout: CHW`, which generated Python joins, on RGB pictures of uint8, up to the stacked float32
batch. Item by item, all results live until they are stacked; **put into place**, each is copied
into the batch before the next is made, so that its memory is used again. **Times as fast** is the
time item by item over the other's, within one of {parts} stretches of rounds: median, and lowest
to highest. Times are of one core, in CPU time.

Decoding and resizing come before and are not counted: items differ there. Item by item, the work is
done in threads while a batch still waits for the engine; at once, it could begin only when the
members of the batch are known, so that all of its time would be added to the answer's.

Machine: {machine}, one core of it. numpy {numpy}.

| picture | batch | item by item, us each | put into place, times as fast | at once, times as fast |
|---|---:|---:|---:|---:|
"""


@dataclass(frozen=True)
class Row:
    """One size and batch.

    Args:
        side: height and width of the pictures.
        batch: how many.
        items: seconds for one picture, item by item, median over the stretches.
        placed, whole: how many times as fast the other ways are: median, lowest, highest.
    """

    side: int
    batch: int
    items: float
    placed: tuple[float, float, float]
    whole: tuple[float, float, float]

    def line(self) -> str:
        """A line of the table."""
        ratios = [f"**{m:.2f}** ({low:.2f} to {high:.2f})" for m, low, high in self._ratios]
        head = f"| {self.side}x{self.side} | {self.batch} | {self.items * 1e6:,.1f} | "
        return f"{head}{' | '.join(ratios)} |"

    @property
    def _ratios(self) -> tuple[tuple[float, float, float], ...]:
        return self.placed, self.whole


def ways(side: int, batch: int) -> dict[str, Callable[[bytes], Any]]:
    """All ways on the same drawn pictures; the argument stands for a body and is not looked at."""
    import numpy as np

    from specs.ops.normalize import normalize_planes

    rng = np.random.default_rng(SEED)
    pictures = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(batch)]
    mean, std = (
        np.array(numbers, np.float32).reshape(3, 1, 1)
        for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def placed(_: bytes) -> Any:  # noqa: ANN401 - an array
        found = np.empty((batch, 3, side, side), np.float32)
        for number, each in enumerate(pictures):
            found[number] = normalize_planes(each, 255.0, mean, std)
        return found

    return {
        ITEMS: lambda _: np.stack([normalize_planes(each, 255.0, mean, std) for each in pictures]),
        PLACED: placed,
        WHOLE: lambda _: normalize_planes(np.stack(pictures), 255.0, mean, std),
    }


def measure(side: int, batch: int, seconds: float = SECONDS) -> Row:
    """One line of the table."""
    times = rounds(ways(side, batch), b"", seconds=seconds)
    items = times[ITEMS]
    placed, whole = (compared(times[name], items) for name in (PLACED, WHOLE))
    return Row(side, batch, statistics.median(quick(items)) / batch, placed, whole)


def page() -> str:
    """The results as Markdown."""
    import numpy as np

    from runtime.machine import machine

    about = ABOUT.format(parts=PARTS, machine=machine(), numpy=np.__version__)
    lines = [measure(side, batch).line() for side in SIDES for batch in BATCHES]
    return about + "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write bench/whole_batches.md")
    given = parser.parse_args()
    one_core()
    text = page()
    if given.write:
        TABLE.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
