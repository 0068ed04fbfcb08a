"""The engine without a server, in a process of its own: what serving is compared with.

    python bench/_bare.py ARTIFACT BODY SECONDS SIZE [SIZE ...]

Prints JSON: the rate of each batch size in a loop over the engine alone, the median time of a
batch of one, and the rate of a loop over pre-processing, engine and post-processing.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import runtime
from runtime.predictor import Predictor

__all__ = ["loop", "value_of"]

LEAST = 3


def loop(work: Callable[[], object], seconds: float) -> list[float]:
    """Times of one call each, for so long; the first call does not count."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < LEAST:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def value_of(predictor: Predictor, body: bytes) -> Any:  # noqa: ANN401 - what preprocess takes
    """The item that a body holds: an image file, or a JSON list of numbers."""
    if predictor.manifest.takes == "image":
        return body
    return np.asarray(json.loads(body), np.float32)


def main() -> None:
    """Run every loop and print the rates."""
    artifact, body, seconds, *sizes = sys.argv[1:]
    with runtime.load(artifact) as predictor:
        value = value_of(predictor, Path(body).read_bytes())
        item = predictor.preprocess(value)
        found: dict[str, Any] = {"engine": {}, "pipeline": {}}
        for size in map(int, sizes):
            items, values = [item] * size, [value] * size
            times = loop(lambda items=items: predictor.run(items), float(seconds))
            found["engine"][size] = size * len(times) / sum(times)
            if size == 1:
                found["p50_ms"] = 1000 * statistics.median(times)
            times = loop(lambda values=values: predictor.predict(values), float(seconds))
            found["pipeline"][size] = size * len(times) / sum(times)
        found["answer"] = json.dumps(runtime_answer(predictor, value))
    print(json.dumps(found))


def runtime_answer(predictor: Predictor, value: Any) -> Any:  # noqa: ANN401 - JSON
    """The right answer, as JSON."""
    from runtime.answers import to_json

    return to_json(predictor.predict([value])[0])


if __name__ == "__main__":
    main()
