"""The Ray Serve deployments: a model, a model that speaks HTTP itself, and an HTTP gate to many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from ray import serve
from ray.serve import metrics
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

import runtime
from serve.artifacts import check_digest
from serve.http import http_app
from serve.messages import Call, Reply, failure
from serve.model import Model, Options

__all__ = ["Gate", "ModelIngress", "ModelReplica", "Settings"]

T = TypeVar("T")


def _speaks_http(kind: type[T]) -> type[T]:
    """Ray's decorator, which is untyped; the ASGI application is built in the replica."""
    decorate = cast("Callable[[type[T]], type[T]]", cast("Any", serve).ingress())
    return decorate(kind)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a replica needs to load its model."""

    artifact: str
    digest: str
    variant: str | None
    """A variant's name; None for the preferred one, under the spec's ``on_missing``."""
    options: Options


class ModelReplica:
    """One model, called through a handle. Ready only when it is loaded and warm."""

    async def __init__(self, settings: Settings) -> None:
        self.model: Model = await asyncio.to_thread(_load, settings)
        tags = self.model.variant_in_use()
        self._in_use = metrics.Gauge(
            "deployc_variant_in_use",
            description="1 for the variant that answers; passed_over names those that cannot.",
            tag_keys=cast("Any", tuple(tags)),  # Ray's annotation allows one key alone
        )
        self._in_use.set(1, tags)
        await self.model.warm_up()

    async def answer(self, call: Call) -> Reply:
        """The reply to one call."""
        return await self.model.answer(call)

    async def card(self) -> dict[str, Any]:
        """The model's entry in ``GET /models``."""
        return await self.model.card()

    async def __del__(self) -> None:
        if hasattr(self, "model"):  # __init__ may have failed
            await self.model.close()


@_speaks_http
class ModelIngress(ModelReplica):
    """The only model of an application: its replicas speak HTTP, which saves a hop."""

    def __serve_build_asgi_app__(self) -> Starlette:
        return http_app([self.model])


@_speaks_http
class Gate:
    """Speaks HTTP for several models and passes calls on to their replicas.

    Args:
        limits: most bytes of a request's body, by model.
        handles: the models' handles, in the same order.
    """

    def __init__(self, limits: dict[str, int], *handles: DeploymentHandle[Any]) -> None:
        pairs = zip(limits.items(), handles, strict=True)
        self._models = [_Far(name, limit, handle) for (name, limit), handle in pairs]

    def __serve_build_asgi_app__(self) -> Starlette:
        return http_app(self._models)


@dataclass(frozen=True, slots=True)
class _Far:
    """A model in another process."""

    name: str
    limit: int
    handle: Any
    """A DeploymentHandle; its methods come into being when they are called."""

    async def card(self) -> dict[str, Any]:
        return await self.handle.card.remote()

    async def answer(self, call: Call) -> Reply:
        try:
            return await self.handle.answer.remote(call)
        except Exception:  # noqa: BLE001 - the replica itself always replies: it was lost
            message, hint = f"the replica of '{self.name}' was lost", "try again in a second"
            return failure(503, "replica_lost", message, hint, {"Retry-After": "1"})


def _load(settings: Settings) -> Model:
    check_digest(Path(settings.artifact), settings.digest)
    return Model(runtime.load(settings.artifact, settings.variant), settings.options)
