"""What is sent: a photograph-like JPEG, and raw tensors in the Open Inference Protocol."""

from __future__ import annotations

import io
import json

import numpy as np
from _child import ROOT
from _load import Ask
from _players import Played
from PIL import Image

import runtime

__all__ = ["photo", "tensors_ask"]

SIDE = 256
PICTURE = ROOT / "specs" / "samples" / "segmentation" / "scene_0.png"


def photo() -> bytes:
    """A JPEG of 256 x 256: a scene with noise as of a camera, about 30 KB."""
    with Image.open(PICTURE) as image:
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE)), np.float32)
    noise = np.random.default_rng(0).normal(0, 12, pixels.shape)
    file = io.BytesIO()
    noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def tensors_ask(predict: str, model: Played, items: int) -> Ask:
    """A request with so many items of raw tensors, in and out as bytes behind the JSON.

    Args:
        predict: URL of the model's ``predict``, from which the protocol's follows.
        model: one with a single input.
        items: how many.
    """
    with runtime.load(model.artifact) as predictor:
        (name, array), *_ = predictor.preprocess(model.body).items()
    batch = np.stack([array] * items)
    about = {"name": name, "shape": list(batch.shape), "datatype": "FP32"}
    sized = {**about, "parameters": {"binary_data_size": batch.nbytes}}
    head = json.dumps({"inputs": [sized], "parameters": {"binary_data_output": True}}).encode()
    url = predict.removesuffix(f"/models/{model.name}/predict")
    return Ask(
        f"{url}/v2/models/{model.name}.tensors/infer",
        head + batch.tobytes(),
        "application/octet-stream",
        f"[{items}",
        {"Inference-Header-Content-Length": str(len(head))},
    )
