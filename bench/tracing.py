"""What observing costs a request: no tracing, tracing that samples nothing, and all of it.

One model in this process, one request after the other, an engine that takes no time: the figures
are the differences between lines, which a real engine's time would hide. The three take turns in
rounds, and the median of the rounds counts.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

import runtime
from serve.messages import Call
from serve.model import Model, Options
from serve.stats import Observer
from serve.tracing import Tracing

ROUNDS = 15
REQUESTS = 200
ITEM = Call(b"[1.0, 2.0]")


def _tracing(model: Model, sampler: Sampler) -> Tracing:
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    return Tracing(provider.get_tracer("bench"), model.variant_in_use())


async def _seconds(model: Model) -> float:
    """Of one request, in the mean of a round."""
    began = time.perf_counter()
    for _ in range(REQUESTS):
        reply = await model.answer(ITEM)
        if b"answer" not in reply.body:
            sys.exit(reply.body.decode())
    return (time.perf_counter() - began) / REQUESTS


async def _measure(artifact: Path) -> dict[str, list[float]]:
    model = Model(runtime.load(artifact), Options("bench"), artifact)
    await model.warm_up()
    ways: dict[str, Tracing | None] = {
        "off": None,
        "on, nothing sampled": _tracing(model, ALWAYS_OFF),
        "on, all sampled": _tracing(model, ALWAYS_ON),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, tracing in ways.items():
            model.observe(Observer(), tracing)
            found[name].append(await _seconds(model))
    await model.close()
    return found


def main() -> None:
    """Print the table; the argument is an artifact that takes [1.0, 2.0]: linear_regression."""
    match sys.argv[1:]:
        case [artifact]:
            found = asyncio.run(_measure(Path(artifact)))
        case _:
            sys.exit("usage: python bench/tracing.py build/linear_regression")
    base = statistics.median(found["off"])
    print("| tracing | a request, us | more than off, us |\n|---|---:|---:|")
    for name, seconds in found.items():
        median = statistics.median(seconds)
        print(f"| {name} | {1e6 * median:.0f} | {1e6 * (median - base):.0f} |")


if __name__ == "__main__":
    main()
