"""Plain Ray Serve with ``serve.batch``, behind HAProxy and with the settings of `deployc serve`.

``POST /{model}/`` answers; ``POST /{model}/tune`` takes ``max_batch_size``,
``batch_wait_timeout_s`` and ``threaded`` while it runs. Whether the engine blocks the event loop
(what most examples do) or runs in a thread is one of the knobs: each wins somewhere.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

from pipeline import Model, Pipeline, models
from ray_run import run
from starlette.requests import Request
from starlette.responses import JSONResponse

TUNE = "/tune"


def build(args: dict[str, Any]) -> Any:  # noqa: ANN401 - Ray's Application
    """One model's application; Ray imports it by this name."""
    from ray import serve

    batch = cast("Any", serve).batch

    class Plain:
        def __init__(self, model: Model) -> None:
            self._pipeline = Pipeline(model)
            self._threaded = False

        @batch(max_batch_size=args["max_batch"], batch_wait_timeout_s=0.0)
        async def batched(self, bodies: list[bytes]) -> list[Any]:
            if self._threaded:
                return await asyncio.to_thread(self._pipeline.answer, bodies)
            return self._pipeline.answer(bodies)

        async def __call__(self, request: Request) -> JSONResponse:
            body = await request.body()
            if request.url.path.endswith(TUNE):
                return self._tune(json.loads(body))
            return JSONResponse(await self.batched(body))

        def _tune(self, knobs: dict[str, Any]) -> JSONResponse:
            self.batched.set_max_batch_size(knobs["max_batch_size"])
            self.batched.set_batch_wait_timeout_s(knobs["batch_wait_timeout_s"])
            self._threaded = knobs["threaded"]
            return JSONResponse({"tuned": knobs})

    model = Model(**args)
    options = {
        "name": model.name,
        # A request counts as queued until it has a slot, so that a blocked loop needs room for all
        # that arrive meanwhile; both together are what can be answered within the SLO.
        "max_ongoing_requests": max(model.max_batch, model.held // 2),
        "max_queued_requests": max(model.max_batch, model.held // 2),
        "ray_actor_options": {"num_cpus": 0},
    }
    return cast("Any", serve).deployment(Plain).options(**options).bind(model)


def config(port: int) -> dict[str, Any]:
    """Ray Serve's config: an application for each model."""
    from dataclasses import asdict

    applications = [
        {
            "name": model.name,
            "route_prefix": f"/{model.name}",
            "import_path": "plain_ray:build",
            "args": asdict(model),
        }
        for model in models()
    ]
    http = {"host": "127.0.0.1", "port": port}
    log = {"enable_access_log": False}
    return {"applications": applications, "http_options": http, "logging_config": log}


def main() -> None:
    """Serve until SIGINT, or until the parent is gone."""
    port = int(sys.argv[1])
    run(config(port), f"http://127.0.0.1:{port}", haproxy=True)


if __name__ == "__main__":
    main()
