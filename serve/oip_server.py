"""The Open Inference Protocol v2 over models, as JSON values that REST and gRPC share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from serve import oip_cards
from serve.messages import Call, Reply
from serve.oip_cards import TENSORS
from serve.served import Models, Served, told
from specs.errors import InputError

__all__ = ["Found", "OipServer"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A model of the protocol."""

    model: Served
    tensors: bool
    """Whether it is the one that has the graph's own inputs and outputs."""


class OipServer:
    """Answers what the protocol asks, but for the inference itself.

    Every method that takes a model's name raises InputError ``unknown_model``, and ClosedError
    where the model's replica cannot be reached.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def find(self, name: str) -> Found:
        """The model of that name; ``<name>.tensors`` is the same, without its pipeline."""
        model = self._models.get(name)
        if model is None and name.endswith(TENSORS):
            return Found(self._models.find(name.removesuffix(TENSORS)), tensors=True)
        return Found(self._models.find(name), tensors=False)

    async def ready(self) -> bool:
        """Whether every model is."""
        return all(card["state"] == "ready" for card in await self._models.cards())

    async def model_ready(self, name: str, version: str) -> bool:
        """Whether that model is."""
        found = self.find(name)
        return (await self._card(found, version))["state"] == "ready"

    async def model_metadata(self, name: str, version: str) -> Json:
        """Names, datatypes and shapes of inputs and outputs."""
        found = self.find(name)
        return oip_cards.metadata(await self._card(found, version), tensors=found.tensors)

    async def config(self, name: str, version: str) -> Json:
        """What Triton's clients want to know besides."""
        found = self.find(name)
        return oip_cards.config(await self._card(found, version), tensors=found.tensors)

    async def statistics(self, name: str, version: str) -> Json:
        """Counts and times of one model, or of all where ``name`` is empty."""
        if name:
            return {"model_stats": [await self._stats(self.find(name), version)]}
        every = [Found(m, tensors) for m in self._models.all() for tensors in (False, True)]
        return {"model_stats": list(await asyncio.gather(*(self._stats(f, "") for f in every)))}

    async def _stats(self, found: Found, version: str) -> Json:
        card = await self._card(found, version)
        stats = await told(found.model, found.model.stats())
        return oip_cards.statistics(card, stats, tensors=found.tensors)

    async def index(self, *, ready: bool) -> list[Json]:
        """Every model and its state; with ``ready``, those that are."""
        return oip_cards.index(await self._models.cards(), ready=ready)

    async def infer(self, found: Found, version: str, call: Call) -> Reply:
        """The reply to a call of the kind ``infer``, whatever happens to it."""
        if version:
            await self._card(found, version)
        return await found.model.answer(call)

    async def _card(self, found: Found, version: str) -> Json:
        """The model's card, if it has that version."""
        card = await told(found.model, found.model.card())
        known = oip_cards.version_of(card)
        if version and version != known:
            message = f"there is no version '{version[:40]}' of '{found.model.name}'"
            raise InputError(message, hint=f"there is '{known}'", code="unknown_model")
        return card
