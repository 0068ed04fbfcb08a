"""Specs that use every step and option which writes code of its own, for the generator's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specs.schema import Spec

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PIXELS = [{"resize": {"shorter_side": 64}}, {"center_crop": 56}]
CLASSIFY = [
    "decode_image",
    *PIXELS,
    {"normalize": {"scale": 255, "mean": MEAN, "std": STD}},
    {"layout": "CHW"},
]


def cropped(side: int, crop: int) -> list[Any]:
    """Steps from a picture to [3, crop, crop], its shorter side made ``side`` first."""
    return [
        {"decode_image": {"mode": "RGB"}},
        {"resize": {"shorter_side": side}},
        {"center_crop": crop},
        {"normalize": {"scale": 255, "mean": [0.4, 0.4, 0.5], "std": [0.2, 0.2, 0.3]}},
        {"layout": "CHW"},
    ]


SMALL: dict[str, Any] = {
    "version": 1,
    "name": "net",
    "model": {"torchvision": "resnet18"},
    "weights": {"random": {"seed": 0}},
    "inputs": {"input": {"shape": ["batch", 3, 16, 16]}},
    "outputs": {"output": {"shape": ["batch", 3]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    "preprocess": cropped(20, 16),
    "postprocess": ["softmax", {"top_k": {"k": 2}}],
}
"""A classifier of small pictures, as data."""


def make_spec(**changes: Any) -> Spec:
    """A classifier's spec with some parts changed."""
    raw: dict[str, Any] = {
        "version": 1,
        "name": "net",
        "model": {"torchvision": "resnet18"},
        "weights": {"random": {"seed": 0}},
        "inputs": {"input": {"shape": ["batch", 3, 56, 56]}},
        "outputs": {"output": {"shape": ["batch", 4]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
        "preprocess": CLASSIFY,
        "postprocess": ["softmax", {"top_k": 2}],
    }
    return Spec.model_validate(raw | changes)


def tensors_spec(**changes: Any) -> Spec:
    """A spec without steps: tensors in, tensors out."""
    inputs = {"ids": {"shape": ["batch", "n"], "dtype": "int32"}, "mask": {"shape": ["batch", "n"]}}
    axes = {"batch": {"opt": 1, "max": 2}, "n": {"min": 2, "opt": 3, "max": 4}}
    raw: dict[str, Any] = {
        "inputs": inputs,
        "dynamic_axes": axes,
        "preprocess": [],
        "postprocess": [],
    }
    return make_spec(**(raw | changes))


def image_spec() -> Spec:
    """Picture in, picture out, any size."""
    side = {"min": 4, "opt": 8, "max": 16}
    return make_spec(
        inputs={"input": {"shape": ["batch", 3, "h", "w"]}},
        outputs={"output": {"shape": ["batch", 3, "h2", "w2"]}},
        dynamic_axes={"batch": {"opt": 1, "max": 2}, "h": side, "w": side},
        preprocess=["decode_image", {"normalize": {"scale": 255}}, {"layout": "CHW"}],
        postprocess=[{"clip": {"min": 0, "max": 1}}, {"scale": 255}, "to_image"],
    )


LONG = [0.123456789012345678] * 3

TOKENIZER = "tokenizers/sentence_embedding.json"
FACE: Mapping[str, list[str]] = {"": ["face"]}
SSD: dict[str, Any] = {
    "boxes": "offsets",
    "image": [56, 56],
    "maps": [[1, 2]],
    "sizes": [[10, 20]],
}


def detector_spec(family: dict[str, Any], steps: list[Any]) -> Spec:
    """A detector of four candidates and one class beside the background."""
    return make_spec(
        outputs={
            "scores": {"shape": ["batch", 4, 2]},
            "offsets": {"shape": ["batch", 4, 4]},
        },
        postprocess=[{"box_decode": family}, *steps],
    )


VARIANTS: Mapping[str, tuple[Spec, Mapping[str, list[str]]]] = {
    "classes": (make_spec(), {}),
    "labels": (
        make_spec(postprocess=["sigmoid", {"argmax": {"labels": {"en": "a", "zh": "b"}}}]),
        {"en": ["a"] * 4, "zh": ["b"] * 4},
    ),
    "tensors": (tensors_spec(), {}),
    "image": (image_spec(), {}),
    "every op": (
        make_spec(
            preprocess=[
                {"decode_image": "RGB"},
                {"color_order": "BGR"},
                {"resize": {"size": [50, 60], "antialias": False, "interpolation": "bicubic"}},
                {"resize": {"size": [50, 60], "interpolation": "lanczos"}},
                {"pad": {"left": 1, "top": 2, "right": 3, "bottom": 4, "fill": [10, 20, 30]}},
                {"center_crop": [56, 56]},
                {"normalize": {"scale": 255, "mean": LONG, "std": LONG}},
                {"normalize": {"mean": [1.5, 2.5, 3.5], "std": 2}},
                {"scale": {"factor": -1.2345678901234567e-101, "offset": -1.2345678901234567e-101}},
                {"clip": {"min": -1.2345678901234567e-101, "max": 1.2345678901234567e-101}},
                {"layout": "CHW"},
                {"color_order": "RGB"},
                {"cast": "float16"},
                {"cast": "float32"},
                "identity",
            ],
            postprocess=["identity"],
        ),
        {},
    ),
    "pixels": (
        make_spec(
            inputs={"input": {"shape": ["batch", 5, 3, 32, 32]}},
            preprocess=[
                {"decode_image": {"exif": True, "icc": "srgb", "alpha": "white", "scaled": True}},
                {"resize": {"letterbox": [80, 60]}},
                {"pad": {"to_multiple_of": 32, "mode": "edge"}},
                {"color_order": "YCbCr"},
                {"five_crop": 32},
                "to_float",
                {"layout": "CHW"},
            ],
            postprocess=[{"threshold": {"at": 0.5, "labels": "a"}}],
        ),
        {"": ["a"] * 4},
    ),
    "mask": (
        make_spec(
            outputs={"output": {"shape": ["batch", 4, 56, 56]}},
            postprocess=[
                {"mask_to_image": {"size": "image", "palette": [[0, 0, n] for n in range(4)]}}
            ],
        ),
        {},
    ),
    "binary mask": (
        make_spec(
            outputs={"output": {"shape": ["batch", 4, 56, 56]}},
            postprocess=["sigmoid", {"threshold": {"at": 0.5, "mask": True}}],
        ),
        {},
    ),
    "priors": (detector_spec({"ssd": SSD}, [{"nms": {"labels": "a"}}, "scale_boxes_back"]), FACE),
    "grid": (
        detector_spec(
            {"anchor_free": {"boxes": "offsets", "image": [56, 56], "strides": [28]}},
            [{"nms": {"agnostic": True}}, {"box_convert": "xywh"}],
        ),
        {},
    ),
    "rows": (
        make_spec(
            outputs={"output": {"shape": ["batch", 9, 7]}},
            postprocess=[
                {"box_decode": {"yolo": {"classes": 2}}},
                {"box_convert": {"to": "xyxy", "units": "fraction", "image": [56, 56]}},
                "nms",
                "scale_boxes_back",
            ],
        ),
        {},
    ),
    "text": (
        make_spec(
            inputs={
                "ids": {"shape": ["batch", "tokens"], "dtype": "int64"},
                "mask": {"shape": ["batch", "tokens"], "dtype": "int64"},
            },
            outputs={
                "hidden": {"shape": ["batch", "tokens", 8]},
                "pooled": {"shape": ["batch", 8]},
            },
            dynamic_axes={
                "batch": {"min": 1, "opt": 2, "max": 4},
                "tokens": {"min": 16, "opt": 32, "max": 128},
            },
            preprocess=[
                {"tokenize": {"file": TOKENIZER, "outputs": {"ids": "ids", "mask": "mask"}}}
            ],
            postprocess=[
                {"select": "hidden"},
                {"mean_pool": "mask"},
                "l2_normalize",
                {"quantize_output": {"scale": 0.01, "dtype": "int8"}},
            ],
        ),
        {},
    ),
    "sound": (
        make_spec(
            inputs={"input": {"shape": ["batch", 2, 40, "frames"]}},
            dynamic_axes={
                "batch": {"min": 1, "opt": 2, "max": 4},
                "frames": {"min": 4, "opt": 10, "max": 4000},
            },
            preprocess=[
                {"decode_audio": {"rate": 22_050, "mode": "stereo"}},
                {"mel_spectrogram": {"n_mels": 40, "power": 1, "log": "ln", "scale": "slaney"}},
            ],
        ),
        {},
    ),
    "fixed sound": (
        make_spec(
            inputs={"input": {"shape": ["batch", 24, 9]}},
            preprocess=[
                {"decode_audio": 8_000},
                {"pad_or_trim": 2_000},
                {"mel_spectrogram": {"n_mels": 24, "center": False, "norm": "slaney"}},
            ],
        ),
        {},
    ),
    "own code": (
        make_spec(
            preprocess=[*CLASSIFY, {"python": {"file": "mine.py", "function": "same"}}],
            postprocess=[{"python": {"file": "mine.py", "function": "same"}}, "softmax", "argmax"],
        ),
        {},
    ),
}
