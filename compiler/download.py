"""Downloads into a content-addressed cache: resumed, retried, verified, never torn."""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from filelock import FileLock

from compiler.cache import cache_folder
from compiler.progress import Reporter
from specs.digests import file_sha256
from specs.errors import WeightsError

__all__ = ["download"]

ATTEMPTS = 5
FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled before each further one."""
TIMEOUT = (10.0, 30.0)
"""Seconds to connect, and between two pieces of the body."""
PIECE = 1 << 14
"""Bytes read at once; so many are lost where a connection breaks."""
LONGEST_NAME = 100
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
WAYS_OUT = "build with --weights FILE (a copy you have) or --weights random:0 (to try the spec out)"


class _PassingError(Exception):
    """A failure that another attempt may not meet."""


def download(url: str, sha256: str, reporter: Reporter) -> Path:
    """The file at ``url``, from the cache or the network, with the hash checked each time.

    Args:
        url: an http or https address.
        sha256: 64 hex digits of the file's SHA-256.
        reporter: shows the progress.

    Raises:
        WeightsError: it cannot be reached (``weights_unreachable``), or its content has another
            hash (``weights_hash``).
    """
    folder = cache_folder() / "weights" / sha256
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / _name(url)
    with FileLock(folder / ".lock"):
        if not file.exists() or file_sha256(file) != sha256:
            part = file.with_name(f"{file.name}.part")
            _complete(url, part, sha256, reporter)
            part.replace(file)
    return file


def _name(url: str) -> str:
    """The file's name in the address, with nothing that a file system minds."""
    try:
        last = urlsplit(url).path.rpartition("/")[2]
    except ValueError as error:  # such as an unfinished IPv6 address
        raise _unreachable(url, error) from error
    return re.sub(r"[^\w.-]", "_", last)[-LONGEST_NAME:].lstrip(".") or "weights"


def _complete(url: str, part: Path, sha256: str, reporter: Reporter) -> None:
    """Fill ``part`` with the file of that hash."""
    resumed = part.exists()
    _fetch(url, part, reporter)
    found = file_sha256(part)
    if found != sha256 and resumed:
        part.unlink()  # what lay there from before may have been another file's beginning
        _fetch(url, part, reporter)
        found = file_sha256(part)
    if found != sha256:
        part.unlink()
        message = f"{url} has sha256 {found}, the spec says {sha256}"
        hint = "check the address and the hash; the file may have been replaced by its owner"
        raise WeightsError(message, hint=hint, code="weights_hash")


def _fetch(url: str, part: Path, reporter: Reporter) -> None:
    """Fill ``part`` with the whole file, going on where an attempt broke off."""
    wait = FIRST_WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _attempt(url, part, reporter)
        except (_PassingError, requests.ConnectionError, requests.Timeout) as error:
            if attempt == ATTEMPTS:
                raise _unreachable(url, error) from error
            time.sleep(wait)
            wait *= 2
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _unreachable(url, error) from error
        else:
            return


def _attempt(url: str, part: Path, reporter: Reporter) -> None:
    have = part.stat().st_size if part.exists() else 0
    # Unpacked on the way, a file would have neither the length nor the hash that was announced.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the part is whole already, or it is another file's: the hash decides
        if response.status_code in RETRIED:
            raise _PassingError(f"HTTP {response.status_code}")
        response.raise_for_status()
        _write(response, part, have if _goes_on(response, part, have) else 0, reporter)


def _goes_on(response: requests.Response, part: Path, have: int) -> bool:
    """Whether the body starts where the part ends; some servers send the whole file anyway."""
    if response.status_code != requests.codes.partial_content:
        return False
    if response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return True
    part.unlink(missing_ok=True)  # the next attempt asks for no range
    raise _PassingError("the server sent another range than was asked for")


def _write(response: requests.Response, part: Path, start: int, reporter: Reporter) -> None:
    packed = "Content-Encoding" in response.headers  # then its length says nothing
    length = "" if packed else response.headers.get("Content-Length", "")
    total = int(length) + start if length.isdigit() else None
    name = part.name.removesuffix(".part")
    try:
        with (
            part.open("ab" if start else "wb") as file,
            reporter.download(name, total, start) as advance,
        ):
            for piece in response.iter_content(PIECE):
                file.write(piece)
                advance(len(piece))
    except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError) as error:
        told = f"the connection broke after {part.stat().st_size} of {total or '?'} bytes"
        raise _PassingError(told) from error
    if total is not None and part.stat().st_size < total:
        raise _PassingError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def _unreachable(url: str, error: Exception) -> WeightsError:
    message = f"cannot download {url} ({_cause(error)})"
    return WeightsError(message, hint=WAYS_OUT, code="weights_unreachable")


def _cause(error: Exception) -> str:
    """One short reason out of the layers that requests and urllib3 wrap it in."""
    text = str(error)
    known = {
        "NameResolutionError": "its host name cannot be resolved",
        "Connection refused": "the connection was refused",
        "timed out": "no answer in time",
    }
    short = next((told for sign, told in known.items() if sign in text), "")
    return short or (type(error).__name__ if isinstance(error, requests.ConnectionError) else text)
