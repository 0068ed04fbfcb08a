"""Downloads from a server on loopback that does everything a server can do wrong."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compiler import download as module
from compiler.download import download
from compiler.progress import Reporter
from specs.errors import WeightsError

CONTENT = bytes(range(256)) * 400
SHA = hashlib.sha256(CONTENT).hexdigest()
QUIET = Reporter(quiet=True)


@dataclass
class Server:
    """Serves CONTENT; ``plan`` says what to do with each request, the last entry with the rest."""

    url: str = ""
    plan: list[str] = field(default_factory=lambda: ["whole"])
    ranges: list[str] = field(default_factory=list[str])

    def next(self) -> str:
        """What to do with the next request."""
        return self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]


@contextmanager
def _serving(server: Server) -> Generator[None, None, None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.ranges.append(self.headers.get("Range", ""))
            _ANSWERS[server.next()](self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/net.pth"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _start(handler: BaseHTTPRequestHandler) -> int:
    wanted = handler.headers.get("Range", "")
    return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def _whole(handler: BaseHTTPRequestHandler) -> None:
    start = _start(handler)
    if start >= len(CONTENT):
        _send(handler, 416, b"")
    elif start:
        told = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        _send(handler, 206, CONTENT[start:], Content_Range=told)
    else:
        _send(handler, 200, CONTENT)


def _broken(handler: BaseHTTPRequestHandler) -> None:
    """Announce the rest, send 20,000 bytes of it, hang up."""
    start = _start(handler)
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(CONTENT) - start))
    handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
    handler.end_headers()
    handler.wfile.write(CONTENT[start : start + 20_000])
    handler.close_connection = True


def _other_range(handler: BaseHTTPRequestHandler) -> None:
    _send(handler, 206, CONTENT[5:], Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")


_ANSWERS: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "whole": _whole,
    "no_range": lambda handler: _send(handler, 200, CONTENT),
    "other_range": _other_range,
    "broken": _broken,
    "busy": lambda handler: _send(handler, 503, b"busy"),
    "missing": lambda handler: _send(handler, 404, b"no"),
    "wrong": lambda handler: _send(handler, 200, b"<html>sign in</html>"),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Server, None, None]:
    monkeypatch.setenv("DEPLOYC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "FIRST_WAIT", 0.001)
    found = Server()
    with _serving(found):
        yield found


def _files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "weights" / SHA
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_is_fetched_once_and_then_taken_from_the_cache(
    server: Server, tmp_path: Path
) -> None:
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT
    assert server.ranges == [""]
    assert _files(tmp_path) == ["net.pth"]


def test_a_broken_connection_is_resumed_where_it_broke(server: Server) -> None:
    server.plan = ["broken", "broken", "whole"]
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=16384-", "bytes=32768-"]


def test_a_part_of_an_earlier_build_is_resumed(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "weights" / SHA
    folder.mkdir(parents=True)
    (folder / "net.pth.part").write_bytes(CONTENT[:1000])
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(server: Server) -> None:
    server.plan = ["broken", "no_range"]
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT


def test_a_server_that_answers_another_range_is_asked_again_for_the_whole(server: Server) -> None:
    server.plan = ["broken", "other_range", "whole"]
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT
    assert server.ranges[-1] == ""


def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "weights" / SHA
    folder.mkdir(parents=True)
    (folder / "net.pth.part").write_bytes(CONTENT)
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"another file's beginning", CONTENT + b"more"])
def test_a_part_of_something_else_is_dropped_and_the_file_fetched_afresh(
    server: Server, tmp_path: Path, left: bytes
) -> None:
    folder = tmp_path / "cache" / "weights" / SHA
    folder.mkdir(parents=True)
    (folder / "net.pth.part").write_bytes(left)
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT
    assert server.ranges[-1] == ""


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.plan = ["busy", "busy", "whole"]
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up_in_one_line_with_both_ways_out(
    server: Server,
) -> None:
    server.plan = ["busy"]
    with pytest.raises(WeightsError) as caught:
        download(server.url, SHA, QUIET)
    assert caught.value.message == f"cannot download {server.url} (HTTP 503)"
    assert "--weights FILE" in caught.value.hint
    assert "--weights random:0" in caught.value.hint
    assert len(server.ranges) == module.ATTEMPTS


def test_a_file_that_is_not_there_is_not_asked_for_again(server: Server) -> None:
    server.plan = ["missing"]
    with pytest.raises(WeightsError, match="404"):
        download(server.url, SHA, QUIET)
    assert len(server.ranges) == 1


@pytest.mark.usefixtures("server")
def test_nobody_at_the_address_is_one_line_that_says_so(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/net.pth"
    with pytest.raises(WeightsError) as caught:
        download(url, SHA, QUIET)
    assert caught.value.message == f"cannot download {url} (the connection was refused)"
    assert caught.value.code == "weights_unreachable"


@pytest.mark.parametrize("url", ["http://[::1/net.pth", "http://", "http://a..b/net.pth"])
@pytest.mark.usefixtures("server")
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(WeightsError, match="cannot download"):
        download(url, SHA, QUIET)


def test_a_wrong_hash_is_refused_with_both_and_leaves_nothing(
    server: Server, tmp_path: Path
) -> None:
    server.plan = ["wrong"]
    with pytest.raises(WeightsError) as caught:
        download(server.url, SHA, QUIET)
    found = hashlib.sha256(b"<html>sign in</html>").hexdigest()
    assert caught.value.message == f"{server.url} has sha256 {found}, the spec says {SHA}"
    assert _files(tmp_path) == []


def test_a_file_that_rotted_in_the_cache_is_fetched_again(server: Server) -> None:
    file = download(server.url, SHA, QUIET)
    file.write_bytes(b"rotten" + CONTENT[6:])
    assert download(server.url, SHA, QUIET).read_bytes() == CONTENT


def test_two_downloads_at_once_fetch_once_and_both_have_the_file(server: Server) -> None:
    found: list[bytes] = []

    def run() -> None:
        found.append(download(server.url, SHA, QUIET).read_bytes())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT, CONTENT]
    assert server.ranges == [""]


def test_the_file_keeps_a_harmless_form_of_its_name(server: Server) -> None:
    assert download(f"{server.url}/a%20b.safetensors?x=1", SHA, QUIET).name == "a_20b.safetensors"
    assert download(f"{server.url}/..", SHA, QUIET).name == "weights"


def test_without_a_terminal_every_tenth_of_a_download_is_a_plain_line(server: Server) -> None:
    import io

    from rich.console import Console

    told = io.StringIO()
    download(server.url, SHA, Reporter(Console(file=told)))
    assert "net.pth: 100 %" in told.getvalue()
    assert "\x1b" not in told.getvalue()
