"""Pre-processing on one core: generated Python, fused graph, torchvision, OpenCV, Pillow.

Run ``python bench/processing.py``; ``--json`` prints the results in place of the table, ``--write``
puts the table into ``bench/processing.md``. The process keeps to one core. In every round each
pipeline works for a moment on the same image, in an order that changes; ratios are taken within
stretches of rounds, so that what slows the machine down slows both sides.
Images are drawn from a seed; with DEPLOYC_TEST_DATA set, a photograph is added, and what scaled
decoding does to the answers of a real classifier is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_suffix(".md")
DATA = "DEPLOYC_TEST_DATA"
BASE = "torchvision v2"
"""What every rate is compared with."""
FLOOR = "floor: decoding at 1/8"
ROUNDS = 15
PARTS = 5
SECONDS = 10.0
"""How long an image is measured, or ROUNDS rounds if they take longer."""
MOMENT = 0.004
"""How long a pipeline works in a round: short, so that disturbances meet all of them alike."""
SEED = 0
ABOUT = """\
# Pre-processing on one core

Written by `python bench/processing.py --write`; nothing here is typed by hand. The bytes of a JPEG
(baseline, 4:2:0, quality 90) become what ImageNet's classifiers take: shorter side 256, bilinear
with antialias; the middle 224x224; normalized float32 [3, 224, 224].

- **images/s** are of one core, in CPU time. In {rounds} rounds or more every pipeline works for a
  moment; the rounds make {parts} stretches, and of a stretch the lower quartile of times counts,
  since other work on a machine only ever makes them longer. **Times torchvision's** is the ratio
  of rates within a stretch: median, and lowest to highest.
- **The floor** is decoding at an eighth of the size: every coefficient is entropy-decoded, which no
  decoder can avoid, and one pixel is made of each 8x8 block. It bounds bare entropy decoding from
  above. **Times the floor** is the pipeline's time over it: 1 cannot be reached with pixels.
- **Off by** is the difference from the reference (torchvision's transforms on a PIL image) in grey
  levels of 255: worst and mean. Up to 1 is inside the gate; OpenCV's filters are other filters.
- **Scaled** is `decode_image: {{scaled: true}}`: the decoder itself halves large images while at
  least twice the wanted size is left. Not pixel-exact, and therefore an option.
- **Numpy and Pillow alone** is the same generated file where the fast libraries are not installed.

Machine: {machine}, one core of it.
Versions: {versions}.
"""


@dataclass(frozen=True)
class Row:
    """One pipeline on one image.

    Args:
        name: the pipeline.
        rate: images per second of one core, median over the stretches; 0 where it did not run.
        ratio: how many times as fast as torchvision: median, lowest and highest.
        above: its time over the time of bare decoding at an eighth, median.
        worst, mean: difference from the reference in grey levels of 255.
        fault: why it did not run.
    """

    name: str
    rate: float = 0.0
    ratio: tuple[float, float, float] = (0.0, 0.0, 0.0)
    above: float = 0.0
    worst: float = 0.0
    mean: float = 0.0
    fault: str = ""


def timed(run: Callable[[bytes], object], data: bytes) -> float:
    """CPU seconds for one image, over at least one call and MOMENT seconds."""
    calls, start = 0, time.process_time()
    while True:
        run(data)
        calls += 1
        spent = time.process_time() - start
        if spent >= MOMENT:
            return spent / calls


def rounds(
    pipelines: Mapping[str, Callable[[bytes], object]],
    data: bytes,
    least: int = ROUNDS,
    seconds: float = SECONDS,
) -> dict[str, list[float]]:
    """CPU seconds for one image by pipeline, for each round: ``least``, and more until ``seconds``.

    One call of each goes before, uncounted; the order is drawn again in every round.
    """
    order, draw = list(pipelines), random.Random(SEED)  # noqa: S311 - an order
    times: dict[str, list[float]] = {name: [] for name in order}
    for name in order:
        pipelines[name](data)
    end = time.process_time() + seconds
    while len(times[order[0]]) < least or time.process_time() < end:
        draw.shuffle(order)
        for name in order:
            times[name].append(timed(pipelines[name], data))
    return times


def quick(times: list[float]) -> list[float]:
    """The lower quartile of each of PARTS stretches of rounds.

    Other work on the machine makes many a sample take twice as long, never shorter.
    """
    size = -(-len(times) // PARTS)
    stretches = [times[start : start + size] for start in range(0, len(times), size)]
    return [sorted(each)[(len(each) - 1) // 4] for each in stretches]


def compared(times: list[float], base: list[float]) -> tuple[float, float, float]:
    """How many times as fast as ``base``: median, lowest and highest over the stretches."""
    ratios = [theirs / ours for ours, theirs in zip(quick(times), quick(base), strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def measure(pipelines: list[Any], data: bytes) -> list[Row]:
    """Every pipeline (``processing_pipelines.Pipeline``) on one image; the floor comes last."""
    from processing_pipelines import floor, levels, reference

    bare = floor(data)
    runs = {each.name: each.run for each in pipelines if each.run}
    times = rounds({**runs, FLOOR: lambda _: bare()}, data)
    wanted = reference(data)
    rows: list[Row] = []
    for each in pipelines:
        if each.run is None:
            rows.append(Row(each.name, fault=each.fault))
            continue
        worst, mean = levels(each.run(data), wanted)
        rows.append(_row(each.name, times, worst, mean))
    return [*rows, _row(FLOOR, times)]


def _row(name: str, times: Mapping[str, list[float]], worst: float = 0.0, mean: float = 0.0) -> Row:
    mine = times[name]
    above = 1 / compared(mine, times[FLOOR])[0]
    rate = 1 / statistics.median(quick(mine))
    return Row(name, rate, compared(mine, times[BASE]), above, worst, mean)


def table(image: str, size: int, rows: list[Row]) -> list[str]:
    """Markdown: a heading for the image, and a line for each pipeline."""
    lines = [f"## {image}, {size:,} bytes", ""]
    lines.append(
        "| pipeline | images/s | times torchvision's | times the floor | off by: worst, mean |"
    )
    lines.append("|---|---:|---:|---:|---:|")
    for row in rows:
        if not row.rate:
            lines.append(f"| {row.name} | not run: {row.fault} | | | |")
            continue
        middle, low, high = row.ratio
        off = "" if row.name == FLOOR else f"{row.worst:.1f}, {row.mean:.3f}"
        speed = f"**{middle:.2f}** ({low:.2f} to {high:.2f})"
        lines.append(f"| {row.name} | {row.rate:,.0f} | {speed} | {row.above:.2f} | {off} |")
    return [*lines, ""]


def one_core() -> None:
    """Keep this process, and the libraries that it will load, to one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def images(data: Path | None) -> dict[str, bytes]:
    """What is measured: drawn pictures, and a photograph where there is one."""
    from processing_pipelines import synthetic

    photographs = {"1280x720, a photograph": data / "images" / "cat_720p.jpg"} if data else {}
    return {
        **{f"{name}, drawn": file for name, file in synthetic(SEED).items()},
        **{name: file.read_bytes() for name, file in photographs.items()},
    }


def report(data: Path | None, folder: Path) -> dict[str, Any]:
    """Everything measured, as JSON values."""
    from processing_drift import drift
    from processing_pipelines import SCALED, Built, by_hand, versions

    from runtime.machine import machine

    built = Built(folder)
    pipelines = [*by_hand(), *built.pipelines()]
    measured = {
        name: {"bytes": len(file), "rows": [asdict(row) for row in measure(pipelines, file)]}
        for name, file in images(data).items()
    }
    scaled = next(each.run for each in pipelines if each.name == SCALED)
    drifted = asdict(drift(data, scaled)) if data and scaled else None
    built.close()
    about = {"machine": str(machine()), "versions": versions()}
    return {**about, "images": measured, "drift": drifted}


def page(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    from processing_drift import Drift

    lines = [
        ABOUT.format(
            rounds=ROUNDS, parts=PARTS, machine=found["machine"], versions=found["versions"]
        )
    ]
    for name, image in found["images"].items():
        lines += table(name, image["bytes"], [Row(**row) for row in image["rows"]])
    if found["drift"]:
        lines += Drift(**found["drift"]).lines()
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--write", action="store_true", help="write bench/processing.md")
    given = parser.parse_args()
    one_core()
    where = os.environ.get(DATA)
    with tempfile.TemporaryDirectory() as folder:
        found = report(Path(where) if where else None, Path(folder))
    if given.write:
        TABLE.write_text(page(found), "utf-8")
    print(json.dumps(found, indent=2) if given.json else page(found))


if __name__ == "__main__":
    main()
