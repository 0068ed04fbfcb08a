"""Measures a variant: starts a process a point, and puts what they find together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from compiler.profile.advice import advise, flagged
from compiler.profile.inputs import batch_axis, held_sizes
from compiler.profile.sweep import sweep
from compiler.profile.task import Answer, Cause, Task
from compiler.progress import Reporter
from runtime.machine import machine
from specs.errors import EngineError
from specs.manifest import Manifest, Variant
from specs.profile import PROFILE_VERSION, Failure, Form, Point, Profile, identity

__all__ = ["Settings", "ask", "profile_variant"]

ROOT = Path(__file__).parents[2]
"""Where the package ``compiler`` was imported from: a point is measured with the same code."""
WORKER = ("-P", "-m", "compiler.profile.worker")
"""``-P``: a folder named ``compiler`` where the command is run is not ours."""
TAIL = 400
"""Characters of a crashed process' last words that are told."""


@dataclass(frozen=True)
class Settings:
    """What a person may choose.

    Args:
        batches: sizes to measure; () sweeps.
        seconds: bound on the time of one point's timed runs; the warm-up gets as much.
        timeout: seconds after which a point's process is ended.
        slo_ms: the p99 to advise for.
    """

    batches: tuple[int, ...] = ()
    seconds: float = 3.0
    timeout: float = 300.0
    slo_ms: float | None = None


def profile_variant(
    folder: Path, manifest: Manifest, variant: Variant, settings: Settings, reporter: Reporter
) -> Profile:
    """Measure one variant; nothing is written.

    Args:
        folder: the artifact, whose hashes were checked.
        manifest: its manifest.
        variant: which variant.
        settings: what to measure, and for how long.
        reporter: shows every point.

    Raises:
        EngineError: not one point could be measured: the first cause, with its code.
    """
    run = _Run(folder, manifest, variant, settings, reporter)
    if settings.batches:
        for batch in settings.batches:
            run.measure(batch)
    else:
        sweep(run.measure, manifest.batch)
    return run.profile()


@dataclass
class _Run:
    """The points of one variant as they come."""

    folder: Path
    manifest: Manifest
    variant: Variant
    settings: Settings
    reporter: Reporter
    points: list[Point] = field(default_factory=list[Point])
    failures: list[Failure] = field(default_factory=list[Failure])
    answers: list[Answer] = field(default_factory=list[Answer])

    @property
    def forms(self) -> tuple[Form, ...]:
        return ("dynamic", "fixed") if batch_axis(self.manifest.of(self.variant)) else ("fixed",)

    def measure(self, batch: int) -> float | None:
        """Measure all forms at one size; the best rate, or None where every form failed."""
        found = [self._form(batch, form) for form in self.forms]
        return max((point.rate for point in found if point is not None), default=None)

    def _form(self, batch: int, form: Form) -> Point | None:
        name = self.variant.name
        with self.reporter.step(f"{name}: {batch:>4} {form:<7}") as step:
            task = Task(
                folder=self.folder,
                variant=name,
                batch=batch,
                form=form,
                seconds=self.settings.seconds,
            )
            answer = ask(task, self.settings.timeout)
            self.answers.append(answer)
            step.detail = self._keep(task, answer)
        return answer.point

    def _keep(self, task: Task, answer: Answer) -> str:
        """File the answer away; what to show of it."""
        if answer.point is not None:
            self.points.append(answer.point)
            p50, p99, rate = answer.point.p50_ms, answer.point.p99_ms, answer.point.rate
            return f"p50 {p50:.3g} ms, p99 {p99:.3g} ms, {rate:,.0f} items/s"
        cause = answer.cause or Cause(code="point_crashed", message="no answer")
        failure = Failure(batch=task.batch, form=task.form, code=cause.code, message=cause.message)
        self.failures.append(failure)
        return f"NOT MEASURED: {cause.message}"

    def profile(self) -> Profile:
        """All that was found."""
        if not self.points:
            raise self._nothing()
        first = next(answer for answer in self.answers if answer.point)
        points = flagged(self.points)
        index = int(self.variant.options.get("device_id", 0))
        return Profile(
            version=PROFILE_VERSION,
            variant=self.variant.name,
            engine=self.variant.engine,
            device=self.variant.device,
            precision=self.variant.precision,
            identity=identity(self.manifest, self.variant),
            machine=machine(self.variant.device, index),
            engine_details=first.details,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            inputs=first.inputs,
            sizes=held_sizes(self.manifest.of(self.variant)),
            seconds=self.settings.seconds,
            points=points,
            failures=tuple(self.failures),
            advice=advise(points, self.settings.slo_ms),
        )

    def _nothing(self) -> EngineError:
        cause = next(answer.cause for answer in self.answers if answer.cause)
        message = f"{self.variant.name} cannot be measured here: {cause.message}"
        return EngineError(message, hint=cause.hint, code=cause.code)


def ask(task: Task, timeout: float) -> Answer:
    """The answer of a process of its own; its end by any cause is an answer, too.

    Args:
        task: what to measure.
        timeout: seconds after which the process is killed.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, *WORKER],
            input=task.model_dump_json(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"it took longer than {timeout:g} s"
        hint = "give it more with --timeout, or measure smaller sizes with --batches"
        return Answer(cause=Cause(code="point_timeout", message=message, hint=hint))
    try:
        return Answer.model_validate_json(done.stdout)
    except ValidationError:
        return Answer(cause=_crash(done.returncode, done.stderr.splitlines()))


def _crash(status: int, lines: Iterable[str]) -> Cause:
    """Why a process ended without an answer."""
    if status == -signal.SIGKILL:
        message = "the system killed its process, as it does where memory runs out"
        hint = "measure smaller sizes with --batches"
        return Cause(code="out_of_memory", message=message, hint=hint)
    last = next((line.strip() for line in reversed(list(lines)) if line.strip()), "no words")
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return Cause(code="point_crashed", message=f"its process ended with {how}: {last[:TAIL]}")
