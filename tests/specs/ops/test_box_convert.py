from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from specs.ops._boxes import boxes_value
from specs.ops.box_convert import BoxConvert
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
FORMS = ("xyxy", "xywh", "cxcywh")
CANDIDATES = boxes_value(("batch", 5, 2), "pixels", probability=True)
UNITS: dict[str, dict[str, Any]] = {
    "same units": {},
    "to fractions": {"units": "fraction", "image": [240, 320]},
    "already pixels": {"units": "pixels", "image": [240, 320]},
}


def some_boxes(rng: np.random.Generator) -> Any:
    return rng.uniform(1, 99, (2, 5, 4)).astype(np.float32)


@pytest.mark.parametrize("options", UNITS.values(), ids=UNITS.keys())
@pytest.mark.parametrize(("have", "want"), list(itertools.product(FORMS, FORMS)))
def test_every_form_becomes_every_other_as_in_torchvision(
    executions: RunStep, rng: np.random.Generator, have: Any, want: str, options: dict[str, Any]
) -> None:
    op = BoxConvert.model_validate({"box_convert": {"to": want, **options}})
    x = {"boxes": some_boxes(rng), "scores": np.ones((2, 5, 2), np.float32)}
    value = CANDIDATES.but(boxes=have)
    found = executions(op, value, x)
    for execution in ("python", "graph"):
        assert np.allclose(found[execution]["boxes"], found["reference"]["boxes"], rtol=1e-5)
        assert str(found[execution]["boxes"].dtype) == "float32"
        assert np.array_equal(found[execution]["scores"], x["scores"])
    assert op.flow(value).boxes == want


def test_corners_become_centre_and_size_in_fractions(executions: RunStep) -> None:
    op = BoxConvert(to="cxcywh", units="fraction", image=(100, 200))
    x = {
        "boxes": np.array([[[20, 10, 60, 50]]], np.float32),
        "scores": np.ones((1, 1, 2), np.float32),
    }
    for found in executions(op, CANDIDATES, x).values():
        assert np.allclose(found["boxes"], [[[0.2, 0.3, 0.2, 0.4]]])
    assert op.flow(CANDIDATES).units == "fraction"


def test_fractions_become_pixels(executions: RunStep) -> None:
    op = BoxConvert(units="pixels", image=(100, 200))
    x = {
        "boxes": np.array([[[0.1, 0.1, 0.3, 0.5]]], np.float32),
        "scores": np.ones((1, 1, 2), np.float32),
    }
    value = CANDIDATES.but(units="fraction")
    for found in executions(op, value, x).values():
        assert np.allclose(found["boxes"], [[[20, 10, 60, 50]]])
    assert (op.flow(value).units, op.flow(value).boxes) == ("pixels", "xyxy")


def test_units_that_they_have_already_leave_them_as_they_are(executions: RunStep) -> None:
    op = BoxConvert(units="pixels", image=(100, 200))
    x = {"boxes": np.full((1, 1, 4), 7, np.float32), "scores": np.ones((1, 1, 2), np.float32)}
    for found in executions(op, CANDIDATES, x).values():
        assert found["boxes"].tolist() == x["boxes"].tolist()


def test_detections_are_converted_in_python(executions: RunStep, rng: np.random.Generator) -> None:
    op, value = BoxConvert(to="xywh"), Value("detections", boxes="xyxy", units="image")
    boxes = some_boxes(rng)
    items = [{"boxes": boxes[0], "scores": np.ones(5)}, {"boxes": boxes[1][:0]}]
    found = executions(op, value, items)
    assert set(found) == {"python", "reference"}
    for each in ("python", "reference"):
        assert np.allclose(found[each][0]["boxes"][:, 2:], boxes[0][:, 2:] - boxes[0][:, :2])
        assert found[each][1]["boxes"].shape == (0, 4)
        assert found[each][0]["scores"] is items[0]["scores"]


def test_only_boxes_of_the_models_input_can_change_units() -> None:
    op = BoxConvert(units="pixels", image=(9, 9))
    with pytest.raises(FlowError) as caught:
        op.flow(Value("detections", boxes="xyxy", units="image"))
    assert caught.value.hint == "put it before - scale_boxes_back"
    with pytest.raises(FlowError, match="takes boxes"):
        op.flow(Value("tensor", "float32", ("batch", 4)))


@pytest.mark.parametrize("options", [{}, {"units": "pixels"}, {"to": "xyxy", "image": [4, 4]}])
def test_options_that_say_nothing_or_half_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BoxConvert.model_validate({"box_convert": options})


def test_it_may_be_written_short() -> None:
    assert BoxConvert.model_validate({"box_convert": "xywh"}) == BoxConvert(to="xywh")
