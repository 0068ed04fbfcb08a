"""The Open Inference Protocol v2 as REST, with the binary tensor extension."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.arrays import read_json
from serve import reading
from serve.messages import Call, Reply, json_reply
from serve.oip_cards import server_metadata
from serve.oip_json import HEADER_LENGTH
from serve.oip_parameters import switch
from serve.oip_server import OipServer
from serve.replies import PROTOCOL, plain, response
from serve.served import Models
from specs.errors import InputError

__all__ = ["oip_routes"]

INDEX_LIMIT = 10_000
"""Bytes of a request for the index."""
Told = Callable[[str, str], Awaitable[Any]]


def oip_routes(models: Models, body_s: float) -> list[Route]:
    """The protocol's routes.

    Args:
        models: what is served.
        body_s: how long a body may take to arrive, seconds.
    """
    rest = _Rest(OipServer(models), body_s)
    model = f"{PROTOCOL}/models/{{name}}"
    return [
        Route(PROTOCOL, rest.metadata, methods=["GET"]),
        Route(f"{PROTOCOL}/health/live", rest.live, methods=["GET"]),
        Route(f"{PROTOCOL}/health/ready", rest.ready, methods=["GET"]),
        Route(f"{PROTOCOL}/repository/index", rest.index, methods=["POST"]),
        Route(f"{PROTOCOL}/models/stats", rest.statistics, methods=["GET"]),
        *(
            Route(prefix + path, endpoint, methods=[method])
            for prefix in (model, f"{model}/versions/{{version}}")
            for method, path, endpoint in rest.of_model()
        ),
    ]


Endpoint = Callable[[Request], Awaitable[Response]]


class _Rest:
    def __init__(self, server: OipServer, body_s: float) -> None:
        self._server = server
        self._body_s = body_s

    def of_model(self) -> list[tuple[str, str, Endpoint]]:
        """What there is below a model, and below a version of it."""
        return [
            ("GET", "", self._told(self._server.model_metadata)),
            ("GET", "/ready", self._model_ready),
            ("GET", "/config", self._told(self._server.config)),
            ("GET", "/stats", self._told(self._server.statistics)),
            ("POST", "/infer", self._infer),
        ]

    async def metadata(self, _: Request) -> Response:
        return _json(server_metadata())

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        ready = await self._server.ready()
        return _json({"ready": ready}, 200 if ready else 503)

    async def index(self, request: Request) -> Response:
        body = await reading.read_body(request, INDEX_LIMIT, self._body_s)
        asked = read_json(body if body.strip() else b"{}")
        if not isinstance(asked, dict):
            raise InputError("the body is no object", hint='{"ready": true}', code="bad_request")
        ready = switch(cast("dict[str, Any]", asked), "ready") or False
        return _json(await self._server.index(ready=ready))

    async def statistics(self, _: Request) -> Response:
        return _json(await self._server.statistics("", ""))

    def _told(self, tell: Told) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return _json(await tell(*_model(request)))

        return endpoint

    async def _model_ready(self, request: Request) -> Response:
        name, version = _model(request)
        ready = await self._server.model_ready(name, version)
        return _json({"name": name, "ready": ready}, 200 if ready else 503)

    async def _infer(self, request: Request) -> Response:
        name, version = _model(request)
        found = self._server.find(name)
        call = Call(
            body=await reading.read_body(request, found.model.limit, self._body_s),
            content_type=request.headers.get("content-type", ""),
            timeout_s=reading.timeout_s(request.headers),
            priority=reading.priority(request.headers),
            request_id=request.state.request_id,
            waited_s=request.state.waited_s,
            traceparent=request.headers.get("traceparent", ""),
            tracestate=request.headers.get("tracestate", ""),
            kind="infer",
            tensors=found.tensors,
            header_length=_header_length(request),
        )
        reply: Reply = await self._server.infer(found, version, call)
        return response(plain(request.scope, reply))


def _model(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


def _header_length(request: Request) -> int | None:
    """How long the JSON before the tensors is; InputError ``bad_parameter``."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < len(str(2**63))):
        hint = "the length of the JSON in bytes"
        raise InputError(f"{HEADER_LENGTH} is no length", hint=hint, code="bad_parameter")
    return int(text)


def _json(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - any JSON value
    return response(json_reply(value, status))
