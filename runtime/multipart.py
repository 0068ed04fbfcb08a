"""``multipart/form-data``: a form's files, as a browser or ``curl -F`` sends them."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message

from specs.errors import InputError

__all__ = ["MULTIPART", "Part", "read_multipart"]

MULTIPART = "multipart/form-data"
MAX_PARTS = 1_000
"""More are refused before they are cut out."""
MAX_BOUNDARY = 70
"""RFC 2046, 5.1.1."""
MAX_HEADER = 8_192
"""Bytes of one part's header."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form; its name says nothing."""

    content_type: str
    """In lower case and without parameters; "" where the part has none."""
    content: bytes


def read_multipart(body: bytes, content_type: str) -> list[Part]:
    """The parts of a form (RFC 7578), in order.

    Raises:
        InputError: ``bad_multipart``, or ``too_large`` for more than ``MAX_PARTS``.
    """
    mark = b"\r\n--" + _boundary(content_type)
    # The first boundary has no line before it; what stands before and behind is to be ignored.
    text = b"\r\n" + body
    count = text.count(mark)
    if count > MAX_PARTS + 1:
        raise InputError(f"more than {MAX_PARTS} parts in one form", code="too_large")
    pieces = text.split(mark)[1:]
    if not pieces or not pieces[-1].startswith(b"--"):
        raise InputError("the form has no closing boundary", code="bad_multipart")
    return [_part(piece) for piece in pieces[:-1]]


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["Content-Type"] = content_type.replace("\r", " ").replace("\n", " ")
    try:
        found = header.get_param("boundary")
    except (TypeError, ValueError):  # it raises where RFC 2231's continuations are malformed
        found = None
    if not isinstance(found, str) or not 0 < len(found) <= MAX_BOUNDARY or not found.isascii():
        hint = f"{MULTIPART}; boundary=..., as every client of HTTP writes it"
        raise InputError("the form's boundary is missing", hint=hint, code="bad_multipart")
    return found.encode()


def _part(piece: bytes) -> Part:
    head, found, content = piece.partition(b"\r\n\r\n")
    if not found or len(head) > MAX_HEADER or head.lstrip(b" \t")[:2] not in {b"\r\n", b""}:
        raise InputError("a part of the form has no header", code="bad_multipart")
    return Part(_media_type(head), content)


def _media_type(head: bytes) -> str:
    """What the first Content-Type of a part's header says, in lower case; "" where none does."""
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type":
            return value.partition(";")[0].strip().lower()
    return ""
