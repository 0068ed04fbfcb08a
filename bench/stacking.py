"""What stacking a batch costs beside the engine, and what it costs where items lie side by side.

    python bench/stacking.py build/digits [ARTIFACT ...]

For every artifact and batch size: the median time to stack the items of a batch into fresh memory,
into memory that is used again, and where they lie side by side already, as serving prepares them
(``runtime.staging``); and of the engine alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import runtime
from runtime.golden import GOLDEN, Golden, batch_of, read_golden
from runtime.predictor import Predictor
from runtime.tensors import Tensors, stack, unstack

REPEATS = 15
SECONDS = 2.0


def main(folders: list[str]) -> None:
    """Print the table."""
    head = "stacked, ms | into used memory, ms | side by side, ms | engine, ms | share of stacking"
    print(f"| artifact | batch | {head} |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for folder in folders:
        golden = next(read_golden(Path(folder) / GOLDEN))
        with runtime.load(folder) as predictor:
            batch = predictor.manifest.batch
            for size in sorted({batch.min, batch.opt, batch.max}):
                print(_row(predictor, golden, size))


def _row(predictor: Predictor, golden: Golden, size: int) -> str:
    whole = batch_of(golden.case.inputs, size, 0)
    items = [{name: array.copy() for name, array in item.items()} for item in unstack(whole)]
    used = {name: np.empty_like(array) for name, array in whole.items()}
    fresh = _ms(lambda: stack(items))
    again = _ms(lambda: _stack_into(items, used))
    rows = unstack(whole)
    beside = _ms(lambda: stack(rows))
    engine = _ms(lambda: predictor.predict_batch(whole))
    times = f"{fresh:.3f} | {again:.3f} | {beside:.3f} | {engine:.3f} | {fresh / engine:.1%}"
    return f"| {predictor.manifest.name} | {size} | {times} |"


def _stack_into(items: list[Tensors], used: Tensors) -> None:
    for name, array in used.items():
        np.stack([item[name] for item in items], out=array)


def _ms(work: Callable[[], object]) -> float:
    """Median milliseconds, after one run that does not count."""
    work()
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < SECONDS:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main(sys.argv[1:])
