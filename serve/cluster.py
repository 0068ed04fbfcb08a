"""Ray Serve, started and stopped from this process. The only module that drives Ray."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import ray
from ray.serve import api
from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]
from ray.serve.schema import ServeDeploySchema

from serve.args import GATE
from specs.errors import ServeError

__all__ = [
    "check_ingress",
    "connect",
    "deploy",
    "disconnect",
    "drain",
    "last_of",
    "wait_until_running",
]

POLL_S = 0.2
CONNECT_S = 5.0
STARTS = 2
"""Ray gives its node 30 s to start, and a loaded machine takes longer at times."""
LAST_LINES = 12
"""Lines of Ray's message on a failed application that a person is shown."""
_OURS = re.compile(r"specs\.errors\.\w+: ")
"""How the line begins that an error of ours has in a trace."""
_FAILED = {"DEPLOY_FAILED", "UNHEALTHY"}

_ray = cast("Any", ray)
_serve = cast("Any", api)


def connect(address: str, *, dashboard: bool) -> str:
    """Start a Ray of our own (``local``), or join the one at ``address``; its dashboard's address.

    Raises:
        ServeError: Ray did not start, or none is there.
    """
    _check_reachable(address)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = {"namespace": "serve", "log_to_driver": False, "logging_level": logging.WARNING}
    own = {"include_dashboard": dashboard} if address == "local" else {}
    for attempt in range(STARTS):
        try:
            return str(_ray.init(address=address, **quiet, **own).dashboard_url)
        except Exception as error:
            _ray.shutdown()
            if address != "local":
                raise ServeError(f"no Ray at '{address}': {error}", code="ray") from error
            if attempt == STARTS - 1:
                raise ServeError(f"Ray did not start: {error}", code="ray") from error
    raise AssertionError


def _check_reachable(address: str) -> None:
    """Ray tries an address where nobody listens for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "//" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        hint = "'local' starts a Ray of its own; `ray start --head` prints the address of a cluster"
        raise ServeError(f"no Ray at '{address}': {error}", hint=hint, code="ray") from error


def deploy(config: dict[str, Any], ingresses: Mapping[str, str]) -> list[str]:
    """Submit a resolved config; the names of its applications.

    Args:
        config: as ``ServeDeploySchema`` has it.
        ingresses: the deployment that takes HTTP in each of our applications, by their names.

    Raises:
        ServeError: a Serve that runs already listens elsewhere, and cannot be told otherwise; or
            another deployment takes HTTP in an application that is served.
    """
    schema = ServeDeploySchema.model_validate(config)
    _serve.start(
        proxy_location=schema.proxy_location,
        http_options=schema.http_options.model_dump(),
        grpc_options=schema.grpc_options.model_dump(),
    )
    client: Any = _get_global_client()
    _check_listens(client.http_config, schema.http_options)
    served = _serve.status().applications
    for name in ingresses.keys() & served.keys():
        check_ingress(name, served[name].deployments, ingresses[name])
    client.deploy_apps(schema)
    return [app.name for app in schema.applications]


def _check_listens(found: Any, asked: Any) -> None:  # noqa: ANN401 - Ray's HTTPOptions
    """Ray ignores other HTTP options than those that its Serve was started with."""
    if (found.host, found.port) == (asked.host, asked.port):
        return
    message = (
        f"the Serve of this cluster listens on {found.host}:{found.port}, and "
        f"{asked.host}:{asked.port} was asked for"
    )
    hint = f"--host {found.host} --port {found.port}; or end it first: `serve shutdown`"
    raise ServeError(message, hint=hint, code="port")


def check_ingress(app: str, served: Mapping[str, Any], ingress: str) -> None:
    """Refuse what would leave an application without anybody to take its requests.

    Ray ends a deployment that is no longer there at once, and the new one has not started.

    Args:
        app: the application's name.
        served: its deployments now, by name, as ``serve.status`` tells them.
        ingress: the deployment that would take HTTP.
    """
    now = GATE if GATE in served else next(iter(served), ingress)
    if now == ingress or not served[now].replica_states.get("RUNNING"):
        return
    message = f"in '{app}' HTTP is taken by '{now}', and '{ingress}' would take it"
    behind = GATE in {now, ingress}
    what = "between one model and several" if behind else "of its only model's name"
    message += f": a change {what} refuses requests until that one has started"
    hint = "end it and start it anew; with `gate: true` in its args models come and go meanwhile"
    raise ServeError(message, hint=hint, code="ingress")


def wait_until_running(apps: list[str], stopped: Callable[[], bool]) -> bool:
    """Wait for all ``apps``; False where ``stopped`` says so first.

    Raises:
        ServeError: an application failed, with Ray's reason.
    """
    while not stopped():
        found = _serve.status().applications
        states = {name: found[name].status.value for name in apps if name in found}
        for name, state in states.items():
            if state in _FAILED:
                raise ServeError(_reason(name, found[name]), code="deploy")
        if len(states) == len(apps) and set(states.values()) == {"RUNNING"}:
            return True
        time.sleep(POLL_S)
    return False


def drain(apps: list[str], hurried: Callable[[], bool], seconds: float) -> bool:
    """Delete ``apps`` and wait while their replicas answer what they hold; whether they could.

    Shutting Serve down at once would end HAProxy first, and with it every request in flight.
    """
    for name in apps:
        _serve.delete(name, _blocking=False)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not hurried():
        if not set(apps) & set(_serve.status().applications):
            return True
        time.sleep(POLL_S)
    return False


def disconnect(address: str) -> None:
    """Stop the Ray that is ours; leave the one we joined running."""
    if address == "local" and _ray.is_initialized():
        _serve.shutdown()
    _ray.shutdown()


def _reason(name: str, app: Any) -> str:  # noqa: ANN401 - Ray's ApplicationStatusOverview
    parts = [app.message, *(d.message for d in app.deployments.values())]
    tail = "\n  ".join(last_of([str(part) for part in parts if part]))
    return f"the application '{name}' did not start:\n  {tail}"


def last_of(messages: Sequence[str]) -> list[str]:
    """The lines of Ray's messages that a person is shown.

    What a replica refused on purpose says all by itself; of another failure the trace's end helps.
    """
    lines = [line for each in messages for line in each.splitlines() if line.strip()]
    ours = [place for place, line in enumerate(lines) if _OURS.match(line)]
    if not ours:
        return lines[-LAST_LINES:]
    first, *others = lines[ours[-1] :]
    return [_OURS.sub("", first), *others]
