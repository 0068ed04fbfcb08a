"""Why ONNX Runtime's idle threads do not spin here, and share work in small pieces.

    python bench/spinning.py ARTIFACT [ARTIFACT ...] [--write]

Each artifact's graph runs on the CPU in a loop, in three settings: threads that spin (ONNX
Runtime's default), threads that do not, and these with smaller pieces of work
(``session.dynamic_block_base``, deployc's default); first with the cores to itself, then beside
processes that compute for 2 ms and rest, as decoding and HTTP do. Rounds are interleaved; ratios
are to threads that spin, round by round, median and range.
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
from pathlib import Path
from typing import Any

import numpy as np

from runtime.artifact import read_manifest

OUT = Path(__file__).with_suffix(".md")
SETTINGS: dict[str, dict[str, str]] = {
    "spinning": {},
    "not spinning": {"session.intra_op.allow_spinning": "0"},
    "not spinning, small pieces": {
        "session.intra_op.allow_spinning": "0",
        "session.dynamic_block_base": "4",
    },
}
BESIDE = {"nothing": 0, "one process": 1, "two per core": 2 * (os.cpu_count() or 1)}
BUSY_S, REST_S = 0.002, 0.003
ROUNDS, SECONDS = 3, 0.7
CHILD = (
    "import time\nwhile True:\n e = time.perf_counter() + {busy}\n"
    " while time.perf_counter() < e: pass\n time.sleep({rest})"
)


def session(path: Path, entries: dict[str, str]) -> Any:  # noqa: ANN401 - ONNX Runtime's is untyped
    """A session on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def rate(opened: Any, inputs: dict[str, Any], seconds: float) -> float:  # noqa: ANN401 - as above
    """Runs per second; the first does not count."""
    opened.run(None, inputs)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        opened.run(None, inputs)
        count += 1
    return count / (time.perf_counter() - began)


def measured(folder: Path, beside: int) -> dict[str, list[float]]:
    """Rates by setting, a round each, beside so many processes."""
    manifest = read_manifest(folder)
    variant = manifest.variants[0]
    tensors = (variant.inputs or manifest.inputs).items()
    inputs = {n: np.zeros([1, *map(int, t.shape[1:])], t.dtype) for n, t in tensors}
    sessions = {name: session(folder / variant.file, each) for name, each in SETTINGS.items()}
    command = [sys.executable, "-c", CHILD.format(busy=BUSY_S, rest=REST_S)]
    others = [subprocess.Popen(command) for _ in range(beside)]
    try:
        rounds = [
            {name: rate(each, inputs, SECONDS) for name, each in sessions.items()}
            for _ in range(ROUNDS)
        ]
    finally:
        for other in others:
            other.kill()
            other.wait()
    return {name: [each[name] for each in rounds] for name in SETTINGS}


def row(name: str, beside: str, found: dict[str, list[float]]) -> str:
    """One line of the table."""
    base, *others = found.values()
    cells = [f"{statistics.median(base):.1f}/s"]
    for rates in others:
        ratios = [a / b for a, b in zip(rates, base, strict=True)]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"| {name} | {beside} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print; with ``--write`` into bench/spinning.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    arguments = parser.parse_args()
    load = json.dumps([round(each, 1) for each in os.getloadavg()])
    lines = [
        "# Threads that spin",
        "",
        f"Written by `python bench/spinning.py`. Batches of one; {platform.machine()},",
        f"{os.cpu_count()} cores; load average before: {load}. Ratios to threads that spin: above",
        "1 is faster.",
        "",
        f"| artifact | beside | {' | '.join(SETTINGS)} |",
        f"|---|---|{'---:|' * len(SETTINGS)}",
    ]
    for folder in arguments.artifacts:
        for beside, count in BESIDE.items():
            found = measured(folder, count)
            lines.append(row(read_manifest(folder).name, beside, found))
    print("\n".join(lines))
    if arguments.write:
        OUT.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
