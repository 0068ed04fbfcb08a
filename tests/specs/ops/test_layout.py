from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.layout import Layout
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_channels_go_first_and_back(run_step: RunStep, image: Value) -> None:
    x = np.arange(24).reshape(2, 4, 3)
    first = run_step(Layout(to="CHW"), image, x)
    assert first.shape == (3, 2, 4)
    value = Layout(to="CHW").flow(image)
    assert value.shape == (3, "height", "width")
    assert np.array_equal(run_step(Layout(to="HWC"), value, first), x)


def test_the_layout_that_is_there_already_changes_nothing(run_step: RunStep, image: Value) -> None:
    op = Layout.model_validate({"layout": "HWC"})
    assert op.flow(image) == image
    assert run_step(op, image, "same") == "same"


def test_only_images_have_a_layout() -> None:
    with pytest.raises(FlowError, match="layout takes an image"):
        Layout(to="CHW").flow(Value("tensor", "float32", (3, 4, 4)))


@pytest.mark.parametrize("shape", [(2, 4, 3), (5, 2, 4, 3)])
def test_every_execution_gives_the_same_with_crops_or_without(
    executions: RunStep, image: Value, shape: tuple[int, ...]
) -> None:
    value, x = image.but(shape=shape), np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    for to in ("CHW", "HWC", "HWC"):
        op = Layout.model_validate({"layout": to})
        found = executions(op, value, x)
        assert np.array_equal(found["python"], found["reference"])
        assert np.array_equal(found["graph"], found["reference"])
        value, x = op.flow(value), found["python"]
        assert x.shape == value.shape
    assert x.shape == shape
