from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specs.ops.resize import Resize
from specs.values import FlowError, Value

torch: Any = pytest.importorskip("torch")
transforms: Any = pytest.importorskip("torchvision.transforms")

RunStep = Callable[..., Any]
MODES = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


def noise(height: int, width: int, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(61, 40), (40, 61), (20, 20), (1, 50), (300, 2), (1, 1)])
def test_the_shorter_side_is_torchvisions_pixel_for_pixel(
    run_step: RunStep, image: Value, mode: Any, size: tuple[int, int]
) -> None:
    x = noise(*size)
    expected = transforms.Resize(24, transforms.InterpolationMode(mode))(Image.fromarray(x))
    result = run_step(Resize(shorter_side=24, interpolation=mode), image, x)
    assert np.array_equal(result, np.asarray(expected))


@pytest.mark.parametrize("mode", MODES)
def test_the_size_is_height_and_width(run_step: RunStep, image: Value, mode: Any) -> None:
    x = noise(50, 30)
    expected = transforms.Resize((20, 70), transforms.InterpolationMode(mode))(Image.fromarray(x))
    result = run_step(Resize(size=(20, 70), interpolation=mode), image, x)
    assert np.array_equal(result, np.asarray(expected))


def test_grey_images_keep_their_one_channel(run_step: RunStep, image: Value) -> None:
    gray = image.but(shape=("height", "width", 1), color="L")
    x = noise(50, 30, 1)
    expected = Image.fromarray(x[..., 0]).resize((10, 20), Image.Resampling.BILINEAR)
    result = run_step(Resize(size=(20, 10)), gray, x)
    assert np.array_equal(result[..., 0], np.asarray(expected))


def test_floats_are_resized_without_rounding(run_step: RunStep, image: Value) -> None:
    x = noise(50, 30)
    exact = run_step(Resize(size=(20, 10)), image, x.astype(np.float32))
    assert exact.dtype == np.float32
    assert np.abs(exact - run_step(Resize(size=(20, 10)), image, x)).max() <= 1


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(20, 10), (90, 101), (1, 7), (50, 30)])
@pytest.mark.parametrize("shape", [(50, 30), (1, 40), (3, 1)])
def test_without_antialias_it_is_pytorchs_interpolate(
    run_step: RunStep, image: Value, mode: Any, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    x = noise(*shape)
    tensor = torch.from_numpy(x.transpose(2, 0, 1)[None]).float()
    expected = torch.nn.functional.interpolate(tensor, size, mode=mode, align_corners=False)
    op = Resize(size=size, interpolation=mode, antialias=False)
    exact = run_step(op, image, x.astype(np.float32))
    rounded = run_step(op, image, x)
    assert np.abs(exact - expected[0].permute(1, 2, 0).numpy()).max() < 0.01
    assert rounded.dtype == np.uint8
    assert np.abs(rounded - expected[0].permute(1, 2, 0).clip(0, 255).numpy()).max() < 0.52


def test_antialias_makes_a_difference_that_is_not_hidden(run_step: RunStep, image: Value) -> None:
    x = noise(60, 60)
    smooth = run_step(Resize(size=(10, 10)), image, x).astype(int)
    assert np.abs(smooth - run_step(Resize(size=(10, 10), antialias=False), image, x)).max() > 40


def test_a_strip_that_would_grow_huge_is_refused(run_step: RunStep, image: Value) -> None:
    with pytest.raises(ValueError, match="resized, the image would have 11468800x224 pixels"):
        run_step(Resize(shorter_side=224), image, noise(1, 51_200))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of shorter_side and size, found none"),
        ({"shorter_side": 8, "size": [8, 8]}, "found both"),
        ({"shorter_side": 8, "interpolation": "lanczos", "antialias": False}, "antialias: false"),
        ({"shorter_side": 0}, "greater than or equal to 1"),
        ({"size": [8]}, "Field required"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resize.model_validate({"resize": options})


def test_known_sizes_are_followed(image: Value) -> None:
    known = image.but(shape=(100, 50, 3))
    assert Resize(shorter_side=20).flow(known).shape == (40, 20, 3)
    assert Resize(shorter_side=20).flow(image).shape == ("height", "width", 3)


def test_it_stands_before_layout_and_before_casts(image: Value) -> None:
    resize = Resize(shorter_side=20)
    with pytest.raises(FlowError) as caught:
        resize.flow(image.but(layout="CHW", shape=(3, "height", "width")))
    assert caught.value.hint == "put resize before - layout: CHW"
    with pytest.raises(FlowError, match="found int32"):
        resize.flow(image.but(dtype="int32"))
    with pytest.raises(FlowError, match="found tensor float32"):
        resize.flow(Value("tensor", "float32", (3, 8, 8)))
