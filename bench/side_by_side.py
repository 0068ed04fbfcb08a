"""All cores on one batch, or its parts side by side: what busy cores do to either.

    python bench/side_by_side.py ARTIFACT [ARTIFACT ...] [--write]

Each artifact's engine computes ``ITEMS`` items on the CPU: in batches on all threads, and in parts
on sessions of fewer threads, as ``serve.streams`` runs them; first with the cores to itself, then
beside processes that compute for 0.7 ms (of CPU time) and rest for 6, about what HTTP, decoding and
a load need here. The engine's process has the low priority that Ray gives replicas. Rounds are
interleaved; ratios are to single items on all threads, round by round, median and range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import runtime
from runtime.artifact import read_manifest
from runtime.machine import threads_here
from runtime.predictor import Predictor
from runtime.tensors import Rows, chunks
from serve.streams import Streams

OUT = Path(__file__).with_suffix(".md")
ITEMS = 8
SIZES = (1, 2, 4, 8)
BESIDE = {"nothing": 0, "a process per core": threads_here()}
BUSY_S, REST_S = 0.0007, 0.006
NICE = 15
"""``RAY_worker_niceness``."""
ROUNDS = 9
CHILD = (
    "import time\nwhile True:\n e = time.process_time() + {busy}\n"
    " while time.process_time() < e: pass\n time.sleep({rest})"
)
Work = Callable[[], object]


def cases(predictor: Predictor) -> dict[str, Work]:
    """Every way to compute the items, by name."""
    streams = Streams(predictor, predictor.manifest.batch.min, threads_here())
    if not streams.can:
        raise SystemExit(f"{predictor.manifest.name}: nothing runs side by side here")
    shapes = predictor.inputs.items()
    block = {n: np.zeros([ITEMS, *map(int, t.shape[1:])], t.dtype) for n, t in shapes}
    items = Rows(block)
    most = min(ITEMS, predictor.max_batch)
    found: dict[str, Work] = {}
    for size in (each for each in SIZES if each <= most):
        found[f"all threads, {size}"] = lambda size=size: [
            predictor.run(items[part]) for part in chunks(ITEMS, size)
        ]
    for size in (each for each in SIZES if streams.count <= each <= most):
        streams.use(size, side=True)
        found[f"side by side, {size}"] = lambda size=size: [
            streams.run(items[part], size) for part in chunks(ITEMS, size)
        ]
    return found


def measured(works: dict[str, Work]) -> dict[str, list[float]]:
    """Items per second of each, a round each."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            found[name].append(ITEMS / (time.perf_counter() - began))
    return found


def in_child(folder: Path, beside: int) -> dict[str, list[float]]:
    """``measured`` in a process of low priority, beside so many others."""
    command = [sys.executable, "-c", CHILD.format(busy=BUSY_S, rest=REST_S)]
    others = [subprocess.Popen(command) for _ in range(beside)]
    # All of its threads: a process that lowers itself keeps those that it has.
    engine = ["nice", "-n", str(NICE), sys.executable, __file__, "--rates", str(folder)]
    try:
        done = subprocess.run(engine, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return json.loads(done.stdout)


def rows(artifact: str, beside: str, found: dict[str, list[float]]) -> list[str]:
    """Lines of the table."""
    base = next(iter(found.values()))
    lines: list[str] = []
    for name, rates in found.items():
        ratios = [a / b for a, b in zip(rates, base, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rate = f"{statistics.median(rates):.1f}"
        lines.append(f"| {artifact} | {beside} | {name} | {rate} | {spread} |")
    return lines


def main() -> None:
    """Measure and print; with ``--write`` into bench/side_by_side.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    parser.add_argument("--rates", action="store_true", help="print the rates of one as JSON")
    arguments = parser.parse_args()
    if arguments.rates:
        with runtime.load(arguments.artifacts[0]) as predictor:
            print(json.dumps(measured(cases(predictor))))
        return
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    lines = [
        "# On all threads, or side by side",
        "",
        f"Written by `python bench/side_by_side.py`. {platform.machine()}, {threads_here()} cores;",
        f"load average before: {load}. {ITEMS} items, {ROUNDS} rounds; ratios to single items on",
        "all threads: above 1 is faster. The number is the size of a batch, with all of its parts.",
        "",
        "| artifact | beside | how | items/s, median | ratio |",
        "|---|---|---|---:|---:|",
    ]
    for folder in arguments.artifacts:
        for beside, count in BESIDE.items():
            lines += rows(read_manifest(folder).name, beside, in_child(folder, count))
    print("\n".join(lines))
    if arguments.write:
        OUT.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
