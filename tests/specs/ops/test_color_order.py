from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specs.ops.color_order import ColorOrder
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


@pytest.mark.parametrize(("layout", "shape"), [("HWC", (1, 1, 3)), ("CHW", (3, 1, 1))])
def test_the_channels_are_reversed_where_they_are(
    run_step: RunStep, image: Value, layout: str, shape: tuple[int, ...]
) -> None:
    value = image.but(layout=layout, shape=shape)
    result = run_step(ColorOrder(to="BGR"), value, np.array([1, 2, 3]).reshape(shape))
    assert result.ravel().tolist() == [3, 2, 1]
    assert ColorOrder(to="BGR").flow(value).color == "BGR"


def test_the_order_that_is_there_already_changes_nothing(run_step: RunStep, image: Value) -> None:
    op = ColorOrder.model_validate({"color_order": "RGB"})
    assert run_step(op, image, "same") == "same"


@pytest.mark.parametrize("change", [{"color": ""}, {"kind": "tensor"}, {"dtype": "int64"}])
def test_only_images_of_known_colours_have_an_order(image: Value, change: dict[str, str]) -> None:
    with pytest.raises(FlowError, match="color_order takes"):
        ColorOrder(to="GRAY").flow(image.but(**change))


COLORS = ["RGB", "BGR", "L", "YCbCr"]


@pytest.mark.parametrize("new", ["RGB", "BGR", "GRAY", "YCbCr"])
@pytest.mark.parametrize("old", COLORS)
def test_every_execution_gives_the_same(
    executions: RunStep, rng: np.random.Generator, image: Value, old: Any, new: Any
) -> None:
    channels = 1 if old == "L" else 3
    op = ColorOrder(to=new)
    for layout, shape, dtype in (
        ("HWC", (30, 41, channels), "uint8"),
        ("CHW", (5, channels, 3, 4), "uint8"),
        ("CHW", (channels, 3, 4), "float32"),
    ):
        x = rng.integers(0, 256, shape).astype(dtype)
        value = image.but(color=old, layout=layout, shape=shape, dtype=dtype)
        found = executions(op, value, x)
        result = found["python"]
        assert result.shape == found["graph"].shape == op.flow(value).shape
        assert found["graph"].dtype == result.dtype == x.dtype
        assert np.abs(result.astype(float) - found["reference"]).max() <= 1e-4 * (dtype != "uint8")
        # Pillow sums YCbCr from rounded tables; all else is exact.
        far = 1 if dtype == "uint8" and "YCbCr" in (old, new) else 1e-4
        assert np.abs(found["graph"].astype(float) - found["reference"]).max() <= far


def test_grey_is_pillows_in_the_graph_as_well(executions: RunStep, image: Value) -> None:
    x = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    found = executions(ColorOrder(to="GRAY"), image, x)
    assert np.array_equal(found["graph"][..., 0], np.asarray(Image.fromarray(x).convert("L")))
    assert ColorOrder(to="GRAY").flow(image).shape == ("height", "width", 1)
