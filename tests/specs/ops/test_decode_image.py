from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from PIL import Image, ImageFile

from specs.ops._source import BadInput
from specs.ops.decode_image import DecodeImage, decode_image
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (31, 17)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def refusal(data: object, mode: str = "RGB") -> str:
    with pytest.raises(BadInput) as caught:
        decode_image(data, mode)
    assert caught.value.message
    assert caught.value.hint
    return caught.value.code


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("stored", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_kind_of_file_becomes_what_pillows_convert_gives(stored: str, mode: str) -> None:
    source = (
        picture(stored) if stored != "I;16" else Image.fromarray(np.arange(600, dtype="u2")[None])
    )
    data = encode(source, "TIFF" if stored == "CMYK" else "PNG")
    pixels = decode_image(data, mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, expected.reshape(pixels.shape))
    assert pixels.shape[2] == len(mode)


def test_sixteen_bit_values_are_clipped_at_255() -> None:
    data = encode(Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16)))
    assert decode_image(data, "L").ravel().tolist() == [0, 255, 255, 255]


def test_the_first_frame_of_an_animation_is_taken() -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    data = encode(first, "GIF", save_all=True, append_images=[second])
    assert decode_image(data, "RGB")[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    data = encode(picture(), "JPEG", exif=exif)
    assert decode_image(data, "RGB").shape == (17, 31, 3)


def test_the_mode_may_be_left_out(run_step: RunStep) -> None:
    op = DecodeImage.model_validate("decode_image")
    assert run_step(op, Value("encoded"), encode(picture("L"))).shape == (17, 31, 3)


def test_it_must_be_the_first_step(image: Value) -> None:
    with pytest.raises(FlowError) as caught:
        DecodeImage().flow(image)
    assert "first step" in caught.value.hint


def test_no_bytes_and_foreign_bytes_are_not_an_image() -> None:
    assert refusal(b"") == "not_an_image"
    assert refusal(b"hello" * 200_000) == "not_an_image"
    assert refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused_even_if_pillow_was_told_to_take_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(picture(size=(200, 100)), kind)
    assert refusal(data[: len(data) * 2 // 3]) in ("corrupt_image", "not_an_image")


def test_a_bomb_is_refused_by_the_size_that_it_declares() -> None:
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0)
    bomb = encode(picture()).replace(encode(picture())[16:29], header)
    bomb = bomb[:29] + struct.pack(">I", __import__("zlib").crc32(b"IHDR" + header)) + bomb[33:]
    assert refusal(bomb) == "too_large"


def test_pillows_own_bomb_check_gives_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert refusal(encode(picture())) == "too_large"


def test_a_file_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decode_image.__globals__, "MAX_BYTES", 10)
    assert refusal(encode(picture())) == "too_large"


def test_arrays_are_taken_as_pixels() -> None:
    pixels = np.asarray(picture())
    assert np.array_equal(decode_image(pixels, "RGB"), pixels)
    assert np.array_equal(decode_image(pixels.tolist(), "RGB"), pixels)
    assert np.array_equal(decode_image(pixels, "L")[..., 0], np.asarray(picture().convert("L")))
    assert np.array_equal(decode_image(pixels[..., 0], "RGB")[..., 2], pixels[..., 0])


def test_floats_stay_floats_and_their_grey_is_pillows_within_half_a_level() -> None:
    pixels = np.asarray(picture()).astype(np.float64)
    gray = decode_image(pixels, "L")
    assert gray.dtype == np.float32
    assert np.abs(gray[..., 0] - np.asarray(picture().convert("L"))).max() <= 0.51


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, "wrong_dtype"),
        ("text", "wrong_dtype"),
        (np.zeros((4, 4, 3), complex), "wrong_dtype"),
        (np.array([[object()]]), "wrong_dtype"),
        ([[1, 2], [3]], "wrong_shape"),
        (np.zeros(4, np.uint8), "wrong_shape"),
        (np.zeros((3, 8, 8), np.uint8), "wrong_shape"),
        (np.zeros((0, 8, 3), np.uint8), "wrong_shape"),
        (np.full((8, 8), np.nan), "not_finite"),
        (np.full((8, 8), np.inf, np.float16), "not_finite"),
        (np.full((8, 8), 256), "wrong_input"),
        (np.full((8, 8), -0.5), "wrong_input"),
        (np.broadcast_to(np.uint8(1), (100_000, 100_000)), "too_large"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(data: object, code: str) -> None:
    assert refusal(data) == code


WHOLE = [encode(picture(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WHOLE), st.integers(0, 4000), st.binary(max_size=8), st.integers(0, 4000))
def test_no_damaged_file_raises_anything_else(data: bytes, at: int, new: bytes, end: int) -> None:
    try:
        decode_image(data[:at] + new + data[at + len(new) : max(end, at)], "RGB")
    except BadInput as error:
        assert error.code in ("not_an_image", "corrupt_image", "too_large")  # noqa: PT017


@settings(max_examples=300, deadline=None)
@given(arrays(scalar_dtypes(), array_shapes(min_dims=0, max_side=4)))
def test_no_array_raises_anything_else(data: np.ndarray[Any, Any]) -> None:
    try:
        assert decode_image(data, "L").shape[2] == 1
    except BadInput as error:
        assert error.code.startswith(("wrong_", "not_finite"))  # noqa: PT017
