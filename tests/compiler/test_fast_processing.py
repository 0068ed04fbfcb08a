"""Generated Python with the optional libraries: the same answers and refusals as without them."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from compiler.placement.golden_images import photo
from compiler.processing import generate
from compiler.processing.generate import joined
from specs.flow import walk
from specs.ops import Op
from specs.ops import _fast as fast
from specs.ops.center_crop import CenterCrop
from specs.ops.decode_image import DecodeImage
from specs.ops.layout import Layout
from specs.ops.normalize import Normalize
from specs.ops.resize import Resize
from specs.schema import Spec
from specs.values import Value

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RESIZE, CROP = {"resize": {"shorter_side": 48}}, {"center_crop": 40}
NORMALIZE = {"normalize": {"scale": 255, "mean": MEAN, "std": STD}}
CLASSIFY: list[Any] = ["decode_image", RESIZE, CROP, NORMALIZE, {"layout": "CHW"}]
PIXELS: list[Any] = ["decode_image", RESIZE, CROP]
DECODER, RESIZER = BOTH = ("simplejpeg", "cykooz_resizer")
pytestmark = pytest.mark.usefixtures("fast_resize")
IMAGE = Value("image", "uint8", ("height", "width", 3), "HWC", "RGB", low=0, high=255)


@pytest.fixture
def fast_resize() -> None:
    """These tests use every library that is installed."""


def make(steps: list[Any], shape: list[Any], dtype: str) -> Any:
    """The generated file of some steps."""
    raw: dict[str, Any] = {
        "version": 1,
        "name": "net",
        "model": {"torchvision": "resnet18"},
        "weights": {"random": {"seed": 0}},
        "inputs": {"input": {"shape": ["batch", *shape], "dtype": dtype}},
        "outputs": {"output": {"shape": ["batch", 4]}},
        "dynamic_axes": {
            "batch": {"min": 1, "opt": 1, "max": 2},
            "height": {"min": 1, "opt": 40, "max": 4000},
            "width": {"min": 1, "opt": 40, "max": 4000},
        },
        "preprocess": steps,
        "postprocess": [],
    }
    names = {size for size in shape if isinstance(size, str)} | {"batch"}
    raw["dynamic_axes"] = {k: v for k, v in raw["dynamic_axes"].items() if k in names}
    return generate(Spec.model_validate(raw), {})


def load(generated: Any, without: tuple[str, ...] = ()) -> ModuleType:
    """The file as a module that does not find some libraries installed."""
    module = ModuleType("processing")
    exec(compile(generated.text, "processing.py", "exec"), vars(module))  # noqa: S102 - as runtime
    vars(module)["LIBRARIES"].update(dict.fromkeys(without))
    return module


@pytest.fixture(scope="module")
def classify() -> Callable[..., ModuleType]:
    """A classifier's chain: ``classify(*without)``."""
    generated = make(CLASSIFY, [3, 40, 40], "float32")
    return lambda *without: load(generated, without)


@pytest.fixture(scope="module")
def pixels() -> Callable[..., ModuleType]:
    """Decoding, resize and crop: ``pixels(*without)``."""
    generated = make(PIXELS, [40, 40, 3], "uint8")
    return lambda *without: load(generated, without)


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(PHOTO, exif=exif)


PHOTO = Image.fromarray(photo(90, 131))
CMS: Any = ImageCms  # Pillow leaves the result of createProfile without a type.
PROFILE: bytes = CMS.ImageCmsProfile(CMS.createProfile("sRGB")).tobytes()
JPEGS = {
    "4:2:0": encode(PHOTO, subsampling="4:2:0"),
    "4:2:2": encode(PHOTO, subsampling="4:2:2"),
    "4:4:4": encode(PHOTO, subsampling="4:4:4", quality=95),
    "progressive": encode(PHOTO, progressive=True),
    "restart markers": encode(PHOTO, restart_marker_blocks=3),
    "optimised": encode(PHOTO, optimize=True),
    "grey": encode(PHOTO.convert("L")),
    "CMYK": encode(PHOTO.convert("CMYK")),
    "RGB without YCbCr": encode(PHOTO, keep_rgb=True),
    "turned by EXIF": turned(),
    "with a profile": encode(PHOTO, icc_profile=PROFILE),
    "something behind it": encode(PHOTO) + b"\0\xff\xd8 more",
    "large": encode(Image.fromarray(photo(700, 900))),
    "smaller than the crop": encode(Image.fromarray(photo(20, 31))),
    "one row": encode(Image.fromarray(photo(1, 60))),
    "one pixel": encode(Image.fromarray(photo(1, 1))),
}
each_jpeg = pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS.keys())


def outcome(module: Any, data: bytes) -> NDArray[Any] | str:
    """The prepared item, or the code of its refusal."""
    try:
        return module.preprocess(data)["input"]
    except module.BadInput as error:
        return error.code


def alike(one: NDArray[Any] | str, other: NDArray[Any] | str) -> bool:
    """The same pixels, or the same refusal."""
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    return np.array_equal(one, other)


@each_jpeg
@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
def test_the_faster_decoder_gives_pillows_pixels(mode: str, data: bytes) -> None:
    pytest.importorskip(DECODER)
    channels = 1 if mode == "L" else 3
    generated = make([{"decode_image": mode}], ["height", "width", channels], "uint8")
    found = outcome(load(generated), data)
    assert not isinstance(found, str)
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(image.convert(mode)).reshape(found.shape)
    assert np.array_equal(found, wanted)


def test_the_faster_decoder_is_used_for_a_plain_jpeg(
    pixels: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    simplejpeg = pytest.importorskip(DECODER)
    calls: list[str] = []
    decode = simplejpeg.decode_jpeg

    def counted(data: bytes, colors: str, **options: Any) -> Any:
        calls.append(colors)
        return decode(data, colors, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counted)
    pixels().preprocess(JPEGS["4:2:0"])
    pixels().preprocess(encode(PHOTO, "PNG"))
    assert calls == ["RGBX"]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("extra", [{}, {"exif": True}, {"icc": "srgb"}, {"alpha": "white"}])
def test_options_of_decoding_mean_the_same_with_the_faster_decoder(
    extra: dict[str, Any], scaled: bool
) -> None:
    pytest.importorskip(DECODER)
    steps = [{"decode_image": {**extra, "scaled": scaled}}, RESIZE, CROP]
    generated = make(steps, [40, 40, 3], "uint8")
    quick, plain = load(generated, (RESIZER,)), load(generated, (DECODER, RESIZER))
    for name, data in JPEGS.items():
        assert alike(outcome(quick, data), outcome(plain, data)), name


def test_a_file_cut_short_is_refused_with_the_same_code(pixels: Callable[..., Any]) -> None:
    pytest.importorskip(DECODER)
    quick, plain = pixels(RESIZER), pixels(DECODER, RESIZER)
    for name in ("4:2:0", "progressive", "grey"):
        data = JPEGS[name]
        for size in range(1, len(data), max(1, len(data) // 40)):
            assert outcome(quick, data[:size]) in {"corrupt_image", "not_an_image"}
            assert alike(outcome(quick, data[:size]), outcome(plain, data[:size])), (name, size)


def test_a_damaged_file_gives_the_same_pixels_or_the_same_refusal(
    pixels: Callable[..., Any],
) -> None:
    pytest.importorskip(DECODER)
    quick, plain = pixels(RESIZER), pixels(DECODER, RESIZER)
    rng = np.random.default_rng(0)
    for name in ("4:2:0", "progressive", "restart markers", "grey"):
        for _ in range(120):
            data = bytearray(JPEGS[name])
            for place in rng.integers(2, len(data), rng.integers(1, 4)):
                data[place] = rng.integers(256)
            assert alike(outcome(quick, bytes(data)), outcome(plain, bytes(data)))


def test_scaled_decoding_alone_is_not_held_to_pixels() -> None:
    assert DecodeImage().exact
    assert not DecodeImage(scaled=True).exact


@pytest.mark.parametrize("item", [b"", b"\xff\xd8\xff", b"GIF89a", b"\xff\xd8\xff\xe0 no image"])
def test_what_is_no_image_is_refused_alike(pixels: Callable[..., Any], item: bytes) -> None:
    found = outcome(pixels(), item)
    assert isinstance(found, str)
    assert found == outcome(pixels(DECODER, RESIZER), item)


@each_jpeg
def test_the_chain_is_within_one_grey_level_of_numpy_and_pillow_alone(
    classify: Callable[..., Any], data: bytes
) -> None:
    found, wanted = outcome(classify(), data), outcome(classify(DECODER, RESIZER), data)
    assert not isinstance(found, str)
    assert not isinstance(wanted, str)
    apart = np.abs(found - wanted) * (255 * np.array(STD)[:, None, None])
    assert apart.max() <= 1.001
    assert found.flags.c_contiguous


@pytest.mark.parametrize("item", [JPEGS["large"], photo(300, 200).astype(np.float32)])
@pytest.mark.parametrize("crop", [(60, 20), (20, 60), (60, 60), (20, 20)])
def test_a_crop_that_is_larger_than_the_image_is_framed_with_or_without_the_libraries(
    crop: tuple[int, int], item: Any
) -> None:
    steps = [{"decode_image": "RGB"}, {"resize": {"size": [40, 50]}}, {"center_crop": list(crop)}]
    generated = make([*steps, {"cast": "float32"}], [*crop, 3], "float32")
    found, wanted = outcome(load(generated), item), outcome(load(generated, BOTH), item)
    assert not isinstance(found, str)
    assert not isinstance(wanted, str)
    assert np.abs(found - wanted).max() <= 1


def test_the_faster_decoder_gives_the_part_of_the_size_that_pillow_was_asked_for() -> None:
    pytest.importorskip(DECODER)
    for part in (1, 2, 4, 8):
        with Image.open(io.BytesIO(JPEGS["large"])) as image:
            image.draft(None, (900 // part, 700 // part))
            found = fast.decode_jpeg(JPEGS["large"], image, "RGB")
            assert found is not None
            assert found.shape == (-(-700 // part), -(-900 // part), 3)
            assert np.array_equal(found, np.asarray(image))


def test_the_faster_resizer_is_used_where_both_sides_shrink(
    pixels: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip(RESIZER)
    sizes: list[tuple[int, int]] = []
    resize = library.Resizer.resize_pil

    def counted(self: Any, source: Any, target: Any, options: Any) -> None:
        sizes.append(target.size)
        resize(self, source, target, options)

    monkeypatch.setattr(library.Resizer, "resize_pil", counted)
    pixels().preprocess(JPEGS["large"])
    assert sizes[-1] == (40, 40)
    assert sizes[0][0] == 40
    count = len(sizes)
    pixels().preprocess(JPEGS["smaller than the crop"])
    assert len(sizes) == count


def below(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[int, int]:
    """Two sides, neither longer than these."""
    return int(rng.integers(1, sides[0] + 1)), int(rng.integers(1, sides[1] + 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_any_shrinking_is_within_one_grey_level_of_pillow(channels: int) -> None:
    pytest.importorskip(RESIZER)
    rng = np.random.default_rng(channels)
    for _ in range(150):
        now = below(rng, (300, 300))
        size = below(rng, now)
        x: NDArray[Any] = rng.integers(0, 256, (*now, channels), np.uint8)
        image = fast.as_image(x)
        small = fast.shrink_bilinear(image, size, (0, 0, *size))
        assert small is not None
        wanted = fast.pixels_of(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        assert np.abs(fast.pixels_of(small).astype(int) - wanted).max() <= 1


def test_a_crop_that_is_computed_alone_is_the_crop_of_the_whole() -> None:
    pytest.importorskip(RESIZER)
    rng = np.random.default_rng(3)
    for _ in range(150):
        now = below(rng, (400, 400))
        size = below(rng, now)
        height, width = below(rng, size)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        image = fast.as_image(rng.integers(0, 256, (*now, 3), np.uint8))
        whole: Any = fast.shrink_bilinear(image, size, (0, 0, *size))
        part: Any = fast.shrink_bilinear(image, size, (top, left, height, width))
        cut = fast.pixels_of(whole)[top : top + height, left : left + width]
        assert np.abs(fast.pixels_of(part).astype(int) - cut).max() <= 1


def test_a_library_that_cannot_be_imported_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fast, "LIBRARIES", {})
    assert fast.library("a_library_that_nobody_has") is None
    assert fast.LIBRARIES == {"a_library_that_nobody_has": None}


def test_threads_do_not_disturb_each_other(classify: Callable[..., Any]) -> None:
    module = classify()
    items = [JPEGS["large"], JPEGS["4:2:0"], JPEGS["progressive"], JPEGS["grey"]] * 5
    wanted = [outcome(module, item) for item in items]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(partial(outcome, module), items))
    assert all(alike(*pair) for pair in zip(found, wanted, strict=True))


# Steps that are joined


def python_of(steps: tuple[Op, ...], x: Any, start: Value) -> Any:
    """What the emitted Python of the steps makes of ``x``, one after the other."""
    space: dict[str, Any] = {"np": np, "x": x}
    for step, value, _ in walk(steps, start):
        emitted = step.emit(value)
        space |= {function.__name__: function for function in emitted.functions}
        for name, text in emitted.constants.items():
            space[name] = eval(text, space)  # noqa: S307 - an op's own expression
        space["x"] = eval(emitted.expression.replace("{x}", "x"), space)  # noqa: S307 - as above
    return space["x"]


CHAINS: dict[str, tuple[Op, ...]] = {
    "resize and crop": (Resize(shorter_side=48), CenterCrop(size=40)),
    "a larger crop": (Resize(size=(20, 30)), CenterCrop(size=(40, 25))),
    "letterbox": (Resize(letterbox=(50, 40)), CenterCrop(size=40)),
    "by area": (Resize(size=(20, 30), interpolation="area"), CenterCrop(size=10)),
    "bicubic": (Resize(longer_side=60, interpolation="bicubic"), CenterCrop(size=30)),
    "without antialias": (Resize(size=(30, 20), antialias=False), CenterCrop(size=10)),
    "normalize": (Normalize(scale=255, mean=(0.1, 0.2, 0.3), std=0.229), Layout(to="CHW")),
    "layout first": (Layout(to="CHW"), Normalize(scale=255, std=(0.1, 0.2, 0.3))),
    "channels last": (Normalize(scale=255), Layout(to="HWC")),
    "all": (Resize(shorter_side=48), CenterCrop(size=40), Normalize(), Layout(to="CHW")),
}


@pytest.fixture
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numpy and Pillow alone."""
    monkeypatch.setattr(fast, "LIBRARIES", dict.fromkeys((DECODER, RESIZER)))


@pytest.mark.usefixtures("without_libraries")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("steps", CHAINS.values(), ids=CHAINS.keys())
def test_joined_steps_give_what_they_give_one_by_one(steps: tuple[Op, ...], dtype: str) -> None:
    x, start = photo(70, 91).astype(dtype), IMAGE.but(dtype=dtype)
    found, wanted = python_of(joined(steps), x, start), python_of(steps, x, start)
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)


@pytest.mark.usefixtures("without_libraries")
@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
@pytest.mark.parametrize(
    "resize", [step[0] for step in CHAINS.values() if step[0].name == "resize"]
)
def test_decoding_joined_with_a_resize_gives_what_both_give_alone(resize: Op, mode: Any) -> None:
    steps = (DecodeImage(mode=mode), resize, CenterCrop(size=16))
    arrays: list[Any] = [photo(60, 50), photo(60, 50)[:, :, 0].astype(np.float64)]
    for item in [*JPEGS.values(), encode(PHOTO.convert("RGBA"), "PNG"), *arrays]:
        found = python_of(joined(steps), item, Value("encoded"))
        assert np.array_equal(found, python_of(steps, item, Value("encoded")))


def test_joined_steps_know_the_same_types(without_libraries: None) -> None:
    del without_libraries
    steps = (DecodeImage(), *CHAINS["all"])
    *_, (_, _, wanted) = walk(steps, Value("encoded"))
    *_, (_, _, found) = walk(joined(steps), Value("encoded"))
    assert found == wanted
    assert len(joined(steps)) == 3


def test_pixels_are_followed_through_joined_steps() -> None:
    steps = CHAINS["resize and crop"]
    start = np.array([1, 1, 0, 0, 90, 131, 90, 131], np.float64)
    assert followed(joined(steps), start).tolist() == followed(steps, start).tolist()
    assert len(joined(steps)) == 1


def followed(steps: tuple[Op, ...], at: NDArray[Any]) -> NDArray[Any]:
    for step, value, _ in walk(steps, IMAGE):
        emitted = step.emit(value)
        space: dict[str, Any] = {each.__name__: each for each in emitted.functions}
        at = eval(emitted.geometry.replace("{at}", "at"), space | {"at": at})  # noqa: S307 - its own
    return at
