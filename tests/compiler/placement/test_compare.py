from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compiler.placement.compare import answers_apart, pixels_apart
from specs.values import Value


def levels(values: object) -> NDArray[Any]:
    return np.array(values, np.uint8)


def floats(values: object) -> NDArray[Any]:
    return np.array(values, np.float32)


IMAGE = Value("image", "uint8", (2, 2, 3), "HWC", "RGB", 0, 255, step=1.0)


def test_pixels_count_in_grey_levels_whatever_a_step_made_of_them() -> None:
    wanted = np.zeros((2, 2, 3), np.float32)
    found = wanted + np.float32(0.5 / 255)
    assert pixels_apart(found, wanted, IMAGE.but(step=1 / 255)).worst == pytest.approx(0.5)
    assert pixels_apart(levels([3]), levels([5]), IMAGE).worst == 2


def test_without_a_known_step_the_largest_value_stands_for_255_levels() -> None:
    value = Value("tensor", "float32", (2,))
    found = pixels_apart(floats([0, 51]), floats([0, 51.2]), value)
    assert found.worst == pytest.approx(0.2 / (51.2 / 255), rel=1e-3)


def test_another_shape_a_missing_part_and_nan_are_infinitely_far() -> None:
    parts = Value("tensors", fields={"a": IMAGE})
    assert math.isinf(pixels_apart(np.zeros(2), np.zeros(3), IMAGE).worst)
    assert math.isinf(pixels_apart({}, {"a": np.zeros(1)}, parts).worst)
    assert math.isinf(pixels_apart(floats([np.nan]), np.zeros(1, np.float32), IMAGE).worst)


def test_the_worst_of_several_parts_counts() -> None:
    parts = Value("tensors", fields={"a": IMAGE, "b": IMAGE})
    wanted = {"a": levels([1]), "b": levels([1])}
    assert pixels_apart({"a": levels([1]), "b": levels([8])}, wanted, parts).worst == 7


def test_numbers_of_an_answer_count_in_their_tolerance() -> None:
    found = [{"classes": [{"index": 3, "probability": 0.50005}]}]
    wanted = [{"classes": [{"index": 3, "probability": 0.5}]}]
    assert answers_apart(found, wanted).worst == pytest.approx(5e-5 / (1e-5 + 5e-5), rel=1e-2)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([{"a": 1}], [{"b": 1}]),
        ([1.0, 2.0], [1.0]),
        ("cat", "dog"),
        (None, {"a": 1}),
        ([{"a": [1]}], [{"a": [1, 2]}]),
        (floats([np.nan]), floats([1])),
    ],
)
def test_another_form_is_infinitely_far(found: object, wanted: object) -> None:
    assert math.isinf(answers_apart(found, wanted).worst)


def test_labels_are_not_compared_and_nan_is_as_good_as_nan() -> None:
    found = [{"index": 1, "label": "one"}, floats([np.nan])]
    assert answers_apart(found, [{"index": 1}, floats([np.nan])]).worst == 0


def test_a_picture_may_differ_by_one_level() -> None:
    found = {"image": levels([[10, 20]])}
    assert answers_apart(found, {"image": levels([[11, 20]])}).worst == 1
