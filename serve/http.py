"""The HTTP surface, as an ASGI application over models. No Ray: a model may be here or far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serve.messages import Call, Reply, failure, json_reply
from specs.faults import nearest

__all__ = ["ROUTES", "Served", "http_app"]

ROUTES = ("GET /models", "POST /models/{name}/predict", "GET /healthz", "GET /readyz")
DISCARD_S = 5.0
"""How long the rest of a body that is too large is read, at most."""
STATE_TIMEOUT_S = 5.0
"""How long /models and /readyz wait for a model to say how it is."""


class Served(Protocol):
    """A model as this layer sees it."""

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


class _TooLargeError(Exception):
    pass


class _Routes:
    def __init__(self, models: Iterable[Served]) -> None:
        self._models = {model.name: model for model in models}

    async def predict(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        model = self._models.get(name)
        if model is None:
            message, hint = f"there is no model '{name}'", nearest(name, self._models)
            return _response(failure(404, "unknown_model", message, hint))
        try:
            body = await _body(request, model.limit)
        except _TooLargeError:
            return _response(_too_large(model.limit))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        headers = request.headers
        call = Call(body, headers.get("content-type", ""), headers.get("accept", ""))
        return _response(await model.answer(call))

    async def models(self, _: Request) -> Response:
        return _response(json_reply({"models": await self._cards()}))

    async def healthy(self, _: Request) -> Response:
        return _response(json_reply({"status": "ok"}))

    async def ready(self, _: Request) -> Response:
        states = {card["name"]: card["state"] for card in await self._cards()}
        ready = all(state == "ready" for state in states.values())
        status = "ready" if ready else "not ready"
        return _response(json_reply({"status": status, "models": states}, 200 if ready else 503))

    async def _cards(self) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*map(_card, self._models.values())))


def http_app(models: Iterable[Served]) -> Starlette:
    """The ASGI application that serves ``models``."""
    routes = _Routes(models)
    app = Starlette(
        routes=[
            Route("/models/{name}/predict", routes.predict, methods=["POST"]),
            Route("/models", routes.models, methods=["GET"]),
            Route("/healthz", routes.healthy, methods=["GET"]),
            Route("/readyz", routes.ready, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _refuse, Exception: _internal},
    )
    app.router.redirect_slashes = False  # a redirect would need the address clients see
    return app


async def _card(model: Served) -> dict[str, Any]:
    try:
        return await asyncio.wait_for(model.card(), STATE_TIMEOUT_S)
    except Exception:  # noqa: BLE001 - a model that cannot say how it is, is not ready
        return {"name": model.name, "state": "unavailable"}


async def _body(request: Request, limit: int) -> bytes:
    """The body, or _TooLargeError as soon as it is known to exceed the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _TooLargeError
    parts: list[bytes] = []
    size = 0
    stream = request.stream()
    async for part in stream:
        size += len(part)
        if size > limit:
            await _discard(stream, limit)
            raise _TooLargeError
        parts.append(part)
    return b"".join(parts)


async def _discard(stream: AsyncIterator[bytes], most: int) -> None:
    """Read on for a little and keep nothing: most clients look at the answer only once all is sent.

    A reply before that may meet a client that still writes, which then sees a broken connection in
    its place. One that has far more to send has to live with that.
    """
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_S):
            size = 0
            async for part in stream:
                size += len(part)
                if size > most:
                    return


def _too_large(limit: int) -> Reply:
    message = f"the body is larger than {limit} bytes"
    hint = "send less, or raise limits.bytes in the spec and build again"
    # Close: the rest of the body is still on its way, and nobody will read it.
    return failure(413, "too_large", message, hint, {"Connection": "close"})


async def _refuse(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in the form of all errors."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 405:  # noqa: PLR2004
        message = f"{request.method} is not for {request.url.path}"
        hint = f"use {headers.get('Allow', 'another method')}"
        return _response(failure(405, "wrong_method", message, hint, headers))
    message = f"there is nothing at {request.url.path}"
    return _response(failure(status, "unknown_route", message, f"known: {', '.join(ROUTES)}"))


async def _internal(_: Request, __: Exception) -> Response:
    message, hint = "the request could not be answered", "the server's log says more"
    return _response(failure(500, "internal", message, hint))


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers, reply.media_type)
