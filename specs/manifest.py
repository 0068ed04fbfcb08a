"""``manifest.json``: what an artifact holds, by hash, and what was proven of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from specs.axes import AxisRange
from specs.base import Frozen
from specs.engines import Device, Precision
from specs.gate import Gate
from specs.precision import TolerancePair
from specs.schema import Limits, Serving, TensorSpec

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "AccuracyResult",
    "Answer",
    "Candidate",
    "Choice",
    "FileEntry",
    "Graph",
    "Manifest",
    "OwnStep",
    "ParityCase",
    "Takes",
    "Variant",
    "WeightsOrigin",
]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 3
"""Raised when a reader of the version before could misread the manifest."""

Answer = Literal["classes", "detections", "image", "tensors"]
"""What a request is answered with: ranked classes, found boxes, a picture, or named tensors."""
Takes = Literal["image", "audio", "text", "tensors"]
"""What an item of a request is: an image file, a sound file, a text, or the model's inputs."""


class FileEntry(Frozen):
    """One file of the artifact."""

    sha256: str
    bytes: int


class WeightsOrigin(Frozen):
    """Where the weights came from."""

    origin: Literal["url", "path", "random", "source"]
    """``source``: they are the model's own file's."""
    location: str = ""
    """The URL, or the file's name."""
    sha256: str = ""
    """SHA-256 of the file; "" for random weights."""
    seed: int | None = None
    """Seed of random weights, and of code that makes its own."""

    def __str__(self) -> str:
        if self.origin == "random":
            return f"RANDOM (seed {self.seed}): the answers mean nothing"
        if self.origin == "source":
            made = f"made by {self.location}: RANDOM unless it loads its own"
            return "in the source" if self.seed is None else made
        return f"{self.origin} {self.location} sha256:{self.sha256[:12]}"


class Graph(Frozen):
    """The portable graph, ``model.onnx``."""

    exporter: str
    """``dynamo``, ``torchscript``, or ``none`` where the source was an ONNX file."""
    opset: int
    ir_version: int
    nodes: dict[str, int]
    """Number of nodes by op type."""
    parameters: int
    """Number of elements of all initializers."""


class ParityCase(Frozen):
    """Agreement with PyTorch over one set of runs."""

    case: str
    """``batch 1``, ``batch 32``, ``height=16`` …"""
    max_abs: float
    """Largest ``|variant - reference|`` over all outputs and runs."""
    max_excess: float
    """Largest ``|variant - reference| / (atol + rtol * |reference|)``; above 1 fails."""


class AccuracyResult(Frozen):
    """Accuracy over the labelled samples, as right answers out of ``count``."""

    metric: str
    count: int
    reference: int
    """Right answers of the reference: PyTorch, or ONNX's evaluator where the source is ONNX."""
    variant: int
    """Right answers of the variant."""

    @property
    def drop(self) -> float:
        """How much lower the variant's share is; negative where it is higher."""
        return (self.reference - self.variant) / self.count

    def __str__(self) -> str:
        right = f"{self.metric} {self.variant}/{self.count}"
        return f"{right} (reference {self.reference}/{self.count})"


class Candidate(Frozen):
    """One of the variants that ``auto`` looked at."""

    variant: str
    outcome: Literal["chosen", "slower", "failed", "not_run"]
    reason: str = ""
    """Why it failed, or could not be run here."""
    batch: int | None = None
    """The batch size at which it was measured."""
    latency_ms: float | None = None
    """Median time of one batch of that size."""

    @property
    def rate(self) -> float | None:
        """Items per second at that batch size."""
        if self.batch is None or not self.latency_ms:
            return None
        return self.batch / self.latency_ms * 1e3


class Choice(Frozen):
    """Why ``auto`` chose as it did."""

    target: str
    """The target's name in the spec."""
    rule: str
    """How the batch size was chosen, and what "fastest" means at it."""
    candidates: tuple[Candidate, ...]


class OwnStep(Frozen):
    """A step of the spec's own code (``python``): it has no reference that it could be held to."""

    stage: Literal["preprocess", "postprocess"]
    function: str
    file: str
    """In the spec's folder."""
    copy_in: str
    """Its copy in the artifact."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.function} in {self.file} ({self.copy_in})"


class Variant(Frozen):
    """A target, as built."""

    name: str
    """Its folder under ``variants/``."""
    target: str
    """The name of the spec's target that it was built for."""
    engine: str
    device: Device
    precision: Precision
    options: dict[str, Any] = Field(default_factory=dict)
    file: str
    """The file that the engine loads, relative to the artifact."""
    details: dict[str, str] = Field(default_factory=dict)
    """What the engine says of itself: version, providers."""
    processing: str = "processing.py"
    """The file with its pre- and post-processing, relative to the artifact."""
    golden: str = "golden"
    """The folder of the golden tensors of ``inputs``."""
    placement: Literal["python", "graph"] = "python"
    """Where most of the processing runs."""
    inputs: dict[str, TensorSpec] = Field(default_factory=dict)
    """What the engine takes where that is not the model's inputs: its graph prepares images."""
    outputs: dict[str, TensorSpec] = Field(default_factory=dict)
    """What the engine gives where that is not the model's outputs."""
    axes: dict[str, AxisRange] = Field(default_factory=dict)
    """The dynamic axes of these inputs: the sides of an image."""
    kept: tuple[str, ...] = ()
    """Nodes that stay in fp32 because they would be wrong in ``precision``."""
    notes: tuple[str, ...] = ()
    """What the build found worth telling."""
    parity: tuple[ParityCase, ...] = ()
    tolerance: TolerancePair | None
    """What parity was held to; None where it was only measured."""
    accuracy: AccuracyResult | None = None
    not_audited: tuple[str, ...] = ()
    """What could not be audited here, in words; what could stands in its ``audit.json``."""

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference over all parity runs."""
        return max((case.max_abs for case in self.parity), default=0.0)


class Manifest(Frozen):
    """The whole manifest."""

    schema_version: int
    name: str
    description: str = ""
    spec_sha256: str
    """Digest of the resolved spec, ``spec.yaml`` in the artifact."""
    toolchain: dict[str, str]
    """Versions of what built it: python, torch, onnx, onnxruntime, numpy, pillow, deployc."""
    files: dict[str, FileEntry]
    """Every file of the artifact but the manifest, by its path in it."""
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    axes: dict[str, AxisRange]
    """Range of every dynamic axis."""
    batch: AxisRange
    """Sizes of a batch that the graph takes; min = max where it is fixed."""
    takes: Takes
    answer: Answer
    answer_schema: dict[str, Any] = Field(default_factory=dict)
    """JSON Schema of one answer."""
    weights: WeightsOrigin
    graph: Graph
    variants: tuple[Variant, ...]
    """In the spec's order: the first is the preferred one."""
    on_missing: Literal["refuse", "next"]
    """What loading does where the preferred variant cannot run."""
    gates: tuple[Gate, ...] = ()
    """How far every execution of the processing lies from its reference."""
    own_code: tuple[OwnStep, ...] = ()
    """The spec's own functions among its steps."""
    choices: tuple[Choice, ...] = ()
    """The tables of every target that said ``auto``."""
    limits: Limits
    serving: Serving

    def of(self, variant: Variant) -> Manifest:
        """This manifest with what one variant's engine takes and gives: its graph's own."""
        changes = {
            "inputs": variant.inputs or self.inputs,
            "outputs": variant.outputs or self.outputs,
            "axes": {**self.axes, **variant.axes},
        }
        return self.model_copy(update=changes)

    def warnings(self) -> tuple[str, ...]:
        """What a person who sees this artifact must be told."""
        return (f"weights are {self.weights}",) if self.weights.seed is not None else ()
