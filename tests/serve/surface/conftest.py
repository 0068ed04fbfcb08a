"""The surfaces on loopback, in a thread, without a cluster: what real clients are tried on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
import uvicorn
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve.grpc_util import RayServegRPCContext

from serve.guard import Keys
from serve.http import http_app
from serve.model import Model
from serve.oip_grpc import GrpcSurface, Raw, add_to_server

START_S = 30


@dataclass(frozen=True)
class Ports:
    """Where on 127.0.0.1."""

    http: int
    grpc: int


Serving = Callable[..., AbstractContextManager[Ports]]


@pytest.fixture(scope="session")
def serving() -> Serving:
    """A context: ``serving(make_model, keys, **options_of_http_app)`` gives the ports."""
    return _serving


@contextmanager
def _serving(
    make: Callable[[], Model], keys: tuple[str, ...] = (), **options: Any
) -> Generator[Ports]:
    """Serve the model that ``make`` makes, on ports that the system chooses.

    gRPC goes through the server class and the context that Ray's replicas use.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(START_S)

    model = run(_warm(make))
    server = uvicorn.Server(
        uvicorn.Config(http_app([model], Keys(keys), **options), port=0, log_level="error")
    )
    task = asyncio.run_coroutine_threadsafe(server.serve(), loop)
    grpc_server, grpc_port = run(_grpc(model, Keys(keys)))
    try:
        yield Ports(run(_port(server)), grpc_port)
    finally:
        server.should_exit = True
        task.result(START_S)
        run(grpc_server.stop(0))
        run(model.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)


async def _warm(make: Callable[[], Model]) -> Model:
    model = make()
    await model.warm_up()
    return model


async def _port(server: uvicorn.Server) -> int:
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    return int(server.servers[0].sockets[0].getsockname()[1])


async def _grpc(model: Model, keys: Keys) -> tuple[Any, int]:
    class Surface(GrpcSurface):
        def grpc_models(self) -> list[Model]:
            return [model]

        def grpc_keys(self) -> Keys:
            return keys

    surface = Surface()

    def factory(service_method: str, streaming_type: object) -> Any:  # noqa: ARG001 - Ray passes it by name
        name = service_method.rpartition("/")[2]

        async def handle(request: bytes, context: Any) -> bytes:
            ours = cast("Any", RayServegRPCContext(context))
            raw: Raw = await getattr(surface, name)(request, grpc_context=ours)
            ours._set_on_grpc_context(context)
            return raw.SerializeToString()

        return handle

    server = cast("Any", gRPCGenericServer)(factory)
    port: int = server.add_insecure_port("127.0.0.1:0")
    add_to_server(None, server)
    await server.start()
    return server, port
