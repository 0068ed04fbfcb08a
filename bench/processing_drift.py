"""What scaled decoding does to a real classifier's answers, for ``bench/processing.py``."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from processing_pipelines import encode, levels, reference

__all__ = ["Drift", "drift"]

ENLARGE = 4
"""The samples are smaller than what is decoded at less than full size."""
ABOUT = """\
MobileNetV2 with ImageNet weights on {0.pictures} labelled ImageNet pictures, enlarged 4 times
(bicubic) so that there is something to scale down: top-1 of {0.exact} with exact pixels, of
{0.scaled} with scaled decoding, the same class for {0.same}. Pixels differ by at most
{0.worst:.1f} of 255, {0.mean:.2f} in the mean."""


@dataclass(frozen=True)
class Drift:
    """Exact against scaled pre-processing of the same files.

    Args:
        pictures: how many there are.
        exact, scaled: how many of them got their label.
        same: how many got the same class both ways.
        worst, mean: difference of the pixels, in grey levels of 255.
    """

    pictures: int
    exact: int
    scaled: int
    same: int
    worst: float
    mean: float

    def lines(self) -> list[str]:
        """Markdown."""
        return ["## What scaled decoding does to answers", "", ABOUT.format(self), ""]


def drift(data: Path, scaled: Callable[[bytes], NDArray[np.float32]]) -> Drift:
    """Compare the reference with ``scaled`` on the labelled samples in ``data``."""
    classify = classifier(data / "weights" / "mobilenet_v2_imagenet.pth")
    exact = scaled_right = same = 0
    apart: list[tuple[float, float]] = []
    files = samples(data / "imagenet_samples")
    for file, label in files:
        item = enlarged(file)
        pixels, rough = reference(item), scaled(item)
        theirs, ours = classify(pixels), classify(rough)
        exact += theirs == label
        scaled_right += ours == label
        same += ours == theirs
        apart.append(levels(rough, pixels))
    worst, mean = max(a for a, _ in apart), float(np.mean([a for _, a in apart]))
    return Drift(len(files), exact, scaled_right, same, worst, mean)


def samples(folder: Path) -> list[tuple[Path, int]]:
    """The files with their class indices."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        return [(folder / row["file"], int(row["class_index"])) for row in csv.DictReader(file)]


def enlarged(file: Path) -> bytes:
    """A JPEG of the picture, ENLARGE times as high and wide."""
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        size = (image.width * ENLARGE, image.height * ENLARGE)
        large = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    return encode(np.asarray(large))


def classifier(weights: Path) -> Callable[[NDArray[np.float32]], int]:
    """MobileNetV2: the class of a prepared picture [3, 224, 224]."""
    torch: Any = importlib.import_module("torch")
    models: Any = importlib.import_module("torchvision.models")
    model = models.mobilenet_v2(weights=None)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()

    def classify(pixels: NDArray[np.float32]) -> int:
        with torch.inference_mode():
            return int(model(torch.from_numpy(pixels)[None]).argmax())

    return classify
