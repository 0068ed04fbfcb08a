"""What a JPEG's head says, of real files and of broken ones."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from runtime.jpeg import baseline_size


def picture(
    mode: str = "RGB", size: tuple[int, int] = (48, 20), kind: str = "JPEG", **options: Any
) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"quality": 20}, {"subsampling": 0}, {"optimize": True}, {"comment": "FF"}]
)
def test_a_baseline_file_tells_its_pixels(mode: str, options: dict[str, Any]) -> None:
    assert baseline_size(picture(mode, **options)) == (20, 48)


def test_what_stands_in_its_head_beside_is_passed_over() -> None:
    exif = Image.Exif()
    exif[0x010E] = "\xff\xc0" * 9
    assert baseline_size(picture(exif=exif, icc_profile=b"\xff\xda" * 2000)) == (20, 48)


@pytest.mark.parametrize(
    "between",
    [
        b"\xff",  # a fill byte
        b"\xff\x00\x00\x02",  # no marker: decoders look for the next one
        b"\xff\xd0",
        b"\xff\x01",
        b"\xff\xc8\x00\x02",
        b"\xff\xf0\x00\x02",
        b"\x00",
        b"\xff\xfe\x00\x02" * 64,  # more segments than anybody has
    ],
)
def test_what_decoders_may_read_in_another_way_tells_nothing(between: bytes) -> None:
    data = picture()
    assert baseline_size(data[:2] + between + data[2:]) is None


def test_other_files_tell_nothing() -> None:
    kinds = ("PNG", "GIF", "WEBP", "BMP", "TIFF")
    assert [baseline_size(picture(kind=kind)) for kind in kinds] == [None] * len(kinds)
    assert baseline_size(picture(progressive=True)) is None


def frame_of(data: bytes) -> tuple[int, int]:
    """Where the frame's marker begins and ends."""
    start = data.index(b"\xff\xc0")
    return start, start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


def test_two_frames_a_scan_of_some_components_tell_nothing() -> None:
    data = picture()
    start, end = frame_of(data)
    assert baseline_size(data[:end] + data[start:end] + data[end:]) is None
    scan = data.index(b"\xff\xda")
    assert baseline_size(data[: scan + 4] + b"\x01" + data[scan + 5 :]) is None
    assert baseline_size(data[: start + 5] + b"\0\0" + data[start + 7 :]) == (0, 48)
    assert baseline_size(data[:start] + data[end:]) is None


@given(data=st.binary(max_size=60), cut=st.integers(0, 700), at=st.integers(0, 700))
@example(data=b"", cut=0, at=0)
@example(data=b"\xff\xd8", cut=2, at=0)
def test_whatever_is_broken_ends(data: bytes, cut: int, at: int) -> None:
    whole = picture()
    for each in (data, b"\xff\xd8" + data, whole[:cut], whole[:at] + data + whole[at:]):
        found = baseline_size(each)
        assert found is None or min(found) >= 0
