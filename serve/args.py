"""The arguments of ``serve.app:build``, as they stand under ``args`` in ``deploy.yaml``."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from specs.base import Frozen
from specs.errors import ServeError
from specs.faults import nearest
from specs.schema import Name, Replicas, Sha256

__all__ = [
    "GATE",
    "AppArgs",
    "CanaryArgs",
    "HotArgs",
    "HotGate",
    "HotSplit",
    "ModelArgs",
    "ParityGate",
    "ShadowArgs",
    "SplitGate",
    "WhenSlow",
    "known_keys",
    "model_inside",
]

M = TypeVar("M", bound=BaseModel)
WhenSlow = Literal["warn", "refuse"]

GATE = "ingress"
"""The deployment that takes HTTP for several models, or for two artifacts of one."""


class ParityGate(Frozen):
    """How far the answers of the two artifacts may lie apart."""

    by: Literal["values", "top"] = "values"
    """``values``: every number within the tolerance. ``top``: the best class is the same."""
    atol: float = Field(default=1e-3, ge=0, allow_inf_nan=False)
    """Numbers agree within ``atol + rtol * |stable|``."""
    rtol: float = Field(default=1e-2, ge=0, allow_inf_nan=False)
    """As ``atol``."""
    max_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of requests whose answers may disagree."""

    @model_validator(mode="after")
    def _some_tolerance(self) -> Self:
        if not self.atol + self.rtol:
            raise ValueError("atol and rtol are both 0: nothing would agree; set one of them")
        return self


class SplitGate(Frozen):
    """What rolls a new artifact back. Every figure is held against the stable one's."""

    max_error_rate: float | None = Field(default=0.01, ge=0, lt=1)
    """Share of requests that may fail (429, or 5xx) beyond those that fail on the stable one;
    null: not judged."""
    max_latency_ratio: float | None = Field(default=1.5, ge=1, allow_inf_nan=False)
    """``latency_quantile`` of the new one's times over the stable one's; null: not judged."""
    latency_quantile: float = Field(default=0.9, ge=0.5, le=0.99)
    """Which quantile. Of fewer requests the median tells sooner."""
    parity: ParityGate | None = None
    """Of the requests that go to both; null: not judged."""
    min_requests: Annotated[int, Field(ge=5, strict=True)] = 20
    """Requests of the new artifact from one judgement to the next."""
    window_s: float = Field(default=300, gt=0, allow_inf_nan=False)
    """Seconds after which a request no longer counts."""


class _Other(Frozen):
    """The second artifact of a split; what is not set is as for the first."""

    artifact: str = Field(min_length=1)
    """The new artifact's folder."""
    digest: Sha256 | None = None
    """As ``ModelArgs.digest``."""
    variant: str | None = None
    """As ``ModelArgs.variant``."""
    replicas: Annotated[int, Field(ge=1, strict=True)] | Replicas | None = None
    """As ``ModelArgs.replicas``."""
    gate: SplitGate = SplitGate()
    """When to roll back."""


class CanaryArgs(_Other):
    """A new artifact that answers some of the requests."""

    weight: float = Field(ge=0, le=1)
    """Share of the requests that the new artifact answers."""
    sample: float = Field(default=0, ge=0, le=1)
    """Share of the requests that go to the other artifact, too, to compare the answers."""

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if self.gate.parity and not self.sample:
            raise ValueError("gate.parity has nothing to compare: set sample, as 0.1")
        return self


class ShadowArgs(_Other):
    """A new artifact that answers nobody and is compared."""

    sample: float = Field(default=0.1, ge=0, le=1)
    """Share of the requests that the new artifact gets, too."""


class HotSplit(Frozen):
    """The shares of one split, changed while it runs; what is left out is as in ``args``."""

    weight: float | None = Field(default=None, ge=0, le=1)
    """As ``CanaryArgs.weight``."""
    sample: float | None = Field(default=None, ge=0, le=1)
    """As ``CanaryArgs.sample``."""


class HotGate(Frozen):
    """The ``user_config`` of the deployment ``ingress``."""

    splits: dict[Name, HotSplit] = Field(default_factory=dict[str, HotSplit])
    """By the model's name."""

    @classmethod
    def parse(cls, raw: object) -> Self:
        """``raw`` validated; ServeError, with the nearest known name, where it does not fit."""
        return _parse(cls, raw, "user_config")


class ModelArgs(Frozen):
    """One artifact and how it is served."""

    artifact: str = Field(min_length=1)
    """The artifact's folder. `deployc serve` makes it absolute, from the folder of deploy.yaml."""
    name: Name | None = None
    """The name in the URL; by default the spec's."""
    digest: Sha256 | None = None
    """SHA-256 of the artifact's manifest.json; `deployc serve` fills it in. Another artifact than
    this one is refused, and a rebuilt one is a change that Ray Serve deploys."""
    variant: str | None = None
    """The variant to run; by default the spec's first target."""
    replicas: Annotated[int, Field(ge=1, strict=True)] | Replicas | None = None
    """A number, or {min, max} for autoscaling; by default the spec's."""
    max_batch: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Most items in a batch; by default, and at most, the artifact's."""
    max_ongoing_requests: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Items that one replica holds at once, waiting or running; more are answered with 429."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs per replica; by default the spec's, else 1 for a cuda variant and 0 for others."""
    cpus: float = Field(default=0, ge=0)
    """CPUs that Ray reserves per replica. 0 lets several models share a small machine; set it on a
    cluster whose nodes should be counted."""
    slo_ms: Annotated[float, Field(gt=0)] | None = None
    """99 % of answers within so many milliseconds; by default the spec's ``serving.slo``. From it
    and the profile the limits above are derived."""
    threads: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Threads for pre- and post-processing; by default one per core, at most 4."""
    when_slow: WhenSlow = "warn"
    """A replica whose times stay 1.5 times above the profile's: ``warn`` serves with a warning,
    ``refuse`` does not start (``too_slow``)."""
    canary: CanaryArgs | None = None
    """A second artifact that answers a share of the requests (``serve.split``)."""
    shadow: ShadowArgs | None = None
    """A second artifact that is asked, too, and whose answers are compared, not sent."""

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if self.canary and self.shadow:
            raise ValueError("a model has a canary or a shadow, not both")
        return self

    @property
    def other(self) -> CanaryArgs | ShadowArgs | None:
        """The second artifact, if there is one."""
        return self.canary or self.shadow


class HotArgs(Frozen):
    """A deployment's ``user_config``: what Ray Serve changes without a restart."""

    slo_ms: Annotated[float, Field(gt=0)] | None = None
    """As ``ModelArgs.slo_ms``, and stronger."""
    max_items: Annotated[int, Field(ge=2, strict=True)] | None = None
    """Items that one replica holds, waiting or running."""

    @classmethod
    def parse(cls, raw: object) -> Self:
        """``raw`` validated; ServeError, with the nearest known name, where it does not fit."""
        return _parse(cls, raw, "user_config")


class AppArgs(Frozen):
    """All of them."""

    models: tuple[ModelArgs, ...] = Field(min_length=1)
    gate: bool = False
    """Whether one model alone is served behind the gate, too, so that others may join it later."""
    protected: bool = False
    """Whether API keys are meant: a replica that finds none where it runs does not start.
    `deployc serve` fills it in where it has keys itself."""

    @classmethod
    def parse(cls, raw: object) -> Self:
        """``raw`` validated; ServeError, with the nearest known name, where it does not fit."""
        return _parse(cls, raw, "args of serve.app:build")


def _parse(model: type[M], raw: object, name: str) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        # A misspelt key comes first: the one that it should be is missing because of it.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        path = ".".join(str(part) for part in first["loc"])
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = nearest(str(first["loc"][-1]), known_keys(model, first["loc"][:-1]))
        place = f"{name}: {path}" if path else name
        said = first["msg"].removeprefix("Value error, ")
        raise ServeError(f"{place}: {said}", hint=hint, code="serve_args") from error


def known_keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that lies at ``path`` inside ``model``."""
    here = model
    for part in path:
        if isinstance(part, str) and part in here.model_fields:
            here = model_inside(here.model_fields[part].annotation) or here
    return list(here.model_fields)


def model_inside(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any annotation
    """The pydantic model in an annotation: ``M``, ``M | None``, ``list[M]``, ``dict[str, M]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {Union, types.UnionType, list, tuple, dict, Annotated}:
        found = (model_inside(inner) for inner in get_args(annotation))
        return next((model for model in found if model is not None), None)
    return None
