"""``profile.json``: what one variant was measured to take, per batch size, and what follows."""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal, get_args

from pydantic import Field

from specs.base import Frozen
from specs.digests import json_sha256
from specs.engines import Device, Precision
from specs.manifest import Manifest, Variant

__all__ = [
    "PROFILE",
    "PROFILE_VERSION",
    "Advice",
    "Failure",
    "Flag",
    "Form",
    "Interval",
    "Machine",
    "Point",
    "Profile",
    "Quantile",
    "identity",
    "profile_path",
]

PROFILE = "profile.json"
PROFILE_VERSION = 1
"""Raised when a reader of the version before could misread a profile."""

Form = Literal["dynamic", "fixed"]
"""The session takes every batch of the range, or was opened for this one size alone."""

Flag = Literal["slower_than_smaller", "slower_than_larger", "unstable", "disturbed", "few_samples"]
"""What is odd about a point; ``docs/profile.md`` has the rules.

``slower_than_smaller``: fewer items per second than at a smaller size. ``slower_than_larger``: one
batch takes longer than one of the next larger size. ``unstable``: the median did not settle within
the time given. ``disturbed``: the mean is more than 10 % above the median: other work ran, or the
engine stalls. ``few_samples``: too few runs to bound the p99 from above.
"""

Quantile = Literal["p50", "p95", "p99"]


class Machine(Frozen):
    """Where a profile was measured."""

    cpu: str
    """The processor's own name."""
    cores: int
    """Physical cores; logical ones where the system does not tell them apart."""
    threads: int
    """Logical processors that the process may use."""
    memory_bytes: int
    """Main memory, or the container's limit where that is smaller."""
    gpu: str = ""
    """Name of the GPU that was measured on; "" for a CPU variant."""
    driver: str = ""
    """Version of the GPU's driver."""
    os: str
    python: str

    def __str__(self) -> str:
        gpu = f", {self.gpu} (driver {self.driver})" if self.gpu else ""
        memory = f"{self.memory_bytes / 2**30:.0f} GiB"
        return f"{self.cpu}, {self.cores} cores, {self.threads} threads, {memory}{gpu}, {self.os}"


class Interval(Frozen):
    """A 95 % confidence interval of a quantile, in milliseconds."""

    low: float
    high: float | None
    """None: so few samples bound it from below only."""

    def within(self, value: float) -> float | None:
        """The larger distance of an end from ``value``, as a share of it; None where open."""
        if self.high is None:
            return None
        return max(value - self.low, self.high - value) / value if value > 0 else 0.0


class Point(Frozen):
    """One batch size in one form, measured in a process of its own."""

    batch: int
    form: Form
    samples: int
    """Timed runs."""
    warmup: int
    """Runs before them that do not count."""
    mean_ms: float
    p50_ms: float
    """Quantiles by nearest rank: a time that was measured, never one between two."""
    p95_ms: float
    p99_ms: float
    p50_ci: Interval
    p99_ci: Interval
    rate: float
    """Items per second at the median time, ``batch / p50``: what a stall of the machine does not
    hide. Where the mean says otherwise, the point is flagged ``disturbed``."""
    load_seconds: float
    """Time that opening the session took."""
    peak_memory_bytes: int
    """Largest resident memory of the process: interpreter, libraries, session and one batch."""
    gpu_memory_bytes: int | None = None
    """GPU memory in use more than before the session; None: not measured."""
    flags: tuple[Flag, ...] = ()

    def at(self, quantile: Quantile) -> float:
        """A quantile in milliseconds."""
        return {"p50": self.p50_ms, "p95": self.p95_ms, "p99": self.p99_ms}[quantile]


class Failure(Frozen):
    """A batch size that could not be measured."""

    batch: int
    form: Form
    code: str
    """``point_timeout``, ``point_crashed``, ``out_of_memory``, or the engine's own."""
    message: str


class Advice(Frozen):
    """The batch sizes to serve with."""

    form: Form
    """The form that the sizes were chosen in: the one that serving opens."""
    throughput: int
    """The smallest size whose rate is within 5 % of the best."""
    slo_ms: float | None = None
    """The p99 that was asked for; None where nobody asked."""
    slo: int | None = None
    """The largest size whose p99, like that of all smaller ones, is at most half of ``slo_ms``;
    None where the smallest one's is not."""


class Profile(Frozen):
    """One variant's profile."""

    version: int
    variant: str
    engine: str
    device: Device
    precision: Precision
    identity: str
    """What was measured, as ``identity`` tells it: another build has another one."""
    machine: Machine
    engine_details: dict[str, str] = Field(default_factory=dict)
    """What the engine said of itself: versions, providers."""
    measured_at: str
    """Date and time in UTC, ISO 8601."""
    inputs: str
    """What was fed: ``golden case samples``, or ``random tensors, seed 0``."""
    sizes: dict[str, int] = Field(default_factory=dict)
    """Sizes of the other dynamic axes, held while the batch varied."""
    seconds: float
    """Bound on the time of one point's timed runs."""
    points: tuple[Point, ...] = Field(min_length=1)
    """By form, then by batch size."""
    failures: tuple[Failure, ...] = ()
    advice: Advice

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that have points."""
        every: tuple[Form, ...] = get_args(Form)
        return tuple(form for form in every if any(point.form == form for point in self.points))

    def of(self, form: Form) -> tuple[Point, ...]:
        """The points of one form, by batch size."""
        return tuple(point for point in self.points if point.form == form)

    def latency_ms(self, batch: int, quantile: Quantile = "p99", form: Form | None = None) -> float:
        """Time of one batch, interpolated between measured sizes.

        Below the smallest measured size it is that one's time; above the largest it grows in
        proportion to the batch, as it does where the device is saturated.

        Args:
            batch: number of items.
            quantile: which one.
            form: by default the one that the advice is for.
        """
        points = self.of(form or self.advice.form) or self.points
        sizes = [point.batch for point in points]
        right = bisect_left(sizes, batch)
        if right == 0:
            return points[0].at(quantile)
        low = points[right - 1]
        if right == len(points):
            return low.at(quantile) * batch / low.batch
        high = points[right]
        share = (batch - low.batch) / (high.batch - low.batch)
        return low.at(quantile) + share * (high.at(quantile) - low.at(quantile))


def profile_path(variant: str) -> str:
    """Where a variant's profile lies in the artifact."""
    return f"variants/{variant}/{PROFILE}"


def identity(manifest: Manifest, variant: Variant) -> str:
    """Digest of all that a variant's speed depends on within an artifact.

    The engine's files, device, options and shapes; not the audit, the report, or what was proven.
    """
    stem = variant.file.rpartition("/")[0]
    beside = {
        name: entry.sha256
        for name, entry in manifest.files.items()
        if name == variant.file or _weights_of(name, variant.file) or _engine_file(name, stem)
    }
    return json_sha256(
        {
            "files": beside,
            "engine": variant.engine,
            "device": variant.device,
            "precision": variant.precision,
            "options": variant.options,
            "inputs": {name: t.model_dump(mode="json") for name, t in manifest.inputs.items()},
            "axes": {name: axis.model_dump() for name, axis in manifest.axes.items()},
        }
    )


def _weights_of(name: str, graph: str) -> bool:
    return name == f"{graph}.data"


def _engine_file(name: str, folder: str) -> bool:
    """Whether it lies in the variant's own folder and is not a record about the variant."""
    inside = bool(folder) and name.startswith(f"{folder}/")
    return inside and not name.endswith((f"/{PROFILE}", "/audit.json"))
