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
from PIL import Image, ImageCms, ImageFile, ImageOps

from specs.ops import _image_file
from specs.ops._image_file import gif_frames, tiff_frames
from specs.ops._source import BadInput
from specs.ops.center_crop import CenterCrop
from specs.ops.color_order import ColorOrder
from specs.ops.decode_image import DecodeImage, decode_image
from specs.ops.resize import Resize
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


@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
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
    assert pixels.shape[2] == (1 if mode == "L" else 3)


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
    assert refusal(b"") == "empty_item"
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


def turned(orientation: int, size: tuple[int, int] = (31, 17)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(size=size), "JPEG", exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright_where_it_is_asked_for(
    executions: RunStep, orientation: int
) -> None:
    data = turned(orientation)
    found = executions(DecodeImage(exif=True), Value("encoded"), data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(found["python"], np.asarray(expected))
    assert np.array_equal(found["python"], found["reference"])


def test_broken_exif_turns_nothing(run_step: RunStep) -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    result = run_step(DecodeImage(exif=True), Value("encoded"), data)
    assert np.array_equal(result, decode_image(data, "RGB"))


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue have changed places."""
    profile: Any = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    data: bytes = profile.tobytes()
    return data.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")


def test_a_colour_profile_is_converted_where_it_is_asked_for(executions: RunStep) -> None:
    red = Image.new("RGB", (4, 4), (200, 30, 10))
    data = encode(red, "PNG", icc_profile=swapped_profile())
    found = executions(DecodeImage(icc="srgb"), Value("encoded"), data)
    assert np.abs(found["python"][0, 0].astype(int) - (10, 30, 200)).max() <= 3
    assert np.array_equal(found["python"], found["reference"])
    assert decode_image(data, "RGB")[0, 0].tolist() == [200, 30, 10]


def test_a_colour_profile_leaves_the_transparency(run_step: RunStep) -> None:
    clear = Image.new("RGBA", (4, 4), (200, 30, 10, 0))
    data = encode(clear, "PNG", icc_profile=swapped_profile())
    op = DecodeImage(icc="srgb", alpha="white")
    assert (run_step(op, Value("encoded"), data) == 255).all()


@pytest.mark.parametrize(("mode", "profile"), [("RGB", b"no profile"), ("L", swapped_profile())])
def test_a_profile_that_is_none_for_the_picture_is_left_aside(
    run_step: RunStep, mode: str, profile: bytes
) -> None:
    data = encode(picture(mode), "PNG", icc_profile=profile)
    result = run_step(DecodeImage(icc="srgb"), Value("encoded"), data)
    assert np.array_equal(result, decode_image(data, "RGB"))


@pytest.mark.parametrize("alpha", ["white", "black"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB"])
def test_transparency_lies_on_a_colour_where_it_is_asked_for(
    executions: RunStep, mode: str, alpha: Any
) -> None:
    image = picture(mode)
    if mode != "RGB":
        image.putalpha(Image.fromarray(np.arange(31 * 17, dtype=np.uint8).reshape(17, 31)))
    data = encode(image)
    found = executions(DecodeImage(alpha=alpha), Value("encoded"), data)
    assert np.abs(found["python"].astype(int) - found["reference"]).max() <= 1
    if mode != "RGB":
        assert (found["python"][0, 0] == (255 if alpha == "white" else 0)).all()


def test_a_palette_with_a_clear_colour_is_transparent(run_step: RunStep) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    data = encode(image, "PNG", transparency=1)
    assert (run_step(DecodeImage(alpha="white"), Value("encoded"), data) == 255).all()
    assert (decode_image(data, "RGB") == (9, 8, 7)).all()


SMALL = Resize(shorter_side=64)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        (SMALL, (151, 200)),
        (Resize(shorter_side=151), (601, 800)),
        (Resize(size=(600, 10)), (1201, 1600)),
        (Resize(letterbox=(200, 200)), (301, 400)),
        (Resize(longer_side=1600), (1201, 1600)),
    ],
)
def test_scaled_decodes_no_smaller_than_twice_what_the_resize_needs(
    run_step: RunStep, resize: Resize, expected: tuple[int, int]
) -> None:
    op = DecodeImage(scaled=True).before((ColorOrder(to="BGR"), resize))
    data = encode(picture(size=(1600, 1201)), "JPEG")
    result = run_step(op, Value("encoded"), data)
    assert result.shape == (*expected, 3)
    height, width = resize.fit((1201, 1600))
    assert expected[0] >= min(2 * height, 1201)
    assert expected[1] >= min(2 * width, 1600)
    assert run_step(op, Value("encoded"), encode(picture(size=(160, 120)))).shape == (120, 160, 3)


@pytest.mark.parametrize("exif", [False, True])
def test_scaled_pixels_are_found_in_the_picture_that_was_sent(exif: bool) -> None:
    op = DecodeImage(scaled=True, exif=exif).before((Resize(size=(100, 50)),))
    emitted = op.emit(Value("encoded"))
    data = turned(6, size=(803, 400))
    names: dict[str, Any] = {function.__name__: function for function in emitted.functions}
    names["data"] = data
    names["x"] = x = eval(emitted.expression.replace("{x}", "data"), names)  # noqa: S307 - its own
    at = eval(emitted.geometry.replace("{x}", "x"), names)  # noqa: S307 - its own
    assert x.shape[:2] == ((201, 100) if exif else (200, 402))
    expected = (803, 400) if exif else (400, 803)
    assert at[4:6].tolist() == list(expected)
    assert np.allclose(at[:2] * expected, x.shape[:2])
    assert at[6:].tolist() == list(x.shape[:2])


@pytest.mark.parametrize("following", [(), (CenterCrop(size=4), SMALL)])
def test_scaled_needs_a_resize_before_anything_else_moves_pixels(following: Any) -> None:
    with pytest.raises(FlowError, match="scaled decoding needs a resize") as caught:
        DecodeImage(scaled=True).before(following).flow(Value("encoded"))
    assert caught.value.hint == "put resize after decode_image, or remove scaled"


def test_a_grey_level_is_worth_one() -> None:
    assert DecodeImage().flow(Value("encoded")).step == 1


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
def test_arrays_become_the_mode(
    executions: RunStep, rng: Any, mode: Any, shape: Any, dtype: str
) -> None:
    x: Any = rng.integers(0, 256, shape).astype(dtype)
    found = executions(DecodeImage(mode=mode), Value("encoded"), x)
    assert found["python"].shape == found["reference"].shape
    # A grey array is grey already; as RGB, it may round to another level.
    assert np.abs(found["python"].astype(float) - found["reference"]).max() < 1e-3


def film(kind: str, frames: int) -> bytes:
    pictures = [picture(size=(9, 5)).rotate(10 * n) for n in range(frames)]
    return encode(pictures[0], kind, save_all=True, append_images=pictures[1:])


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_an_animation_of_too_many_frames_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_image_file, "MAX_FRAMES", 3)
    assert refusal(film(kind, 4)) == "too_many_frames"
    assert decode_image(film(kind, 3), "RGB").shape == (5, 9, 3)


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize(
    ("kind", "count", "options"),
    [
        ("GIF", gif_frames, {}),
        ("TIFF", tiff_frames, {}),
        ("TIFF", tiff_frames, {"big_tiff": True}),
    ],
)
def test_frames_are_counted_as_pillow_does(
    kind: str, frames: int, count: Callable[[bytes], int], options: dict[str, Any]
) -> None:
    pictures = [picture(size=(300, 200)).rotate(10 * n) for n in range(frames)]
    data = encode(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)
    image: Any = Image.open(io.BytesIO(data))
    assert count(data) == image.n_frames == frames


@given(st.binary(max_size=300))
def test_counting_frames_ends_on_any_bytes(data: bytes) -> None:
    assert gif_frames(b"GIF89a" + data) >= 0
    assert tiff_frames(b"II*\0" + data) <= _image_file.MAX_FRAMES + 1


def test_a_side_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_image_file, "MAX_SIDE", 30)
    assert refusal(encode(picture(size=(31, 17)))) == "too_large"
    assert refusal(np.zeros((31, 4), np.uint8)) == "too_large"
    assert decode_image(encode(picture(size=(30, 30))), "RGB").shape == (30, 30, 3)


WHOLE = [encode(picture(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WHOLE), st.integers(0, 4000), st.binary(max_size=8), st.integers(0, 4000))
def test_no_damaged_file_raises_anything_else(data: bytes, at: int, new: bytes, end: int) -> None:
    try:
        decode_image(data[:at] + new + data[at + len(new) : max(end, at)], "RGB")
    except BadInput as error:
        assert error.code in ("empty_item", "not_an_image", "corrupt_image", "too_large")  # noqa: PT017


@settings(max_examples=300, deadline=None)
@given(arrays(scalar_dtypes(), array_shapes(min_dims=0, max_side=4)))
def test_no_array_raises_anything_else(data: np.ndarray[Any, Any]) -> None:
    try:
        assert decode_image(data, "L").shape[2] == 1
    except BadInput as error:
        assert error.code.startswith(("wrong_", "not_finite"))  # noqa: PT017
