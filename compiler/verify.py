"""Verifies an artifact where it lies: hashes, then every variant against the golden tensors.

Needs neither torch nor onnx, so that a serving node can do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.artifact import check_files, choose_variant, read_manifest
from runtime.compare import Gap, Tolerance, worst_gap
from runtime.golden import SHIFTS, Golden, batch_of, read_golden
from runtime.predictor import Predictor, open_variant, processing_of
from specs.errors import EngineError, InputError
from specs.manifest import Manifest, Variant

__all__ = ["CaseResult", "State", "Verified", "open_artifact", "verify_variant"]

State = Literal["passed", "measured", "failed", "not_run"]
"""``measured``: the spec gives no tolerance for the variant, so nothing was held against it."""


@dataclass(frozen=True)
class CaseResult:
    """One golden case at one batch size.

    Args:
        case: ``samples, batch 32``.
        gap: where the variant and the reference differ most.
        judged: whether there is a tolerance.
        error: what the engine said where it failed on the batch; "" otherwise.
    """

    case: str
    gap: Gap
    judged: bool
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether it is beyond tolerance, not of the reference's shape, or not a number."""
        return bool(self.error) or self.gap.excess > 1

    @property
    def reason(self) -> str:
        """What is wrong, in one line; "" where nothing is."""
        if self.error or not self.failed:
            return self.error
        over = f"; {self.gap.excess:.3g} times the tolerance"
        return f"{self.gap}{over if self.judged and not self.gap.shapes else ''}"


@dataclass(frozen=True)
class Verified:
    """What became of one variant.

    Args:
        variant: the variant.
        cases: the golden cases at their batches; () where it was not run.
        reason: why it could not be run here; "" otherwise.
        hint: what would let it run here.
        details: what the engine says of itself.
    """

    variant: Variant
    cases: tuple[CaseResult, ...] = ()
    reason: str = ""
    hint: str = ""
    details: str = ""

    @property
    def state(self) -> State:
        """Its state; a variant that was not run has not passed."""
        if self.reason or not self.cases:
            return "not_run"
        if any(case.failed for case in self.cases):
            return "failed"
        return "passed" if self.variant.tolerance else "measured"


def open_artifact(folder: Path, name: str | None) -> tuple[Manifest, tuple[Variant, ...]]:
    """The manifest and the variants to verify: all of them, or the one of that name.

    Raises:
        ArtifactError: it is missing, torn, or a file is not the one that was built.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    chosen = manifest.variants if name is None else (choose_variant(manifest, name),)
    return manifest, chosen


def verify_variant(folder: Path, manifest: Manifest, variant: Variant) -> Verified:
    """Run one variant on every golden case, at each of its batch sizes.

    Args:
        folder: the artifact, whose hashes were checked.
        manifest: its manifest.
        variant: a variant of it.

    Raises:
        ArtifactError: the golden tensors cannot be read.
    """
    processing = processing_of(folder, manifest, variant)
    try:
        session = open_variant(folder, variant)
    except EngineError as error:
        return Verified(variant, reason=error.message, hint=error.hint)
    with Predictor(manifest, variant, processing, session) as predictor:
        told = ", ".join(f"{key} {value}" for key, value in predictor.details.items())
        cases = tuple(_cases(predictor, folder / variant.golden))
    return Verified(variant, cases, "" if cases else "the artifact has no golden case", "", told)


def _cases(predictor: Predictor, folder: Path) -> Iterator[CaseResult]:
    for golden in read_golden(folder):
        for size in golden.case.batches:
            yield _case(predictor, golden, size)


def _case(predictor: Predictor, golden: Golden, size: int) -> CaseResult:
    pair = predictor.variant.tolerance
    tolerance = Tolerance.of(pair, predictor.variant.precision)
    name = f"{golden.case.name}, batch {size}"
    try:
        gaps = [_gap(predictor, golden, size, shift, tolerance) for shift in SHIFTS]
    except (EngineError, InputError) as error:
        return CaseResult(name, Gap(), pair is not None, error.message)
    return CaseResult(name, max(gaps, key=lambda g: (g.excess, g.max_abs)), pair is not None)


def _gap(predictor: Predictor, golden: Golden, size: int, shift: int, tolerance: Tolerance) -> Gap:
    found = predictor.predict_batch(batch_of(golden.case.inputs, size, shift))
    return worst_gap(found, batch_of(golden.outputs, size, shift), tolerance)
