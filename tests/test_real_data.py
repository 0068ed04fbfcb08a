"""Real weights, real pictures: PyTorch with torchvision's transforms and the artifact agree."""

# pyright: reportMissingTypeStubs=false
# torchvision ships no types.

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision import models, transforms

import runtime

Rows = list[dict[str, str]]


def rows(path: Path) -> Rows:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figures(data: Path) -> Any:
    return json.loads((data / "expected" / "figures.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def torch_top5(data: Path, labelled: list[tuple[Path, int]]) -> dict[str, list[int]]:
    """The five best classes of each picture by PyTorch and torchvision's transforms."""
    model = models.mobilenet_v2(weights=None).eval()
    weights = data / "weights" / "mobilenet_v2_imagenet.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    prepare = imagenet_transform()
    best: dict[str, list[int]] = {}
    with torch.inference_mode():
        for file, _ in labelled:
            with Image.open(file) as image:
                scores = model(prepare(image.convert("RGB"))[None])
            best[file.name] = scores.topk(5).indices[0].tolist()
    return best


def imagenet_transform() -> Any:
    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def test_runtime_and_pytorch_name_the_same_best_class_for_every_picture(
    mobilenet_artifact: Path, labelled: list[tuple[Path, int]], torch_top5: dict[str, list[int]]
) -> None:
    with runtime.load(mobilenet_artifact) as predictor:
        answers = predictor.predict([file.read_bytes() for file, _ in labelled])
    found = {
        file.name: [entry["index"] for entry in answer["classes"]]
        for (file, _), answer in zip(labelled, answers, strict=True)
    }
    assert {name: best[0] for name, best in found.items()} == {
        name: best[0] for name, best in torch_top5.items()
    }
    assert {name: set(best) for name, best in found.items()} == {
        name: set(best) for name, best in torch_top5.items()
    }


def test_top1_and_top5_are_those_that_were_measured_with_pytorch(
    mobilenet_artifact: Path, labelled: list[tuple[Path, int]], data: Path
) -> None:
    expected = figures(data)["mobilenet_v2"]
    with runtime.load(mobilenet_artifact) as predictor:
        answers = predictor.predict([file.read_bytes() for file, _ in labelled])
    best = [[entry["index"] for entry in answer["classes"]] for answer in answers]
    top1 = sum(index == found[0] for (_, index), found in zip(labelled, best, strict=True))
    top5 = sum(index in found for (_, index), found in zip(labelled, best, strict=True))
    assert (top1, top5) == (expected["top1"], expected["top5"])


def test_each_best_class_and_its_probability_equal_the_stored_reference(
    mobilenet_artifact: Path, data: Path
) -> None:
    reference = rows(data / "expected" / "mobilenet_v2_top5.csv")
    folder = data / "imagenet_samples"
    with runtime.load(mobilenet_artifact) as predictor:
        answers = predictor.predict([(folder / row["file"]).read_bytes() for row in reference])
    for row, answer in zip(reference, answers, strict=True):
        assert answer["classes"][0]["index"] == int(row["top1"]), row["file"]
        assert answer["classes"][0]["probability"] == pytest.approx(
            float(row["top1_prob"]), abs=1e-3
        )


def test_pixels_after_preprocessing_are_within_one_level_of_torchvisions(
    mobilenet_artifact: Path, labelled: list[tuple[Path, int]]
) -> None:
    prepare = imagenet_transform()
    std = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
    worst = 0.0
    with runtime.load(mobilenet_artifact) as predictor:
        for file, _ in labelled:
            with Image.open(file) as image:
                reference = prepare(image.convert("RGB")).numpy()
            found = predictor.preprocess(file.read_bytes())["input"]
            worst = max(worst, float(np.abs((found - reference) * std).max()))
    assert worst <= 1 / 255 + 1e-6


def test_labels_come_in_english_and_chinese(mobilenet_artifact: Path, data: Path) -> None:
    with runtime.load(mobilenet_artifact) as predictor:
        (answer,) = predictor.predict([(data / "images" / "cat_720p.jpg").read_bytes()])
    best = answer["classes"][0]
    index, name, probability = figures(data)["cat_720p.jpg"][0]
    assert (best["index"], best["label"]["en"]) == (index, name)
    assert best["probability"] == pytest.approx(probability, abs=2e-3)
    assert "猫" in best["label"]["zh"]


RESNET20 = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inside, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.pad = stride, (out - inside) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        short = nn.functional.pad(short, (0, 0, 0, 0, self.pad, self.pad))
        return torch.relu(y + short)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        layer = lambda i, o, s: nn.Sequential(Block(i, o, s), Block(o, o, 1), Block(o, o, 1))
        self.layer1, self.layer2, self.layer3 = layer(16, 16, 1), layer(16, 32, 2), layer(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, input):
        x = torch.relu(self.bn1(self.conv1(input)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))
"""


def test_a_foreign_checkpoint_is_adapted_and_keeps_its_measured_accuracy(
    data: Path, tmp_path: Path, build_spec: Any
) -> None:
    (tmp_path / "resnet20.py").write_text(RESNET20, "utf-8")
    samples = data / "cifar10_samples"
    spec: dict[str, Any] = {
        "version": 1,
        "name": "resnet20",
        "model": {"python": {"file": "resnet20.py", "object": "ResNet20"}},
        "weights": {
            "path": str(data / "weights" / "resnet20_cifar10.th"),
            "state_dict": {"key": "state_dict", "rename": [{"from": r"^module\.", "to": ""}]},
        },
        "inputs": {"input": {"shape": ["batch", 3, 32, 32]}},
        "outputs": {"output": {"shape": ["batch", 10]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 10, "max": 20}},
        "preprocess": [
            {"decode_image": {"mode": "RGB"}},
            {"resize": {"size": [32, 32]}},
            {
                "normalize": {
                    "scale": 255,
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225],
                }
            },
            {"layout": "CHW"},
        ],
        "postprocess": ["softmax", {"top_k": {"k": 3}}],
        "verify": {"accuracy": {"labels": str(samples / "labels.csv"), "metric": "top1"}},
    }
    manifest = build_spec(spec).manifest
    accuracy = manifest.variants[0].accuracy
    expected = figures(data)["resnet20_cifar10"]
    assert (accuracy.variant, accuracy.reference, accuracy.count) == (
        expected["top1"],
        expected["top1"],
        expected["n"],
    )


def test_super_resolution_is_closer_to_the_picture_than_bicubic(
    srcnn_artifact: Path, data: Path
) -> None:
    with Image.open(data / "images" / "face_000001.png") as image:
        full = image.convert("RGB").crop((0, 0, 255, 255))
    small = full.resize((85, 85), Image.Resampling.BICUBIC)
    bicubic = np.asarray(small.resize((255, 255), Image.Resampling.BICUBIC))
    with runtime.load(srcnn_artifact) as predictor:
        (answer,) = predictor.predict([np.asarray(small)])
    assert answer["image"].shape == (255, 255, 3)
    reference = np.asarray(full)
    assert psnr(answer["image"], reference) > psnr(bicubic, reference)


def psnr(found: Any, reference: Any) -> float:
    """Peak signal-to-noise ratio in dB over 8-bit pictures, without 8 border pixels."""
    inner = (slice(8, -8), slice(8, -8))
    difference = found[inner].astype(np.float64) - reference[inner].astype(np.float64)
    return 10 * math.log10(255**2 / float(np.square(difference).mean()))


def test_the_tutorials_super_resolution_checkpoint_builds_through_a_rename(
    data: Path, root: Path, build_spec: Any
) -> None:
    spec = yaml.safe_load((root / "specs" / "srcnn.yaml").read_text("utf-8"))
    spec["model"]["python"]["file"] = str(root / "specs" / "models" / "srcnn.py")
    names = {"patch_extraction": "conv1", "nonlinear_map": "conv2", "recon": "conv3"}
    rename = [{"from": rf"^{old}\.", "to": f"{new}."} for old, new in names.items()]
    file = data / "weights" / "srcnn_915_ycbcr.pt"
    spec["weights"] = {"path": str(file), "state_dict": {"rename": rename}}
    spec["dynamic_axes"] = {
        "batch": {"min": 1, "opt": 1, "max": 2},
        "height": {"min": 16, "opt": 32, "max": 48},
        "width": {"min": 16, "opt": 32, "max": 48},
    }
    assert build_spec(spec).manifest.answer == "image"
