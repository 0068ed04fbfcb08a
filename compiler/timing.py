"""A quick measurement, to prefer one variant over another; ``deployc profile`` does it properly."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from runtime.golden import batch_of, read_golden
from runtime.predictor import Predictor
from runtime.tensors import Tensors

__all__ = ["time_batches"]

SECONDS = 0.3
"""How long one batch size is measured, at least."""
LEAST, MOST = 5, 100
"""Runs of one batch size."""
WARM = 2
"""Runs that do not count: the first ones allocate."""


def time_batches(predictor: Predictor, golden: Path, sizes: Sequence[int]) -> dict[str, float]:
    """Median milliseconds of one batch, by size, on the first golden case's items.

    Args:
        predictor: the variant.
        golden: folder of the golden tensors.
        sizes: batch sizes.
    """
    inputs = next(read_golden(golden)).case.inputs
    return {str(size): _median(predictor, batch_of(inputs, size, 0)) for size in sizes}


def _median(predictor: Predictor, batch: Tensors) -> float:
    for _ in range(WARM):
        predictor.predict_batch(batch)
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < SECONDS and len(times) < MOST):
        start = time.perf_counter()
        predictor.predict_batch(batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3
