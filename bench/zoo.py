"""The zoo: every model of torchvision, built through both exporters and proven, as one table.

Run ``python bench/zoo.py`` (hours on a small machine). Each case, a model and an exporter, is a
process of its own that writes a spec with live random weights and runs the build that `deployc
build` runs: export, contract, reference, and parity at batch 1, 2, 3 and 4. What ends is appended
to ``results.jsonl``, so that a run that was stopped goes on where it was; the table is written
from that file alone. ``--only REGEX`` takes cases whose ``model exporter`` matches, ``--again``
runs them once more, ``--report`` writes the table and nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from zoo_table import Result, read_results, write_table

ROOT = Path(__file__).parent.parent
HEAVY = ("torch.export", "torch.onnx._internal.exporter._core", "onnxscript", "compiler.build")
"""Imported once, before the processes part: they would each spend seconds on it."""
DYNAMO_COST = 4
"""How much longer the dynamo exporter takes: it decides the order alone."""
BASE_GB = 1.5
"""Resident memory of a case whatever the model."""
COPIES = 5
"""Copies of the weights that a case holds at its peak: model, graph, session and its packing."""
SPEC = "spec.json"
POLL_S = 0.5


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    folder: Path
    table: Path
    jobs: int
    memory_gb: float
    timeout_s: float
    only: str
    again: bool
    report: bool


@dataclass(frozen=True)
class Case:
    """A model and an exporter."""

    entry: Any
    exporter: str

    @property
    def name(self) -> str:
        """What ``--only`` is matched with."""
        return f"{self.entry.name} {self.exporter}"

    @property
    def cost(self) -> float:
        """What the cases are sorted by: cheap ones of every kind come first."""
        return self.entry.parameters * (DYNAMO_COST if self.exporter == "dynamo" else 1)

    @property
    def memory_gb(self) -> float:
        """An estimate of the process's peak."""
        return BASE_GB + COPIES * 4e-9 * self.entry.parameters


@dataclass
class Running:
    """A case's process, and the most memory that was seen of it."""

    case: Case
    process: BaseProcess
    folder: Path
    start: float = field(default_factory=time.monotonic)
    peak_gb: float = 0.0


def main() -> int:
    """Run what is not done yet, then write the table."""
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    results = options.folder / "results.jsonl"
    if not options.report:
        run_all(todo(options, results), options, results)
    write_table(read_results(results), options.table)
    print(f"wrote {options.table}")
    return 0


def parse() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "zoo", help="scratch")
    parser.add_argument("--table", type=Path, default=ROOT / "bench" / "zoo.md")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--memory-gb", type=float, default=10.0, help="of all cases together")
    parser.add_argument("--timeout-s", type=float, default=1800.0, help="of one case")
    parser.add_argument("--only", default="", help="cases whose 'model exporter' matches")
    parser.add_argument("--again", action="store_true", help="also cases that are done")
    parser.add_argument("--report", action="store_true", help="write the table only")
    return Options(**vars(parser.parse_args()))


def todo(options: Options, results: Path) -> list[Case]:
    """The cases to run, cheap ones first."""
    import torch

    torch.set_num_threads(1)  # before the processes part: a thread pool does not survive that
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in HEAVY:
        importlib.import_module(name)
    from zoo_models import EXPORTERS, entries

    done = set[str]() if options.again else {each.name for each in read_results(results)}
    cases = [Case(entry, exporter) for entry in entries() for exporter in EXPORTERS]
    wanted = [c for c in cases if re.search(options.only, c.name) and c.name not in done]
    return sorted(wanted, key=lambda case: case.cost)


def run_all(waiting: list[Case], options: Options, results: Path) -> None:
    """Keep ``jobs`` processes busy within the memory; append each result as it comes."""
    total, running = len(waiting), list[Running]()
    while waiting or running:
        while waiting and fits(waiting[0], running, options):
            running.append(start(waiting.pop(0), options))
        time.sleep(POLL_S)
        for each in list(running):
            result = watch(each, options)
            if result is not None:
                running.remove(each)
                drop_prepared(each.case, waiting + [other.case for other in running], options)
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
                number = total - len(waiting) - len(running)
                print(f"[{number}/{total}] {result.line}", flush=True)


def fits(case: Case, running: list[Running], options: Options) -> bool:
    """Whether a case may start: the first one always may, and is watched."""
    used = sum(each.case.memory_gb for each in running)
    room = used + case.memory_gb <= options.memory_gb
    return not running or (len(running) < options.jobs and room)


def start(case: Case, options: Options) -> Running:
    """Fork a process for a case in an empty folder."""
    folder = options.folder / case.name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=run_case, args=(case, folder, prepared(case, options)))
    process.start()
    return Running(case, process, folder)


def prepared(case: Case, options: Options) -> Path:
    """Where a case's spec, weights and images lie, for both exporters."""
    return options.folder / "prepared" / case.entry.name


def drop_prepared(case: Case, others: list[Case], options: Options) -> None:
    """Delete what is prepared for a case, unless others of the same model wait for it."""
    if case.entry.name not in {other.entry.name for other in others}:
        shutil.rmtree(prepared(case, options), ignore_errors=True)


def watch(running: Running, options: Options) -> Result | None:
    """The result of a case that has ended, or was ended for its memory or time."""
    seconds = time.monotonic() - running.start
    running.peak_gb = max(running.peak_gb, resident_gb(running.process.pid))
    ended = ""
    if running.peak_gb > options.memory_gb:
        ended = f"it took more than {options.memory_gb:g} GB of memory"
    elif seconds > options.timeout_s:
        ended = f"it took longer than {options.timeout_s:g} s"
    if running.process.is_alive() and not ended:
        return None
    running.process.kill()
    running.process.join()
    result = collect(running, ended, seconds)
    shutil.rmtree(running.folder, ignore_errors=True)
    return result


def resident_gb(pid: int | None) -> float:
    """Memory that a process holds now, in units of 10^9 bytes; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024e-9 if found else 0.0


def collect(running: Running, ended: str, seconds: float) -> Result:
    """What the process wrote, or why it wrote nothing."""
    case, file = running.case, running.folder / "result.json"
    if file.exists() and not ended:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    elif ended:
        found = {"code": "limit", "message": ended}
    else:
        message = f"the process died with status {running.process.exitcode}"
        found = {"code": "crash", "message": message}
    entry = case.entry
    return Result(
        model=entry.name,
        kind=entry.kind,
        parameters=entry.parameters,
        exporter=case.exporter,
        seconds=round(seconds, 1),
        peak_gb=round(running.peak_gb, 2),
        **found,
    )


def run_case(case: Case, folder: Path, shared: Path) -> None:
    """In the process: build, and write what came of it; a traceback is a result, too."""
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ["DEPLOYC_CACHE"] = str(folder / "cache")
    try:
        found = build_case(case, folder, shared)
    except Exception as error:  # noqa: BLE001 - what is none of ours is told as a defect
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = traceback.format_exc().splitlines()[-40:]
        message = f"{type(error).__name__}: {' '.join(lines)}"
        found = {"code": "traceback", "message": message, "hint": "\n".join(where)}
    (folder / "result.json").write_text(json.dumps(found), "utf-8")


def prepare_once(case: Case, folder: Path, shared: Path) -> Path:
    """The folder with the model's spec; a detector's, which is slow, serves both exporters."""
    from zoo_models import prepare

    if (shared / SPEC).exists():
        return shared
    own = folder / "spec"
    own.mkdir()
    (own / SPEC).write_text(json.dumps(prepare(case.entry, own)), "utf-8")
    if case.entry.kind != "detection":
        return own
    shared.parent.mkdir(exist_ok=True)
    try:
        return own.rename(shared)
    except OSError:  # the other exporter's process was quicker
        return own


def build_case(case: Case, folder: Path, shared: Path) -> dict[str, Any]:
    """Write the spec, build it, read what was proven."""
    from zoo_models import OPSET

    from compiler.build import build
    from compiler.progress import Reporter
    from specs.errors import DeploycError
    from specs.loader import load_spec

    place = prepare_once(case, folder, shared)
    spec = json.loads((place / SPEC).read_text("utf-8"))
    spec["export"] = {"exporter": case.exporter, "opset": OPSET}
    file = place / f"{case.exporter}.yaml"
    file.write_text(json.dumps(spec), "utf-8")  # JSON is YAML
    shapes = [tensor["shape"] for tensor in spec["inputs"].values()]
    about = {"input": " and ".join("x".join(map(str, shape)) for shape in shapes)}
    reporter = Reporter(quiet=True)
    try:
        result = build(load_spec(file), folder / "artifact", reporter=reporter)
    except DeploycError as error:
        return {**about, "code": error.code, "message": error.message, "hint": error.hint}
    manifest = result.manifest
    parity = manifest.variants[0].parity
    return {
        **about,
        "opset": manifest.graph.opset,
        "runs": len(parity),
        "max_abs": max(each.max_abs for each in parity),
        "excess": max(each.max_excess for each in parity),
        "spread": spread(result.folder, case.entry.kind),
        "stages": {step.name: round(step.seconds, 1) for step in reporter.steps},
        "versions": manifest.toolchain,
    }


def spread(artifact: Path, kind: str) -> float:
    """How far PyTorch's answers to different items lie apart, of the least varied output.

    A detector's outputs are one answer: there the boxes count, and of these the rows in use.
    """
    if kind == "detection":
        return deviations(artifact)["boxes"]
    return min(deviations(artifact).values())


def deviations(artifact: Path) -> dict[str, float]:
    """By output, the root of the mean variance over items; where all are zero is left out."""
    import numpy as np

    found: dict[str, float] = {}
    with np.load(artifact / "golden" / "case0.npz") as arrays:
        for key in arrays.files:
            if key.startswith("outputs/") and arrays[key].dtype.kind == "f":
                array = arrays[key].astype(np.float64)
                variance = array.var(axis=0)[np.any(array != 0, axis=0)]
                found[key.removeprefix("outputs/")] = float(np.sqrt(variance.mean()))
    return found


if __name__ == "__main__":
    sys.exit(main())
