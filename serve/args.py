"""The arguments of ``serve.app:build``, as they stand under ``args`` in ``deploy.yaml``."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from specs.base import Frozen
from specs.errors import ServeError
from specs.faults import nearest
from specs.schema import Name, Replicas, Sha256

__all__ = ["AppArgs", "ModelArgs", "known_keys", "model_inside"]


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
    threads: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Threads for pre- and post-processing; by default one per core, at most 4."""


class AppArgs(Frozen):
    """All of them."""

    models: tuple[ModelArgs, ...] = Field(min_length=1)

    @classmethod
    def parse(cls, raw: object) -> Self:
        """``raw`` validated; ServeError, with the nearest known name, where it does not fit."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            # A misspelt key comes first: the one that it should be is missing because of it.
            first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
            path = ".".join(str(part) for part in first["loc"])
            hint = ""
            if first["type"] == "extra_forbidden":
                hint = nearest(str(first["loc"][-1]), known_keys(cls, first["loc"][:-1]))
            message = f"args of serve.app:build: {path}: {first['msg']}"
            raise ServeError(message, hint=hint, code="serve_args") from error


def known_keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that lies at ``path`` inside ``model``."""
    here = model
    for part in path:
        if isinstance(part, str) and part in here.model_fields:
            here = model_inside(here.model_fields[part].annotation) or here
    return list(here.model_fields)


def model_inside(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any annotation
    """The pydantic model in an annotation: ``M``, ``M | None``, ``list[M]``, ``tuple[M, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {Union, types.UnionType, list, tuple, Annotated}:
        found = (model_inside(inner) for inner in get_args(annotation))
        return next((model for model in found if model is not None), None)
    return None
