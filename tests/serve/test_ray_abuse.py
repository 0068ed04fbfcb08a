"""What clients do to the real server: HAProxy, Ray and a replica.

Each ends in a documented status or a closed connection, and others are served on. More of it,
without Ray, is in ``surface/test_abuse.py``.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.environment import HEADERS_S
from serve.reading import BODY_S

pytestmark = pytest.mark.ray

APPS = ["one", "many"]
IDLE = 1000
MEGABYTE = 1_000_000
GONE = (ConnectionResetError, BrokenPipeError)


@pytest.fixture
def server(ray_url: str) -> tuple[str, int]:
    url = httpx.URL(ray_url)
    return url.host, url.port or 80


def connect(server: tuple[str, int], *text: bytes) -> socket.socket:
    """A connection on which ``text`` was sent."""
    client = socket.create_connection(server, timeout=30)
    client.sendall(b"".join(text))
    return client


def head(app: str, *headers: str) -> bytes:
    lines = [f"POST /{app}/models/digits/predict HTTP/1.1", "Host: test", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def said(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts: list[bytes] = []
    with suppress(TimeoutError, *GONE):  # HAProxy may wait for the rest of a body before it closes
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def alive(ray_url: str, app: str, picture: bytes) -> None:
    """Check that an honest request is answered soon."""
    began = time.monotonic()
    response = httpx.post(f"{ray_url}/{app}/models/digits/predict", content=picture, timeout=30)
    assert response.status_code == 200
    assert time.monotonic() - began < 5


@pytest.fixture
def picture(root: Path) -> bytes:
    return (root / "specs" / "samples" / "digits" / "digit_7.png").read_bytes()


class Slow(threading.Thread):
    """A client whose body comes by a byte every two seconds: neither silent nor ever done."""

    def __init__(self, server: tuple[str, int], app: str) -> None:
        super().__init__(daemon=True)
        self._server, self._app = server, app
        self.began = time.monotonic()
        self.took = 0.0
        self.response = b""
        self.start()

    def run(self) -> None:
        with closing(connect(self._server, head(self._app, "Content-Length: 1000"))) as client:
            client.settimeout(2.0)
            while not self.response and time.monotonic() - self.began < 2 * BODY_S:
                with suppress(TimeoutError, *GONE):
                    client.sendall(b"x")
                    self.response = client.recv(65536)
            self.took = time.monotonic() - self.began
            client.settimeout(10)  # the body of the answer may come after its head
            self.response += said(client)


@pytest.fixture(scope="module", autouse=True)
def slow_bodies(ray_url: str) -> dict[str, Slow]:
    """Begun before all other tests here, since they take a minute."""
    url = httpx.URL(ray_url)
    return {app: Slow((url.host, url.port or 80), app) for app in APPS}


@pytest.mark.parametrize("app", APPS)
def test_a_gigabyte_that_is_announced_is_413_at_once(
    server: tuple[str, int], ray_url: str, app: str, picture: bytes
) -> None:
    with closing(connect(server, head(app, "Content-Length: 1000000000"))) as client:
        response = HTTPResponse(client)  # HAProxy waits for the rest before it closes
        response.begin()
        assert response.status == 413
        assert json.load(response)["error"]["code"] == "too_large"
    alive(ray_url, app, picture)


@pytest.mark.parametrize("app", APPS)
def test_a_gigabyte_that_is_streamed_costs_its_limit_of_memory(
    server: tuple[str, int], ray_run: Any, ray_url: str, app: str, picture: bytes
) -> None:
    deployment = "digits" if app == "one" else "ingress"
    (status,) = ray_run.folders(f"ServeReplica:{app}:{deployment}")
    before = _peak_kb(status)
    chunk = b"f4240\r\n" + bytes(MEGABYTE) + b"\r\n"  # a megabyte, in hexadecimal
    with closing(connect(server, head(app, "Transfer-Encoding: chunked"))) as client:
        with suppress(*GONE):
            for _ in range(1000):
                client.sendall(chunk)
        said(client)
    assert _peak_kb(status) - before < 100_000  # 20 MB are allowed; a copy, and what Python keeps
    alive(ray_url, app, picture)


def _peak_kb(folder: Path) -> int:
    """VmHWM of a process: the most memory that it ever had."""
    lines = (folder / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("app", APPS)
def test_clients_that_go_away_or_reset_harm_nobody(
    server: tuple[str, int], ray_url: str, app: str, picture: bytes
) -> None:
    for number in range(60):
        length = len(picture) if number % 2 else 1000
        client = connect(server, head(app, f"Content-Length: {length}"), picture[:length])
        if number % 3:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    alive(ray_url, app, picture)


def test_a_thousand_idle_connections_slow_headers_and_slow_readers_leave_room_for_others(
    server: tuple[str, int], ray_url: str, picture: bytes
) -> None:
    with ExitStack() as stack:
        for number in range(IDLE):
            begun = head("one")[: number % 40]  # some in the middle of their first line
            stack.enter_context(closing(connect(server, begun)))
        for _ in range(50):  # who ask, and never read
            stack.enter_context(closing(connect(server, b"GET /one/models HTTP/1.1\r\n\r\n" * 20)))
        slow = stack.enter_context(closing(connect(server, head("one")[:30])))
        began = time.monotonic()
        for app in APPS:
            alive(ray_url, app, picture)
        answer = said(slow)
        assert HEADERS_S / 2 < time.monotonic() - began < 2 * HEADERS_S
        assert answer.split()[1:2] == [b"408"]
    alive(ray_url, "one", picture)


@pytest.mark.parametrize("app", APPS)
def test_a_body_that_does_not_come_to_its_end_is_408_after_a_minute(
    slow_bodies: dict[str, Slow], ray_url: str, app: str, picture: bytes
) -> None:
    slow = slow_bodies[app]
    slow.join(2 * BODY_S)
    # What explains it may be lost: the connection is closed while the client still writes.
    assert slow.response.startswith(b"HTTP/1.1 408 "), slow.response
    assert slow.took == pytest.approx(BODY_S, abs=10)
    alive(ray_url, app, picture)
