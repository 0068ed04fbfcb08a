"""What the page says of an artifact, in plain words and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

from specs.audit import Audit
from specs.manifest import Manifest, ParityCase, Variant
from specs.profile import Point, Profile

__all__ = ["Share", "Sides", "bar", "bytes_text", "files_by_part", "odd", "runs", "shares"]

UNITS = ("B", "kB", "MB", "GB", "TB")
"""Decimal, as disks have them."""
STEP = 1000
FLAGS = {
    "slower_than_smaller": "slower per item than a smaller size",
    "slower_than_larger": "takes longer than the next larger size",
    "unstable": "median not settled",
    "disturbed": "mean more than 10 % above the median",
}
"""``few_samples`` shows as an open interval."""


@dataclass(frozen=True)
class Sides:
    """What was run, and what was not; both in sentences."""

    run: tuple[str, ...]
    not_run: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """A bar: a name, a value, and its length from 0 to 100."""

    name: str
    value: str
    length: float


def runs(manifest: Manifest, profiles: Mapping[str, Profile], audits: Mapping[str, Audit]) -> Sides:
    """What has been run for this artifact, on which machine, and what has not."""
    run: list[str] = []
    missing: dict[str, list[str]] = {}
    for variant in manifest.variants:
        profile, audit = profiles.get(variant.name), audits.get(variant.name)
        done = ", ".join(_run(variant, profile, audit))
        if done:
            run.append(f"{variant.name}: {done}.")
        for text in _not_run(variant, profile, audit):
            missing.setdefault(text, []).append(variant.name)
    told = [f"{_names(names, manifest)}: {text}" for text, names in missing.items()]
    told += _candidates(manifest)
    if all(variant.device != "cuda" for variant in manifest.variants):
        told.append("A GPU: no variant of this artifact is for one, and nothing was run on one.")
    return Sides(tuple(run), tuple(told))


def _names(names: list[str], manifest: Manifest) -> str:
    every = len(names) == len(manifest.variants) > 1
    return "every variant" if every else ", ".join(names)


def _run(variant: Variant, profile: Profile | None, audit: Audit | None) -> Iterator[str]:
    if variant.parity:
        yield f"parity with the reference on {variant.device} ({len(variant.parity)} runs)"
    if variant.accuracy is not None:
        yield f"accuracy ({variant.accuracy.count} labelled samples)"
    if audit is not None:
        yield f"audit ({audit.placement.source})"
    if audit is not None and audit.drift is not None:
        yield f"drift by layer against {audit.drift.reference}"
    if profile is not None:
        yield f"profile on {profile.machine} ({profile.measured_at})"


def _not_run(variant: Variant, profile: Profile | None, audit: Audit | None) -> Iterator[str]:
    if not variant.parity:
        yield "parity was not run."
    if variant.accuracy is None:
        yield "accuracy; the spec names no labelled samples."
    yield from audit.not_run if audit is not None else variant.not_audited
    if audit is None and not variant.not_audited:
        yield "audit of placement and precision."
    if audit is not None and audit.drift is None:
        yield "drift by layer; deployc verify --layers measures it."
    if profile is None:
        yield "latency, throughput and memory; deployc profile measures them."
    for failure in profile.failures if profile is not None else ():
        yield f"profile of batch {failure.batch} ({failure.form}): {failure.message}."
    if profile is not None and variant.device == "cuda" and not _has_gpu_memory(profile):
        yield "GPU memory; NVML could not be asked."


def _has_gpu_memory(profile: Profile) -> bool:
    return any(point.gpu_memory_bytes is not None for point in profile.points)


def _candidates(manifest: Manifest) -> Iterator[str]:
    for choice in manifest.choices:
        for candidate in choice.candidates:
            if candidate.outcome == "not_run":
                yield f"{candidate.variant} (for {choice.target}): {candidate.reason}."


def bar(case: ParityCase) -> float:
    """Length of a parity case's bar, 0 to 100: 100 is the tolerance."""
    return 100 * min(1.0, max(0.0, case.max_excess))


def odd(point: Point) -> str:
    """What is odd about a point, in words."""
    return "; ".join(FLAGS[flag] for flag in point.flags if flag in FLAGS)


def bytes_text(count: float) -> str:
    """``13.9 MB``."""
    for unit in UNITS[:-1]:
        if count < STEP:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= STEP
    return f"{count:.3g} {UNITS[-1]}"


def shares(values: Mapping[str, float], text: Mapping[str, str]) -> list[Share]:
    """Bars, the longest first; of equal ones by name."""
    top = max(values.values(), default=0) or 1
    order = sorted(values, key=lambda name: (-values[name], name))
    return [Share(name, text[name], 100 * values[name] / top) for name in order]


PARTS = (
    ("golden tensors", "golden/*"),
    ("portable graph", "model.onnx*"),
    ("processing code and labels", "*.py"),
    ("processing code and labels", "labels*"),
)


def files_by_part(manifest: Manifest, leave_out: str) -> dict[str, int]:
    """Bytes of the artifact by what they are for; ``leave_out`` names the page itself."""
    sizes: dict[str, int] = {}
    for name, entry in manifest.files.items():
        if name != leave_out:
            part = _part(name)
            sizes[part] = sizes.get(part, 0) + entry.bytes
    return sizes


def _part(name: str) -> str:
    if name.startswith("variants/"):
        return f"variant {name.split('/')[1]}"
    return next((part for part, pattern in PARTS if fnmatch(name, pattern)), "the rest")
