"""The process that measures one point: ``python -m compiler.profile.worker``, JSON in and out.

One process a point, since memory that a session took is not given back within one, and since a
crash or a lack of memory then costs one point alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass

from compiler.profile.inputs import batch_axis, find_inputs
from compiler.profile.stats import Bounds, Run, Sample, sample, warm_up
from compiler.profile.task import Answer, Cause, Task
from runtime.artifact import choose_variant, read_manifest
from runtime.engines import EngineSession, get_engine
from runtime.machine import gpu_memory_used, peak_memory
from runtime.tensors import Tensors
from specs.errors import DeploycError
from specs.manifest import Manifest, Variant
from specs.profile import Flag, Point

__all__ = ["answer", "measure"]

DISTURBED = 1.1
"""A mean that is so many times the median tells of stalls."""


def answer(task: Task) -> Answer:
    """Measure, or say why that cannot be."""
    try:
        return measure(task)
    except DeploycError as error:
        return Answer(cause=Cause(code=error.code, message=error.message, hint=error.hint))
    except MemoryError:
        return Answer(cause=Cause(code="out_of_memory", message="there is not enough memory"))


def measure(task: Task) -> Answer:
    """Measure one point in this process.

    Raises:
        DeploycError: the variant cannot be opened or run.
    """
    manifest = read_manifest(task.folder)
    variant = choose_variant(manifest, task.variant)
    manifest = manifest.of(variant)
    batch, inputs = find_inputs(task.folder / variant.golden, manifest, task.batch)
    gpu = _Gpu(variant)
    start = time.perf_counter()
    session = _open(task, manifest, variant)
    loaded = time.perf_counter() - start
    try:
        run = _timed(session, batch)
        warmup = warm_up(run, task.seconds)
        found = sample(run, Bounds(task.seconds))
        point = _point(task, found, warmup, loaded, gpu.taken())
        return Answer(point=point, details=session.details(), inputs=inputs)
    finally:
        session.close()


def _open(task: Task, manifest: Manifest, variant: Variant) -> EngineSession:
    axis = batch_axis(manifest)
    sizes = {axis: task.batch} if axis and task.form == "fixed" else None
    file = task.folder / variant.file
    return get_engine(variant.engine).open(file, variant.device, variant.options, sizes)


def _timed(session: EngineSession, batch: Tensors) -> Run:
    def run() -> float:
        start = time.perf_counter_ns()
        session.run(batch)
        return (time.perf_counter_ns() - start) / 1e6

    return run


def _point(task: Task, found: Sample, warmup: int, loaded: float, gpu: int | None) -> Point:
    tail = found.interval(0.99)
    flags: list[Flag] = [] if found.settled else ["unstable"]
    if found.mean > DISTURBED * found.quantile(0.5):
        flags.append("disturbed")
    if tail.high is None:
        flags.append("few_samples")
    return Point(
        batch=task.batch,
        form=task.form,
        samples=len(found.times),
        warmup=warmup,
        mean_ms=found.mean,
        p50_ms=found.quantile(0.5),
        p95_ms=found.quantile(0.95),
        p99_ms=found.quantile(0.99),
        p50_ci=found.interval(0.5),
        p99_ci=tail,
        rate=task.batch / found.quantile(0.5) * 1e3,
        load_seconds=loaded,
        peak_memory_bytes=peak_memory(),
        gpu_memory_bytes=gpu,
        flags=tuple(flags),
    )


@dataclass
class _Gpu:
    """GPU memory in use before the session and after; other processes' changes count as ours."""

    variant: Variant
    before: int | None = None

    def __post_init__(self) -> None:
        self.before = self._used()

    def taken(self) -> int | None:
        """Bytes in use now beyond those before; the engines keep what they took at most."""
        now = self._used()
        return None if now is None or self.before is None else max(0, now - self.before)

    def _used(self) -> int | None:
        if self.variant.device != "cuda":
            return None
        return gpu_memory_used(int(self.variant.options.get("device_id", 0)))


@contextlib.contextmanager
def _own_stdout() -> Generator[int, None, None]:
    """A copy of stdout's descriptor; what engines and drivers print goes to stderr meanwhile."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        yield own
    finally:
        os.close(own)


def _main() -> None:
    task = Task.model_validate_json(sys.stdin.read())
    with _own_stdout() as own:
        os.write(own, answer(task).model_dump_json().encode())


if __name__ == "__main__":
    _main()
