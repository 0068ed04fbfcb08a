"""Ray Serve: a deployment that reads the body and answers its length, no access log.

``python echo_ray.py PORT proxy`` stands behind Ray's Python proxy, ``... PORT haproxy`` behind
HAProxy with the settings of `deployc serve`. The same application, in both.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from ray_run import run
from starlette.requests import Request
from starlette.responses import JSONResponse

MOST = 256
"""Requests that the replica takes at once: more than any load has clients."""


class Echo:
    """The replica."""

    async def __call__(self, request: Request) -> JSONResponse:
        return JSONResponse({"bytes": len(await request.body())})


def build(_: dict[str, Any]) -> Any:  # noqa: ANN401 - Ray's Application
    """The application; Ray imports it by this name."""
    from ray import serve

    options = {"max_ongoing_requests": MOST, "ray_actor_options": {"num_cpus": 0}}
    return cast("Any", serve).deployment(Echo).options(**options).bind()


def config(port: int) -> dict[str, Any]:
    """Ray Serve's config."""
    application = {"name": "echo", "route_prefix": "/echo", "import_path": "echo_ray:build"}
    http = {"host": "127.0.0.1", "port": port}
    log = {"enable_access_log": False}
    return {
        "applications": [{**application, "args": {"plain": True}}],
        "http_options": http,
        "logging_config": log,
    }


def main() -> None:
    """Serve until SIGINT, or until the parent is gone."""
    port, ingress = int(sys.argv[1]), sys.argv[2]
    run(config(port), f"http://127.0.0.1:{port}", haproxy=ingress == "haproxy")


if __name__ == "__main__":
    main()
