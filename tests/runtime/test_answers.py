from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from runtime.answers import encode_png, to_json


def test_a_picture_becomes_a_png_that_holds_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    value = to_json({"image": pixels})["image"]
    decoded = Image.open(io.BytesIO(base64.b64decode(value["base64"])))
    assert (value["format"], value["width"], value["height"]) == ("png", 7, 5)
    assert np.array_equal(np.asarray(decoded), pixels)


def test_tensors_become_nested_lists_even_one_named_image() -> None:
    answer = {"outputs": {"image": np.ones((2, 1), np.float16), "n": np.int64(3)}}
    assert to_json(answer) == {"outputs": {"image": [[1.0], [1.0]], "n": 3}}


def test_what_json_cannot_hold_becomes_null() -> None:
    answer = {
        "outputs": {"a": np.array([[np.nan, 1], [-np.inf, 2]], np.float32), "b": np.float32("inf")}
    }
    value = to_json(answer)
    assert value == {"outputs": {"a": [[None, 1.0], [None, 2.0]], "b": None}}
    json.dumps(value, allow_nan=False)


def test_classes_pass_with_their_labels() -> None:
    entry = {"index": 1, "probability": 0.5, "label": {"en": "cat", "zh": "猫"}}
    assert to_json({"classes": [entry]}) == {"classes": [entry]}
    nan = {"classes": [{"index": np.int64(1), "score": float("nan")}]}
    assert to_json(nan) == {"classes": [{"index": 1, "score": None}]}


def test_a_flipped_view_and_a_grey_picture_can_be_encoded() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)[:, ::-1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)
    assert Image.open(io.BytesIO(encode_png(pixels[..., 0]))).mode == "L"
