"""What clients do to a server: each ends in its documented status, and others are served on."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import pytest

from serve.model import Model, Options

MakePredictor = Callable[..., Any]
PREDICT = "/models/twice/predict"
INFER = "/v2/models/twice.tensors/infer"
PATHS = [PREDICT, INFER]
BODY_S = 0.5
IDLE = 200


@pytest.fixture
def port(serving: Callable[..., Any], make_predictor: MakePredictor) -> Generator[int]:
    """A server that waits half a second for a body."""
    with serving(lambda: Model(make_predictor(), Options("twice")), body_s=BODY_S) as ports:
        yield ports.http


def connect(port: int, *text: bytes) -> socket.socket:
    """A connection on which ``text`` was sent."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"".join(text))
    return client


def head(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: test", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def reply(client: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the body of what the server says before it closes."""
    with closing(client):
        said = b""
        while part := client.recv(65536):
            said += part
        top, _, body = said.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)


def alive(port: int) -> None:
    """Check that an honest request is answered."""
    response = httpx.post(f"http://127.0.0.1:{port}{PREDICT}", json=[1, 2], timeout=10)
    assert response.status_code == 200
    assert response.json()["answer"] == {"outputs": {"y": [2.0, 4.0]}}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", ["1000000000", str(2**62)])
def test_a_gigabyte_that_is_announced_is_413_at_once(port: int, path: str, length: str) -> None:
    began = time.monotonic()
    status, body = reply(connect(port, head(path, f"Content-Length: {length}")))
    assert status == 413
    assert time.monotonic() - began < BODY_S
    assert "larger" in json.dumps(body)
    alive(port)


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_grows_without_a_length_is_413(port: int, path: str) -> None:
    client = connect(port, head(path, "Transfer-Encoding: chunked"))
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    for _ in range(4):  # 10,000 bytes are allowed, and as many more are read and dropped
        client.sendall(chunk)
    client.sendall(b"0\r\n\r\n")
    status, body = reply(client)
    assert status == 413
    assert "larger than 10000 bytes" in json.dumps(body)
    alive(port)


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_trickles_in_is_408(port: int, path: str) -> None:
    client = connect(port, head(path, "Content-Length: 1000"), b"[1")
    status, body = reply(client)
    assert status == 408
    assert "longer than 0.5 s" in json.dumps(body)
    alive(port)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sent", [b"", b"[1, 2"])
def test_a_client_that_goes_away_harms_nobody(port: int, path: str, sent: bytes) -> None:
    for _ in range(20):
        connect(port, head(path, "Content-Length: 1000"), sent).close()
    alive(port)


def test_a_client_that_resets_while_it_is_answered_harms_nobody(port: int) -> None:
    for _ in range(20):
        client = connect(port, head(PREDICT, "Content-Length: 6"), b"[1, 2]")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    alive(port)


def test_idle_connections_leave_room_for_others(port: int) -> None:
    with ExitStack() as idle:
        for number in range(IDLE):
            begun = head(PREDICT)[: number % 40]  # some in the middle of their first line
            idle.enter_context(closing(connect(port, begun)))
        began = time.monotonic()
        alive(port)
        assert time.monotonic() - began < 2
    alive(port)


@pytest.mark.parametrize(
    "text",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01" + b"a" * 200,
    ],
)
def test_what_is_no_http_is_400_or_closed(port: int, text: bytes) -> None:
    with closing(connect(port, text, b"\r\n\r\n")) as client:
        client.shutdown(socket.SHUT_WR)
        said = client.recv(65536)
    assert not said or said.split()[1] == b"400"
    alive(port)


@pytest.mark.parametrize(
    "path", ["/models/..%2f..%2fetc%2fpasswd/predict", "/v2/models/..%2f..%2fetc/infer", "/%00"]
)
def test_no_path_reaches_a_file(port: int, path: str) -> None:
    response = httpx.post(f"http://127.0.0.1:{port}{path}", json=[1], timeout=10)
    assert response.status_code == 404
    assert "root:" not in response.text
