"""The Open Inference Protocol v2 as gRPC, through Ray Serve's own gRPC ingress.

Ray adds a service to its servers by a function (``grpc_servicer_functions``), and calls the
deployment's method of the same name. Requests stay bytes until they are where the model is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from typing import Any, Protocol, cast

import grpc

from serve.guard import Keys, request_id, unauthorized
from serve.messages import Call, Reply, error_reply
from serve.oip import GRPC
from serve.oip_cards import server_metadata
from serve.oip_messages import SERVICE, build, method_names, parse
from serve.oip_server import OipServer
from serve.reading import priority, timeout_s, too_large
from serve.replies import text_of
from serve.served import Models, Served
from specs.errors import DeploycError

__all__ = ["CODES", "LISTEN", "GrpcSurface", "add_to_server", "listen_narrowly"]

_LOG = logging.getLogger("ray.serve")

LISTEN = "DEPLOYC_GRPC_LISTEN"
"""The address on which Ray's gRPC servers listen; Ray itself takes every address."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""gRPC's status by HTTP's; any other is INTERNAL."""
_OPEN = frozenset({"ServerLive", "ServerReady"})
"""Methods that need no key."""


class Context(Protocol):
    """What is used of Ray's ``RayServegRPCContext``, and of gRPC's own context."""

    def invocation_metadata(self) -> Iterable[tuple[str, Any]]: ...
    def set_code(self, code: grpc.StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...


class Raw:
    """A message that is serialised already; Ray asks each response for its bytes."""

    def __init__(self, raw: bytes = b"") -> None:
        self._raw = raw

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes."""
        return self._raw


Handler = Callable[["GrpcSurface", bytes, "Context"], Coroutine[Any, Any, Raw]]
Answer = Callable[[OipServer, bytes], Coroutine[Any, Any, bytes]]


def add_to_server(_: object, server: Any) -> None:  # noqa: ANN401 - a server of gRPC
    """Add the service to a server of Ray's, which puts its own way to the deployment below.

    Args:
        server: its ``add_generic_rpc_handlers`` is called.
    """
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(_never, request_deserializer=bytes)
        for name in method_names()
    }
    handlers = grpc.method_handlers_generic_handler(SERVICE, methods)
    server.add_generic_rpc_handlers((handlers,))


def _never(_: object, __: object) -> None:
    raise NotImplementedError  # Ray replaces it


def listen_narrowly() -> list[object]:
    """Make Ray's gRPC servers in this process listen on ``DEPLOYC_GRPC_LISTEN`` alone.

    Ray opens gRPC on every address, whatever the host, and has no setting for it. What
    ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names is called in each process that will open a
    port, before it does; this is made for that, and adds no middleware.
    """
    host = os.environ.get(LISTEN, "")
    if host:
        from ray.serve._private import default_impl

        def add_address(server: Any, address: str) -> None:  # noqa: ANN401 - a server of gRPC
            port = address.rpartition(":")[2]
            server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

        cast("Any", default_impl).add_grpc_address = add_address
    return []


def _told(answer: Answer, name: str) -> Handler:
    """A method that needs no model to compute; errors become gRPC's."""

    async def handler(self: GrpcSurface, request: bytes, grpc_context: Context) -> Raw:
        server, keys = self.grpc
        if name not in _OPEN and not keys.allow(_headers(grpc_context)):
            return _refuse(grpc_context, unauthorized())
        try:
            return Raw(await answer(server, request))
        except Exception as error:  # noqa: BLE001 - the boundary: every error has its status
            if not isinstance(error, DeploycError):
                _LOG.exception("gRPC %s failed", name)
            return _refuse(grpc_context, error_reply(error))

    handler.__name__ = name
    return handler


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def _refuse(context: Context, reply: Reply) -> Raw:
    context.set_code(CODES.get(reply.status, grpc.StatusCode.INTERNAL))
    context.set_details(text_of(reply))
    return Raw()


async def _server_live(_: OipServer, __: bytes) -> bytes:
    return build("ServerLiveResponse", {"live": True})


async def _server_ready(server: OipServer, _: bytes) -> bytes:
    return build("ServerReadyResponse", {"ready": await server.ready()})


async def _server_metadata(_: OipServer, __: bytes) -> bytes:
    return build("ServerMetadataResponse", server_metadata())


async def _model_ready(server: OipServer, raw: bytes) -> bytes:
    asked = parse("ModelReadyRequest", raw)
    ready = await server.model_ready(asked.name, asked.version)
    return build("ModelReadyResponse", {"ready": ready})


async def _model_metadata(server: OipServer, raw: bytes) -> bytes:
    asked = parse("ModelMetadataRequest", raw)
    found = await server.model_metadata(asked.name, asked.version)
    return build("ModelMetadataResponse", found)


async def _model_config(server: OipServer, raw: bytes) -> bytes:
    asked = parse("ModelConfigRequest", raw)
    config = await server.config(asked.name, asked.version)
    return build("ModelConfigResponse", {"config": config})


async def _model_statistics(server: OipServer, raw: bytes) -> bytes:
    asked = parse("ModelStatisticsRequest", raw)
    found = await server.statistics(asked.name, asked.version)
    return build("ModelStatisticsResponse", found)


async def _repository_index(server: OipServer, raw: bytes) -> bytes:
    asked = parse("RepositoryIndexRequest", raw)
    return build("RepositoryIndexResponse", {"models": await server.index(ready=asked.ready)})


async def _infer(server: OipServer, request: bytes, headers: Mapping[str, str]) -> Reply:
    # Two short fields of what may be megabytes: protobuf keeps the rest unread.
    asked = parse("ModelReadyRequest", request)
    found = server.find(asked.name)
    if len(request) > found.model.limit:
        return too_large(found.model.limit)
    call = Call(
        body=request,
        content_type=GRPC,
        timeout_s=timeout_s(headers),
        priority=priority(headers),
        request_id=request_id(headers),
        traceparent=headers.get("traceparent", ""),
        tracestate=headers.get("tracestate", ""),
        kind="infer",
        tensors=found.tensors,
    )
    return await server.infer(found, asked.version, call)


class GrpcSurface:
    """The service's methods, for a deployment to inherit.

    Each takes the request's bytes and Ray's context, on which it sets the status.
    """

    def grpc_models(self) -> Iterable[Served]:
        """What is served; asked once, before the first request is answered."""
        raise NotImplementedError

    def grpc_keys(self) -> Keys:
        """The API keys that let a request in; ServeError where they cannot be used."""
        return Keys.from_environment()

    @cached_property
    def grpc(self) -> tuple[OipServer, Keys]:
        """What the methods below answer with."""
        return OipServer(Models(self.grpc_models())), self.grpc_keys()

    ServerLive = _told(_server_live, "ServerLive")
    ServerReady = _told(_server_ready, "ServerReady")
    ServerMetadata = _told(_server_metadata, "ServerMetadata")
    ModelReady = _told(_model_ready, "ModelReady")
    ModelMetadata = _told(_model_metadata, "ModelMetadata")
    ModelConfig = _told(_model_config, "ModelConfig")
    ModelStatistics = _told(_model_statistics, "ModelStatistics")
    RepositoryIndex = _told(_repository_index, "RepositoryIndex")

    async def ModelInfer(self, request: bytes, grpc_context: Context) -> Raw:  # noqa: N802 - the protocol's
        """Inference; the request is read where the model is."""
        server, keys = self.grpc
        headers = _headers(grpc_context)
        if not keys.allow(headers):
            return _refuse(grpc_context, unauthorized())
        try:
            reply = await _infer(server, request, headers)
        except DeploycError as error:
            reply = error_reply(error)
        return Raw(reply.body) if reply.status == 200 else _refuse(grpc_context, reply)  # noqa: PLR2004
