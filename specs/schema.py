"""The language: one pydantic model per part of a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from specs import checks
from specs.axes import AxisRange, name_axes
from specs.base import Frozen, Plain, one_key_union, with_list
from specs.engines import AUTO, Device, Precision, engine_languages
from specs.faults import raise_faults
from specs.ops import OPS, Op
from specs.precision import Calibration, Quantize, Tolerances
from specs.sources import SOURCES, Exporter, Source
from specs.values import Dim

__all__ = [
    "Accuracy",
    "Dtype",
    "Export",
    "Limits",
    "Placement",
    "Replicas",
    "Serving",
    "Slo",
    "Spec",
    "StateDict",
    "Target",
    "TensorSpec",
    "Verify",
    "Weights",
    "image_side",
]

if TYPE_CHECKING:
    AnySource = Source
    AnyOp = Op
else:
    AnySource = one_key_union(SOURCES)
    AnyOp = one_key_union(OPS)

Dtype = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
Placement = Literal["python", "graph", "auto"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
PYTHON_NAME = r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$"
DimName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Size = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Rename(Frozen):
    """One rewriting of checkpoint keys, as ``re.sub(from, to, key)``."""

    from_: str = Field(alias="from", min_length=1)
    """A regular expression."""
    to: str = ""
    r"""What replaces it; ``\1`` stands for the first group."""

    @model_validator(mode="after")
    def _check(self) -> Rename:
        raise_faults(checks.rename(self))
        return self


class StateDict(Frozen):
    """How to find and name the tensors in a foreign checkpoint."""

    key: str = ""
    """The key that holds the state dict, with dots for deeper ones; "" for the file itself."""
    rename: tuple[Rename, ...] = ()
    """Rewritings of the tensors' keys, applied one after the other."""
    strict: bool = True
    """Whether a missing or unexpected key fails the build; a wrong shape always does."""


class RandomWeights(Frozen):
    """Weights drawn at random, for trying a spec out. Every print of the artifact says so."""

    seed: Seed = 0
    """Seed of torch's generator."""


class Weights(Frozen):
    """Where the weights come from: exactly one of ``url``, ``path`` and ``random``."""

    url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """An http or https address; needs ``sha256``."""
    sha256: Sha256 | None = None
    """The file's SHA-256 in 64 lower-case hex digits; checked for ``path`` too."""
    path: str | None = None
    """A file relative to the spec: a PyTorch checkpoint or ``.safetensors``."""
    random: RandomWeights | None = None
    """Random weights from a seed."""
    state_dict: StateDict = StateDict()
    """How to adapt a foreign checkpoint."""

    @model_validator(mode="after")
    def _check(self) -> Weights:
        raise_faults(checks.weights(self))
        return self


class TensorSpec(Frozen):
    """One input or output of the graph."""

    shape: tuple[Size | DimName, ...] = Field(min_length=1)
    """Sizes and names of dynamic axes; the first one is the batch."""
    dtype: Dtype = "float32"
    """Element type."""


class Export(Frozen):
    """How torch writes the ONNX graph. Options left out have torch's own defaults."""

    exporter: Exporter = "dynamo"
    """Which of torch's two exporters."""
    opset: int = Field(default=18, ge=7, le=26)
    """ONNX operator set version of the graph: 18 to 26 for dynamo, 9 to 20 for torchscript."""
    ir_version: int | None = Field(default=None, ge=3, le=13)
    """ONNX IR version of the file; by default the one that the exporter writes."""
    forward_kwargs: dict[str, Plain] = Field(default_factory=dict)
    """Constant keyword arguments of the model's forward (``kwargs``)."""
    keep_initializers_as_inputs: bool = False
    """List the weights among the graph's inputs, too."""
    export_params: bool = True
    """Must be true: a graph without its weights can be neither run nor proven."""
    verbose: bool | None = None
    """Let torch print what it does, on stderr."""
    optimize: bool | None = None
    """dynamo: run onnxscript's optimiser over the graph."""
    external_data: bool | None = None
    """dynamo: put the weights beside the graph; by default only above 1.5 GB."""
    custom_translations: Annotated[str, Field(pattern=PYTHON_NAME)] | None = None
    """dynamo: ``file.py:NAME`` of a dict for ``custom_translation_table``."""
    report: bool | None = None
    """dynamo: write a report of the export into the build's log folder."""
    verify: bool | None = None
    """dynamo: let torch compare the outputs as well; it only warns, parity decides."""
    profile: bool | None = None
    """dynamo: write a profile of the export into the build's log folder; needs pyinstrument."""
    dump_exported_program: bool | None = None
    """dynamo: write the ``ExportedProgram`` into the build's log folder."""
    do_constant_folding: bool | None = None
    """torchscript: fold constants."""
    training: Literal["eval", "preserve", "train"] | None = None
    """torchscript: the module's mode while it is exported."""
    operator_export_type: (
        Literal["onnx", "onnx_aten", "onnx_aten_fallback", "onnx_fallthrough"] | None
    ) = None
    """torchscript: what becomes of operators without an ONNX form."""
    custom_opsets: dict[str, int] | None = None
    """torchscript: versions of custom operator domains."""
    export_modules_as_functions: bool | None = None
    """torchscript: keep ``nn.Module`` classes as ONNX local functions."""
    autograd_inlining: bool | None = None
    """torchscript: inline autograd functions."""


class Target(Frozen):
    """One engine, device and precision to build for."""

    engine: str
    """The engine's name; ``auto`` builds all that are possible here and prefers the fastest."""
    device: Device | None = None
    """Where it runs; by default the engine's first device, and all of them for ``auto``."""
    precision: Precision | Literal["auto"] = "fp32"
    """The type it computes in; ``auto`` takes the first of int8, fp16, bf16 and fp32 that holds the
    accuracy budget and the tolerance."""
    name: Name | None = None
    """The variant's name; by default engine, device and precision."""
    quantize: Quantize = Quantize()
    """How ``precision: int8`` is made."""
    options: dict[str, Plain] = Field(default_factory=dict)
    """The engine's own options."""
    placement: Placement | None = None
    """Where processing runs; by default what the spec's own ``placement`` says."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that are meant: one, or for ``auto`` without ``device`` every one."""
        if self.device:
            return (self.device,)
        if self.engine == AUTO:
            return ("cpu", "cuda")
        language = engine_languages().get(self.engine)
        return (next(iter(language.devices)),) if language else ("cpu",)

    @property
    def variant(self) -> str:
        """The name of the built target: ``onnxruntime-cpu-fp32``, or ``name``."""
        first, *others = self.devices
        device = "any" if others else first
        return self.name or f"{self.engine}-{device}-{self.precision}"


class Accuracy(Frozen):
    """Accuracy over labelled samples, of PyTorch and of every variant."""

    labels: str
    """A CSV file with the columns ``file`` (relative to it) and ``class_index``."""
    metric: Literal["top1", "top5"] = "top1"
    """What is counted."""
    max_drop: float = Field(default=0.0, ge=0.0, le=1.0)
    """How much lower the variant's share may be than PyTorch's."""


class Verify(Frozen):
    """What the build proves, and how closely."""

    samples: tuple[str, ...] = ()
    """Files or globs relative to the spec; without any, seeded random tensors are used."""
    atol: float = Field(default=1e-3, ge=0.0)
    """Absolute tolerance of parity: ``|a - b| <= atol + rtol * |b|``."""
    rtol: float = Field(default=1e-3, ge=0.0)
    """Relative tolerance of parity."""
    seed: Seed = 0
    """Seed of the random tensors."""
    tolerance: Tolerances = Tolerances()
    """Tolerances of parity of the lower precisions."""
    accuracy: Accuracy | None = None
    """The accuracy budget."""
    max_nodes_off_device: int = Field(default=0, ge=0)
    """How many nodes may run elsewhere than on the target's device."""
    min_precision_share: float = Field(default=0.9, ge=0.0, le=1.0)
    """Which share of the computation must be in the precision that the target asks for."""

    @model_validator(mode="before")
    @classmethod
    def _one_sample(cls, value: object) -> object:
        return with_list(value, "samples")


class Slo(Frozen):
    """The service level that serving keeps."""

    p99_ms: float = Field(gt=0)
    """99 % of answers within this many milliseconds."""


class Replicas(Frozen):
    """Bounds of Ray Serve's autoscaling."""

    min: int = Field(default=1, ge=0)
    """At least so many; 0 stops the model while nobody asks."""
    max: int = Field(default=1, ge=1)
    """At most so many."""

    @model_validator(mode="after")
    def _check(self) -> Replicas:
        raise_faults(checks.replicas(self))
        return self


class Serving(Frozen):
    """How Ray Serve runs the artifact, unless ``deploy.yaml`` says otherwise."""

    slo: Slo | None = None
    """The service level objective."""
    replicas: Replicas = Replicas()
    """How many replicas."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs per replica; by default 1 for a cuda target and 0 otherwise."""


class Limits(Frozen):
    """What one request's item may be, checked before it is decoded."""

    frames: int = Field(default=1_000, ge=1)
    """Frames that an animation, or pages that a TIFF file, declares; the first one is used."""
    side: int = Field(default=20_000, ge=1, le=100_000)
    """Longer side of an image."""
    text: int = Field(default=100_000, ge=1)
    """Characters of a text."""
    seconds: int = Field(default=600, ge=1, le=86_400)
    """Length of a sound that its file declares."""
    bytes: int = Field(default=20_000_000, ge=1)
    """Size of an encoded item."""
    pixels: int = Field(default=50_000_000, ge=1, le=178_956_970)
    """Width times height that an image declares; above the largest value Pillow itself refuses."""


def image_side(limits: Limits) -> AxisRange:
    """Range of the height and the width of an image that the graph itself resizes."""
    return AxisRange(min=1, opt=min(512, limits.side), max=limits.side)


class Spec(Frozen):
    """A whole spec. ``specs.load_spec`` reads one from a file, with places for its errors."""

    version: Literal[1]
    """Version of the language."""
    name: Name
    """The model's name: the artifact's folder and the name it is served under."""
    description: str = ""
    """What the model is, for people."""
    model: AnySource
    """Where the model comes from."""
    weights: Weights | None = None
    """Where its weights come from; left out where the source holds them."""
    inputs: dict[DimName, TensorSpec] = Field(min_length=1)
    """The graph's inputs by name, in the order of the model's arguments."""
    outputs: dict[DimName, TensorSpec] = Field(min_length=1)
    """The graph's outputs by name, in the model's order."""
    dynamic_axes: dict[DimName, AxisRange] = Field(default_factory=dict)
    """The range of every named dimension; torch's own notation is accepted, too."""
    export: Export = Export()
    """How the graph is written."""
    preprocess: tuple[AnyOp, ...] = ()
    """Steps from a request's item to the model's input; none for plain tensors."""
    postprocess: tuple[AnyOp, ...] = ()
    """Steps from the model's outputs to the answer; none for plain tensors."""
    placement: Placement = "python"
    """Where processing runs: in generated Python, in the graph as far as ONNX can express it, or
    ``auto``: the faster one of those that give the same pixels."""
    targets: tuple[Target, ...] = (Target(engine="onnxruntime"),)
    """What to build, the preferred one first."""
    on_missing: Literal["refuse", "next"] = "refuse"
    """Where the preferred variant cannot run: refuse to load, or take the next, saying so."""
    calibration: Calibration | None = None
    """What int8 is calibrated with; by default ``verify.samples``."""
    verify: Verify = Verify()
    """What to prove."""
    serving: Serving = Serving()
    """How to serve."""
    limits: Limits = Limits()
    """Bounds of a request's item."""

    @field_validator("version", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic's raw input
        # Literal compares with ==, and 1 == True == 1.0.
        if value == 1 and type(value) is not int:
            raise ValueError(f"found {str(value).lower()}, expected the number 1")
        return value

    @model_validator(mode="before")
    @classmethod
    def _name_axes(cls, value: object) -> object:
        return name_axes(cast("dict[str, Any]", value)) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Spec:
        raise_faults(checks.spec(self))
        return self

    @property
    def batch(self) -> AxisRange:
        """Range of the batch, the first dimension of every input; min = max where it is fixed."""
        return self.axis(next(iter(self.inputs.values())).shape[0])

    def axis(self, dim: Dim) -> AxisRange:
        """Range of a dimension; a size stands for itself alone."""
        if isinstance(dim, int):
            return AxisRange(min=dim, opt=dim, max=dim)
        return self.dynamic_axes[dim]
