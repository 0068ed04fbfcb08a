from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.normalize import Normalize, normalize_planes
from specs.values import FlowError, Value

torch: Any = pytest.importorskip("torch")
transforms: Any = pytest.importorskip("torchvision.transforms")

RunStep = Callable[..., Any]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_it_is_torchvisions_bit_for_bit(run_step: RunStep, image: Value, layout: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    chw = torch.from_numpy(x.transpose(2, 0, 1).copy())
    expected = transforms.Normalize(MEAN, STD)(chw.float() / 255).numpy()
    value, given = image, x
    if layout == "CHW":
        value, given = image.but(layout="CHW", shape=(3, "height", "width")), chw.numpy()
    result = run_step(Normalize(scale=255, mean=MEAN, std=STD), value, given)
    assert result.dtype == np.float32
    assert np.array_equal(result if layout == "CHW" else result.transpose(2, 0, 1), expected)


def test_one_number_serves_all_channels_and_plain_tensors(run_step: RunStep) -> None:
    op = Normalize.model_validate({"normalize": {"mean": 1, "std": 2}})
    assert run_step(op, Value("tensor", "int64", (2,)), np.array([1, 5])).tolist() == [0, 2]


def test_bounds_are_followed(image: Value) -> None:
    value = Normalize(scale=255, mean=(0.5, 0.5, 0.25), std=0.5).flow(image)
    assert (value.low, value.high, value.dtype) == (-1, 1.5, "float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": ("height", "width", 1), "color": "L"}, "3 numbers in mean.* has 1 channels"),
        ({"kind": "tensor", "layout": ""}, "no channels"),
        ({"kind": "classes"}, "takes an image or a tensor"),
    ],
)
def test_channels_must_match(image: Value, change: dict[str, Any], message: str) -> None:
    with pytest.raises(FlowError, match=message):
        Normalize(scale=255, mean=MEAN, std=STD).flow(image.but(**change))


def test_forgetting_to_scale_or_scaling_twice_is_refused(image: Value) -> None:
    with pytest.raises(FlowError) as caught:
        Normalize(mean=MEAN, std=STD).flow(image)
    assert caught.value.hint == "add scale: 255 to normalize"
    with pytest.raises(FlowError, match="divided by 255 again"):
        Normalize(scale=255, mean=MEAN, std=STD).flow(image.but(dtype="float32", high=1))


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Normalize(std=0)


@pytest.mark.parametrize(
    ("layout", "shape"), [("HWC", (7, 5, 3)), ("CHW", (3, 7, 5)), ("CHW", (5, 3, 7, 4))]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_execution_gives_the_same(
    executions: RunStep, image: Value, layout: Any, shape: tuple[int, ...], dtype: str
) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    value = image.but(layout=layout, shape=shape, dtype=dtype)
    found = executions(Normalize(scale=255, mean=MEAN, std=STD), value, x)
    assert np.array_equal(found["python"], found["reference"])
    assert np.allclose(found["graph"], found["reference"], rtol=1e-6, atol=1e-6)


def test_it_says_what_a_grey_level_is_worth(image: Value) -> None:
    value = Normalize(scale=255, mean=MEAN, std=(0.5, 0.25, 1)).flow(image.but(step=1.0))
    assert value.step == pytest.approx(4 / 255)


def test_planes_are_written_where_there_is_room_for_them() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    one, room = np.ones((3, 1, 1), np.float32), np.empty((3, 4, 5), np.float32)
    fresh = normalize_planes(x, 255.0, one, one)
    assert normalize_planes(x, 255.0, one, one, room) is room
    assert np.array_equal(room, fresh)
    assert normalize_planes(x, 255.0, one, one, np.empty((1, 4, 5), np.float32)).shape == room.shape
