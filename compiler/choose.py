"""``auto``: builds what is possible here, proves it, measures it, and says why it prefers one."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass

from compiler.engines import BuildTarget
from compiler.stages import Stages
from compiler.targets import Ladder, int8_possible, ladders
from compiler.timing import time_batches
from compiler.variants import Proven, VariantBuild
from specs.engines import AUTO
from specs.errors import DeploycError, EngineError
from specs.manifest import Candidate, Choice
from specs.schema import Target

__all__ = ["build_target"]

MISSING = frozenset({"engine_missing", "provider_missing", "device_missing"})
"""Codes of an engine or device that is not here, which says nothing about the model."""
QUEUE = 2
"""A request may wait for one whole batch and then rides in the next: twice a batch's time."""


@dataclass(frozen=True)
class _Try:
    """A variant that holds, or why there is none."""

    target: BuildTarget
    build: VariantBuild | None = None
    proven: Proven | None = None
    error: DeploycError | None = None

    def failed(self) -> Candidate:
        """As a row of the table."""
        code = self.error.code if self.error else ""
        outcome = "not_run" if code in MISSING else "failed"
        reason = str(self.error.message).splitlines()[0] if self.error else ""
        return Candidate(variant=self.target.name, outcome=outcome, reason=reason)


def build_target(stages: Stages, target: Target) -> tuple[list[Proven], Choice | None]:
    """The variants of one target, the preferred one first, and why it is.

    Raises:
        DeploycError: the one variant that was asked for cannot be had; for ``auto``, none can.
    """
    steps = ladders(target, stages.spec)
    if target.precision == AUTO and not int8_possible(target, stages.spec):
        stages.reporter.note(f"{target.variant}: int8 is not tried, nothing could judge it")
    if AUTO not in (target.engine, target.precision):
        return [VariantBuild(stages, steps[0].rungs[0], target.variant).prove()], None
    tries = [attempt for ladder in steps for attempt in _climb(stages, ladder)]
    held = [attempt for attempt in tries if attempt.proven]
    if not held:
        raise _none(target, tries)
    measured = {attempt.target.name: _measure(stages, attempt) for attempt in held}
    best = max(measured, key=lambda name: measured[name].rate or 0.0)
    held.sort(key=lambda attempt: attempt.target.name != best)
    rows = [
        _row(measured[t.target.name], best) if t.proven else t.failed() for t in [*held, *tries]
    ]
    choice = Choice(
        target=target.variant,
        rule=_rule(stages),
        candidates=tuple({row.variant: row for row in rows}.values()),
    )
    return [attempt.proven for attempt in held if attempt.proven], choice


def _climb(stages: Stages, ladder: Ladder) -> list[_Try]:
    """Try one rung after the other until one holds."""
    tries: list[_Try] = []
    for rung in ladder.rungs:
        tries.append(_try(stages, rung, ladder.target))
        error = tries[-1].error
        if error is None or error.code in MISSING:
            break
        stages.reporter.note(f"{rung.name}: {error.message.splitlines()[0]}")
    return tries


def _try(stages: Stages, rung: BuildTarget, target: Target) -> _Try:
    build = VariantBuild(stages, rung, target.variant)
    try:
        if rung.device == "cuda":
            _require_driver()
        return _Try(rung, build, build.prove())
    except DeploycError as error:
        return _Try(rung, error=error)


def _require_driver() -> None:
    """Refuse at once where there is no GPU: engines take seconds to say the same."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        message = "no NVIDIA driver here: libcuda.so.1 is missing"
        raise EngineError(
            message, hint="build on a machine with a GPU", code="device_missing"
        ) from error


def _none(target: Target, tries: list[_Try]) -> EngineError:
    rows = "\n".join(f"  {attempt.target.name}: {attempt.failed().reason}" for attempt in tries)
    message = f"nothing that '{target.variant}' allows can be built and holds:\n{rows}"
    hint = "widen verify's bounds, or install an engine: `deployc doctor` shows what lacks"
    return EngineError(message, hint=hint, code="auto_none")


def _rule(stages: Stages) -> str:
    slo = stages.spec.serving.slo
    if slo is None:
        return f"most items per second at batch {stages.spec.batch.opt}, the batch axis's opt"
    return (
        "most items per second at the largest batch (a power of two) whose median time is at most "
        f"{slo.p99_ms / QUEUE:g} ms, half of the SLO of {slo.p99_ms:g} ms: a request may wait for "
        "one batch and rides in the next"
    )


def _measure(stages: Stages, attempt: _Try) -> Candidate:
    """The candidate at its best batch within the SLO, measured here."""
    times = _times(stages, attempt)
    slo = stages.spec.serving.slo
    fits = [size for size, ms in times.items() if slo is None or ms * QUEUE <= slo.p99_ms]
    size = max(fits, default=min(times))
    reason = "" if fits else f"misses the SLO at batch {size}"
    name = attempt.target.name
    return Candidate(
        variant=name, outcome="slower", reason=reason, batch=size, latency_ms=times[size]
    )


def _times(stages: Stages, attempt: _Try) -> dict[int, float]:
    """Median milliseconds by batch size; kept, so that a second build chooses the same."""
    build = attempt.build
    if build is None:  # only what was built and proven is measured
        return {}
    sizes = [stages.spec.batch.opt] if stages.spec.serving.slo is None else _powers(stages)

    def make(_folder: object) -> dict[str, object]:
        with build.predictor() as predictor:
            return {"ms": time_batches(predictor, stages.golden, sizes)}

    inputs = {**build.key, "variant": asdict(attempt.target) | {"quantize": None}, "sizes": sizes}
    found = stages.stage(f"{attempt.target.name}: timing", "timing", inputs, make)
    return {int(size): float(ms) for size, ms in found.data["ms"].items()}


def _powers(stages: Stages) -> list[int]:
    batch = stages.spec.batch
    powers = [2**n for n in range(batch.max.bit_length()) if batch.min <= 2**n <= batch.max]
    return powers or [batch.max]


def _row(candidate: Candidate, best: str) -> Candidate:
    chosen = candidate.variant == best
    return candidate.model_copy(update={"outcome": "chosen" if chosen else "slower"})
