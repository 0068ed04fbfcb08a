"""The models behind the HTTP and gRPC surfaces, in this process or in another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol, TypeVar, cast

from serve.batching import ClosedError
from serve.messages import Call, Reply
from specs.errors import DeploycError, InputError
from specs.faults import nearest

__all__ = ["STATE_TIMEOUT_S", "Models", "Served", "told"]

T = TypeVar("T")
Told = T | Awaitable[T]
"""At once where the model is in this process, else when its own has answered."""

STATE_TIMEOUT_S = 5.0
"""How long a model may take to say how it is."""


class Served(Protocol):
    """A model as the surfaces see it."""

    @property
    def name(self) -> str:
        """Its name in the URL."""
        ...

    @property
    def limit(self) -> int:
        """Most bytes in the body of a request."""
        ...

    async def card(self) -> dict[str, Any]:
        """Its entry in ``GET /models``; the key ``state`` is ``ready`` once it is warm."""
        ...

    async def answer(self, call: Call) -> Reply:
        """The reply to a call, whatever happens."""
        ...

    def decisions(self) -> Told[list[dict[str, Any]]]:
        """The last decisions of its queue, the newest first."""
        ...

    def stats(self) -> Told[dict[str, Any]]:
        """``serve.stats.Stats.to_json``."""
        ...


class Models:
    """Models by name."""

    def __init__(self, models: Iterable[Served]) -> None:
        self._models = {model.name: model for model in models}

    def find(self, name: str) -> Served:
        """The model of that name; InputError ``unknown_model``."""
        model = self.get(name)
        if model is None:
            message, hint = f"there is no model '{name}'", nearest(name, self._models)
            raise InputError(message, hint=hint, code="unknown_model")
        return model

    def get(self, name: str) -> Served | None:
        """The model of that name, if there is one."""
        return self._models.get(name)

    def all(self) -> list[Served]:
        """Every model, in order."""
        return list(self._models.values())

    async def cards(self) -> list[dict[str, Any]]:
        """Every model's card; one that cannot be reached says that it is unavailable."""
        return list(await asyncio.gather(*map(_card, self._models.values())))


async def _card(model: Served) -> dict[str, Any]:
    try:
        return await asyncio.wait_for(model.card(), STATE_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - a model that cannot say how it is, is not ready
        return {"name": model.name, "state": "unavailable"}


async def told(model: Served, answer: Told[T]) -> T:
    """What a model tells of itself; ClosedError ``replica_lost`` where it cannot be reached."""
    if not isinstance(answer, Awaitable):
        return answer
    try:
        return await asyncio.wait_for(cast("Awaitable[T]", answer), STATE_TIMEOUT_S)
    except DeploycError:
        raise
    except Exception as error:
        message, hint = f"the replica of '{model.name}' was lost", "try again in a second"
        raise ClosedError(message, hint=hint, code="replica_lost") from error
