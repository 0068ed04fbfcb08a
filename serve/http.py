"""The HTTP surface, as an ASGI application over models. No Ray: a model may be here or far."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve import reading
from serve.guard import Guard, Keys, mark
from serve.messages import Call, Reply, error_reply, failure, json_reply
from serve.oip_http import oip_routes
from serve.openapi import openapi
from serve.pages import page_routes
from serve.replies import plain, response
from serve.served import Models, Served, told
from specs.errors import DeploycError

__all__ = ["ROUTES", "Served", "http_app"]

ROUTES = (
    "GET /",
    "GET /models",
    "POST /models/{name}/predict",
    "GET /models/{name}/decisions",
    "GET /models/{name}/stats",
    "GET /healthz",
    "GET /readyz",
    "GET /openapi.json",
    "GET /v2",
)


class _Routes:
    def __init__(self, models: Models, body_s: float) -> None:
        self._models = models
        self._body_s = body_s

    async def predict(self, request: Request) -> Response:
        model = self._models.find(request.path_params["name"])
        call = Call(
            body=await reading.read_body(request, model.limit, self._body_s),
            content_type=request.headers.get("content-type", ""),
            accept=request.headers.get("accept", ""),
            timeout_s=reading.timeout_s(request.headers),
            priority=reading.priority(request.headers),
            request_id=request.state.request_id,
            waited_s=request.state.waited_s,
            traceparent=request.headers.get("traceparent", ""),
            tracestate=request.headers.get("tracestate", ""),
        )
        return response(await model.answer(call))

    async def models(self, _: Request) -> Response:
        return response(json_reply({"models": await self._models.cards()}))

    async def decisions(self, request: Request) -> Response:
        model = self._models.find(request.path_params["name"])
        found = await told(model, model.decisions())
        return response(json_reply({"model": model.name, "decisions": found}))

    async def stats(self, request: Request) -> Response:
        model = self._models.find(request.path_params["name"])
        found = await told(model, model.stats())
        return response(json_reply({"model": model.name, "stats": found}))

    async def healthy(self, _: Request) -> Response:
        return response(json_reply({"status": "ok"}))

    async def ready(self, _: Request) -> Response:
        states = {card["name"]: card["state"] for card in await self._models.cards()}
        ready = all(state == "ready" for state in states.values())
        status = "ready" if ready else "not ready"
        return response(json_reply({"status": status, "models": states}, 200 if ready else 503))

    async def described(self, request: Request) -> Response:
        prefix = str(request.scope.get("root_path", ""))
        return response(json_reply(openapi(await self._models.cards(), prefix)))


def http_app(
    models: Iterable[Served],
    keys: Keys | None = None,
    *,
    body_s: float = reading.BODY_S,
    echo_id: bool = True,
) -> Starlette:
    """The ASGI application that serves ``models``.

    Args:
        models: what is served.
        keys: the API keys that let a request in; by default those of the environment.
        body_s: how long a request's body may take to arrive, seconds.
        echo_id: whether to send ``x-request-id`` back; Ray Serve does that itself.

    Raises:
        ServeError: ``api_keys``, where the environment's cannot be used.
    """
    served = Models(models)
    known = Keys.from_environment() if keys is None else keys
    routes = _Routes(served, body_s)
    app = Starlette(
        routes=[
            Route("/models/{name}/predict", routes.predict, methods=["POST"]),
            Route("/models/{name}/decisions", routes.decisions, methods=["GET"]),
            Route("/models/{name}/stats", routes.stats, methods=["GET"]),
            Route("/models", routes.models, methods=["GET"]),
            Route("/healthz", routes.healthy, methods=["GET"]),
            Route("/readyz", routes.ready, methods=["GET"]),
            Route("/openapi.json", routes.described, methods=["GET"]),
            *oip_routes(served, body_s),
            *page_routes(),
        ],
        middleware=[Middleware(Guard, known, echo_id=echo_id)],
        exception_handlers={
            HTTPException: _refuse,
            DeploycError: _known,
            reading.RefusedError: _unread,
            Exception: _internal,
        },
    )
    app.router.redirect_slashes = False  # a redirect would need the address clients see
    return app


async def _known(request: Request, error: Exception) -> Response:
    """What was raised on purpose has its reply."""
    return _said(request, error_reply(error))


async def _unread(request: Request, error: Exception) -> Response:
    """A body that was not read to its end."""
    assert isinstance(error, reading.RefusedError)  # noqa: S101 - Starlette chose by its type
    return _said(request, error.reply)


async def _refuse(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in the form of all errors."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 405:  # noqa: PLR2004
        message = f"{request.method} is not for {request.url.path}"
        hint = f"use {headers.get('Allow', 'another method')}"
        return _said(request, failure(405, "wrong_method", message, hint, headers))
    message = f"there is nothing at {request.url.path}"
    return _said(request, failure(status, "unknown_route", message, f"known: {', '.join(ROUTES)}"))


async def _internal(request: Request, _: Exception) -> Response:
    message, hint = "the request could not be answered", "the server's log says more"
    answer = _said(request, failure(500, "internal", message, hint))
    mark(answer.headers)  # it is made outside of the guard
    return answer


def _said(request: Request, reply: Reply) -> Response:
    return response(plain(request.scope, reply))
