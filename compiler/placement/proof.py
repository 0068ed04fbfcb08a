"""Golden pictures of a fused graph, and the time from a request's item to its answer."""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from typing import Any

import numpy as np

from compiler.placement.fusing import IMAGE, SIDES, Fusion
from compiler.placement.golden_images import photo
from runtime.golden import Case, Golden, batch_of
from runtime.predictor import Predictor
from runtime.processing import Processing
from specs.errors import InputError
from specs.schema import Limits

__all__ = ["golden_of", "picture_cases", "taken", "time_items"]

PICTURE = (375, 500)
"""Height and width of pictures whose outputs become golden tensors of the variant, beside those of
the size that the graph is to be fast at."""
MOST = 16
"""Largest batch of pictures that is tried: each is three quarters of a megabyte before decoding."""
ROUNDS = 7


def picture_cases(fusion: Fusion, processing: Processing) -> list[Case]:
    """Pictures of the size that the graph is to be fast at, and of another one."""
    batch = fusion.spec.batch
    sizes = {batch.min, min(batch.opt, MOST), max(batch.min, min(batch.max, MOST))}
    axes = fusion.axes
    opt = tuple(axes[name].opt for name in SIDES.values() if name in axes)
    sides = [opt, PICTURE] if opt else [fusion.image.shape[:2]]
    within = dict.fromkeys(_within(int(h), int(w), fusion.spec.limits) for h, w in sides)
    return [_pictures(processing, h, w, tuple(sorted(sizes))) for h, w in within]


def _within(height: int, width: int, limits: Limits) -> tuple[int, int]:
    """The size, made smaller where a request's image may not be so large."""
    factor = min(1.0, limits.side / max(height, width), (limits.pixels / (height * width)) ** 0.5)
    return max(1, int(height * factor)), max(1, int(width * factor))


def _pictures(processing: Processing, height: int, width: int, sizes: tuple[int, ...]) -> Case:
    items = [processing.preprocess(photo(height, width, seed)) for seed in (1, 2, 3)]
    images = np.stack([item[IMAGE] for item in items])
    return Case(f"pictures {width}x{height}", {IMAGE: images}, sizes)


def golden_of(predictor: Predictor, case: Case) -> Golden:
    """The case with the outputs of its items, each computed at the smallest batch."""
    size = case.batches[0]
    count = len(next(iter(case.inputs.values())))
    parts = [predictor.predict_batch(batch_of(case.inputs, size, start)) for start in range(count)]
    outputs = {name: np.concatenate([part[name][:1] for part in parts]) for name in parts[0]}
    return Golden(case, outputs)


def taken(predictor: Predictor, items: list[Any]) -> list[Any]:
    """The items that pre-processing does not refuse."""
    found: list[Any] = []
    for item in items:
        with suppress(InputError):
            predictor.preprocess(item)
            found.append(item)
    return found


def time_items(predictor: Predictor, items: list[Any]) -> float:
    """Median milliseconds from a request's item to its answer, by items of a batch."""
    count = max(1, min(predictor.manifest.batch.opt, MOST))
    batch = (items * count)[:count]
    predictor.predict(batch)
    times: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        predictor.predict(batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3 / count
