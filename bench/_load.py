"""Load from another process, for the serving benches.

As a program it reads one job (``Ask`` and ``Plan``, JSON) from stdin, sends the load and prints
what came back. Closed: each client sends its next request when the last one is answered. Open:
Poisson arrivals, each at its due time whatever became of those before, and latency counted from
there, so that a server that stalls cannot slow its own clients down and look well.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

__all__ = [
    "Ask",
    "Closed",
    "Open",
    "Sent",
    "due_times",
    "head_of",
    "send",
]

SEND_S = 60.0
"""Bound on what a load may take beyond its own length."""
DRAIN_S = 1.0
"""How long an open loop waits for answers after its last arrival; what is not there is failed."""
MOST_CONNECTIONS = 2000
READ_BYTES = 1 << 16
OK = 200
REFUSED = (408, 429, 503, 504)
"""The words of the servers compared for: overloaded, or too late."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, sent again and again."""

    url: str
    body: bytes
    content_type: str
    want: str
    """Stands in every right answer."""
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def raw(self) -> bytes:
        """The request as it goes over the wire."""
        address = urlsplit(self.url)
        lines = [
            f"POST {address.path} HTTP/1.1",
            f"Host: {address.netloc}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + self.body


@dataclass(frozen=True, slots=True)
class Closed:
    """So many clients, each with one keep-alive connection."""

    clients: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Poisson arrivals at ``rate`` per second; those due in the first ``warm_up`` do not count."""

    rate: float
    seconds: float
    slo_ms: float
    seed: int
    warm_up: float = 0.0

    @property
    def counted(self) -> float:
        """Seconds that count."""
        return self.seconds - self.warm_up


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one request."""

    due: float
    """Seconds from the beginning of the load."""
    took: float | None
    """Seconds until the answer; None: there was none."""
    status: int
    right: bool
    timing: str = ""
    """The header Server-Timing."""


class _Connection(asyncio.Protocol):
    """One keep-alive connection that asks one thing at a time."""

    def __init__(self) -> None:
        self._got = bytearray()
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast("asyncio.Transport", transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._done(b"")

    def data_received(self, data: bytes) -> None:
        self._got += data
        if _whole(self._got):
            whole = bytes(self._got)
            self._got.clear()
            self._done(whole)

    async def ask(self, raw: bytes) -> bytes:
        """The whole response; b"" where the connection was lost."""
        if self._transport is None or not self.open:
            return b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        return await self._answer

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def _done(self, response: bytes) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(response)


def _exchange(connection: socket.socket, raw: bytes) -> bytes:
    """The whole response; b"" where the connection was lost."""
    got = bytearray()
    try:
        connection.sendall(raw)
        while not _whole(got):
            part = connection.recv(READ_BYTES)
            if not part:
                return b""
            got += part
    except OSError:
        return b""
    return bytes(got)


def _whole(got: bytes | bytearray) -> bool:
    """Whether a response has arrived to its end."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return False
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", got[:end])
    if found:
        return len(got) >= end + 4 + int(found[1])
    return got.endswith(b"0\r\n\r\n")  # chunked: none of the servers sends trailers


def head_of(response: bytes, want: bytes) -> tuple[int, bool, str]:
    """Status, whether ``want`` stands in the answer, and Server-Timing."""
    if not response:
        return 0, False, ""
    status = int(response[9:12])
    head, _, body = response.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\nserver-timing: *([^\r]*)", head)
    return status, status == OK and want in body, found[1].decode("ascii") if found else ""


async def _connect(url: str) -> _Connection:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        host, port = address.hostname or "", address.port or 80
        _, made = await loop.create_connection(_Connection, host, port)
    except OSError:
        return _Connection()
    return made


class _Load:
    """Sends one ``Ask`` and keeps what came back."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._raw = ask.raw()
        self._want = ask.want.encode()
        self._idle: list[_Connection] = []
        self._count = 0
        self._began = time.perf_counter()
        self.sent: list[Sent] = []

    async def closed(self, plan: Closed) -> None:
        """Every client to its end."""
        end = self._began + plan.seconds
        await asyncio.gather(*[self._client(end) for _ in range(plan.clients)])

    def alone(self, plan: Closed) -> None:
        """One client, by a blocking socket: what an event loop takes is not the server's."""
        end = self._began + plan.seconds
        address = urlsplit(self._ask.url)
        try:
            made = socket.create_connection((address.hostname or "", address.port or 80))
        except OSError:
            self.sent.append(Sent(0.0, None, 0, right=False))
            return
        with made as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                due = time.perf_counter()
                response = _exchange(connection, self._raw)
                took = time.perf_counter() - due if response else None
                status, right, timing = head_of(response, self._want)
                self.sent.append(Sent(due - self._began, took, status, right, timing))
                if not response or time.perf_counter() >= end:
                    break

    async def _client(self, end: float) -> None:
        """At least one request, and further ones until the end."""
        connection = await _connect(self._ask.url)
        while True:
            await self._one(connection, time.perf_counter() - self._began)
            if time.perf_counter() >= end or not connection.open:
                break
        connection.close()

    async def open(self, plan: Open) -> None:
        """Every arrival at its due time; then wait a little for what is missing."""
        tasks: list[asyncio.Task[None]] = []
        dues = due_times(plan)
        self._began = time.perf_counter()
        for due in dues:
            left = due - (time.perf_counter() - self._began)
            if left > 0:
                await asyncio.sleep(left)
            tasks.append(asyncio.create_task(self._arrival(due)))
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN_S)
        for task in tasks:
            task.cancel()
        answered = {sent.due for sent in self.sent}
        self.sent += [Sent(due, None, 0, right=False) for due in dues if due not in answered]

    async def _arrival(self, due: float) -> None:
        connection = await self._take()
        if connection is None:
            self.sent.append(Sent(due, None, 0, right=False))
            return
        await self._one(connection, due)
        if connection.open:
            self._idle.append(connection)
        else:
            self._count -= 1

    async def _take(self) -> _Connection | None:
        """A connection that is free, or a new one; None where there are too many."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
            self._count -= 1
        if self._count >= MOST_CONNECTIONS:
            return None
        self._count += 1
        return await _connect(self._ask.url)

    async def _one(self, connection: _Connection, due: float) -> None:
        response = await connection.ask(self._raw)
        took = time.perf_counter() - self._began - due
        status, right, timing = head_of(response, self._want)
        self.sent.append(Sent(due, took if response else None, status, right, timing))


def due_times(plan: Open) -> list[float]:
    """When each request is due: Poisson, the same for the same seed."""
    dice = random.Random(plan.seed)  # noqa: S311 - the dice of a bench keep no secret
    found: list[float] = []
    now = dice.expovariate(plan.rate)
    while now < plan.seconds:
        found.append(now)
        now += dice.expovariate(plan.rate)
    return found


def send(ask: Ask, plan: Closed | Open) -> list[Sent]:
    """Send a load from a process of its own, by due time.

    Raises:
        SystemExit: the process failed, or did not end in time.
    """
    request = {**asdict(ask), "body": base64.b64encode(ask.body).decode("ascii")}
    kind = "open" if isinstance(plan, Open) else "closed"
    job = json.dumps({"ask": request, "kind": kind, "plan": asdict(plan)})
    limit = plan.seconds + SEND_S
    done = subprocess.run(
        [sys.executable, __file__],
        input=job,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=limit,
    )
    if done.returncode:
        raise SystemExit(f"the load on {ask.url} failed")
    return [Sent(**each) for each in json.loads(done.stdout)]


def _main() -> None:
    job = json.loads(sys.stdin.read())
    body = base64.b64decode(job["ask"].pop("body"))
    ask = Ask(body=body, **job["ask"])
    load = _Load(ask)
    if job["kind"] == "open":
        asyncio.run(load.open(Open(**job["plan"])))
    elif (plan := Closed(**job["plan"])).clients == 1:
        load.alone(plan)
    else:
        asyncio.run(load.closed(plan))
    print(json.dumps([asdict(sent) for sent in sorted(load.sent, key=lambda sent: sent.due)]))


if __name__ == "__main__":
    _main()
