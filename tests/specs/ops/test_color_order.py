from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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


@pytest.mark.parametrize("change", [{"color": "L"}, {"kind": "tensor"}])
def test_only_images_in_colour_have_an_order(image: Value, change: dict[str, str]) -> None:
    with pytest.raises(FlowError, match="color_order takes an"):
        ColorOrder(to="BGR").flow(image.but(**change))
