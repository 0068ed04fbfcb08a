"""What a JPEG says of its size, read from its head alone: no pixel is decoded."""

from __future__ import annotations

__all__ = ["baseline_size"]

_START = b"\xff\xd8"
_FRAMES = (0xC0, 0xC1)
"""Baseline and extended sequential, in Huffman code."""
_SCAN = 0xDA
_BESIDE = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Tables, the restart interval, comments and what applications add: all have a length."""
_MOST = 64
"""Segments before the scan."""


def baseline_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a sequential JPEG whose one scan holds all of its components.

    Decoding such a file takes time by its bytes and its pixels, and no more. Others can be small
    and take long: a progressive one may go over the picture again and again. Where decoders might
    read a head in another way than this does (fill bytes, markers that should not be there, two
    frames), it is none.

    Args:
        data: a file, or anything else.

    Returns:
        None where it is no such file. Whether it can be decoded is not known.

    Source: ITU-T T.81, annex B.
    """
    if data[:2] != _START:
        return None
    at, size, components = 2, None, 0
    for _ in range(_MOST):
        marker = data[at + 1] if data[at : at + 1] == b"\xff" and at + 1 < len(data) else 0
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SCAN:
            whole = data[at + 4 : at + 5] == bytes((components,))
            return size if size and whole else None
        if marker in _FRAMES and not size:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            size = int.from_bytes(height, "big"), int.from_bytes(width, "big")
            components = int.from_bytes(data[at + 9 : at + 10], "big")
        elif marker not in _BESIDE:
            return None
        at += 2 + length
    return None
