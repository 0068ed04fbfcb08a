from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.processing.executions import run_python
from specs.ops import GEOMETRY, Graph
from specs.ops._boxes import boxes_value
from specs.ops._geometry import cropped, padded, resized, whole_image
from specs.ops.scale_boxes_back import ScaleBoxesBack
from specs.values import FlowError, Value

torch: Any = pytest.importorskip("torch")

DETECTIONS = Value("detections", boxes="xyxy", units="pixels")
IMAGE = np.zeros((50, 80, 3), np.uint8)


def letterboxed(height: int, width: int) -> NDArray[Any]:
    """An image resized to 24x32 within 32x32, four rows of padding above and below."""
    whole = whole_image(np.zeros((height, width, 3), np.uint8))
    return padded(resized(whole, (24, 32)), (4, 0), (32, 32))


def back(op: ScaleBoxesBack, boxes: Any, at: Any, value: Value = DETECTIONS) -> Any:
    x = [{"boxes": np.asarray(each, np.float32), "scores": np.ones(len(each))} for each in boxes]
    return [each["boxes"] for each in run_python(op, value, x, {GEOMETRY: np.stack(at)})]


def test_a_box_goes_back_where_torchvision_took_it_from(rng: np.random.Generator) -> None:
    vision: Any = pytest.importorskip("torchvision.transforms.v2.functional")
    tensors: Any = pytest.importorskip("torchvision.tv_tensors")
    corner = rng.uniform(0, 40, (9, 2))
    start = np.concatenate([corner, corner + rng.uniform(1, 10, (9, 2))], axis=1)
    boxes = tensors.BoundingBoxes(start.astype(np.float32), format="XYXY", canvas_size=(50, 80))
    moved = vision.resize(boxes, [100, 120], antialias=True)
    moved = vision.pad(moved, [7, 5, 3, 2])
    moved = vision.crop(moved, 3, 4, 100, 120)
    at = resized(whole_image(IMAGE), (100, 120))
    at = cropped(padded(at, (5, 7), (107, 130)), (3, 4), (100, 120))
    found = back(ScaleBoxesBack(clip=False), [moved.numpy()], [at])[0]
    assert np.allclose(found, start, atol=1e-4)
    assert found.dtype == np.float32


def test_each_item_goes_back_to_its_own_image() -> None:
    at = [letterboxed(48, 64), letterboxed(240, 320)]
    found = back(ScaleBoxesBack(), [[[0, 4, 32, 28]]] * 2, at)
    assert found[0].tolist() == [[0, 0, 64, 48]]
    assert found[1].tolist() == [[0, 0, 320, 240]]


def test_what_lies_outside_of_the_image_is_cut_off_unless_told() -> None:
    at = [letterboxed(48, 64)]
    boxes = [[[-2, 0, 40, 32]]]
    assert back(ScaleBoxesBack(), boxes, at)[0].tolist() == [[0, 0, 64, 48]]
    assert back(ScaleBoxesBack(clip=False), boxes, at)[0].tolist() == [[-4, -8, 80, 56]]


def test_fractions_are_of_the_models_input() -> None:
    at = [resized(whole_image(IMAGE), (240, 320))]
    value = DETECTIONS.but(units="fraction")
    found = back(ScaleBoxesBack(), [[[0.25, 0.5, 1, 1]]], at, value)
    assert np.allclose(found[0], [[20, 25, 80, 50]])


def test_an_item_without_detections_stays_without() -> None:
    assert back(ScaleBoxesBack(), [np.zeros((0, 4))], [letterboxed(9, 9)])[0].shape == (0, 4)


def test_candidates_go_back_as_well() -> None:
    value = boxes_value(("batch", 1, 2), "pixels", probability=True)
    x = {
        "boxes": np.array([[[0, 4, 32, 28]]] * 2, np.float32),
        "scores": np.ones((2, 1, 2), np.float32),
    }
    at = np.stack([letterboxed(48, 64), letterboxed(240, 320)])
    found = run_python(ScaleBoxesBack(), value, x, {GEOMETRY: at})
    assert found["boxes"].tolist() == [[[0, 0, 64, 48]], [[0, 0, 320, 240]]]
    assert found["scores"] is x["scores"]
    assert ScaleBoxesBack().fuse(Graph(18, ""), {"boxes": "b", "scores": "s"}, value) is None


def test_the_boxes_are_of_the_image_then_and_the_geometry_travels_along() -> None:
    op = ScaleBoxesBack.model_validate("scale_boxes_back")
    assert op.flow(DETECTIONS).units == "image"
    assert op.carried() == (GEOMETRY,)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (DETECTIONS.but(units="image"), "give it once"),
        (DETECTIONS.but(boxes="xywh"), "put - box_convert: xyxy before scale_boxes_back"),
        (Value("tensor", "float32", ("batch", 4)), "put - box_decode before scale_boxes_back"),
    ],
)
def test_anything_but_corners_in_the_models_input_is_refused(value: Value, hint: str) -> None:
    with pytest.raises(FlowError) as caught:
        ScaleBoxesBack().flow(value)
    assert caught.value.hint == hint
