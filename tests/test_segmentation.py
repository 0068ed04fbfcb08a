"""Segmentation end to end: a picture in, a mask in the picture's own size out."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.predictor import Predictor
from specs.cli import main
from specs.loader import load_spec
from specs.ops.mask_to_image import MaskToImage

pytest.importorskip("sklearn")

Pixels = np.ndarray


@pytest.fixture(scope="module")
def artifact(
    root: Path, tmp_path_factory: pytest.TempPathFactory, build_file: Callable[..., Any]
) -> Path:
    """The spec that comes along, built once."""
    destination = tmp_path_factory.mktemp("masks") / "segmentation"
    build_file(root / "specs" / "segmentation.yaml", destination)
    return destination


@pytest.fixture(scope="module")
def predictor(artifact: Path) -> Iterator[Predictor]:
    with runtime.load(artifact) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def training(root: Path) -> Iterator[Any]:
    """The training script, which draws the scenes and measures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(root / "specs" / "models"), *sys.path])
        yield importlib.import_module("train_segmenter")


@pytest.fixture(scope="module")
def samples(root: Path) -> Path:
    return root / "specs" / "samples" / "segmentation"


@pytest.fixture(scope="module")
def palette(root: Path) -> Pixels:
    """The spec's colours, uint8 [classes, 3]."""
    step = load_spec(root / "specs" / "segmentation.yaml").spec.postprocess[-1]
    assert isinstance(step, MaskToImage)
    return np.array(step.palette, np.uint8)


def _classes(picture: Pixels, palette: Pixels) -> Pixels:
    """The number of every pixel's colour; fails where one is not of the palette."""
    same = (picture[:, :, None] == palette).all(axis=3)
    assert same.any(axis=2).all()
    return same.argmax(axis=2).astype(np.uint8)


def test_the_mean_iou_in_the_description_is_that_of_the_artifact_on_held_out_digits(
    root: Path, predictor: Predictor, training: Any, palette: Pixels
) -> None:
    _, held_out = training.load_splits()
    scenes = training.held_out_scenes(held_out)
    answers = predictor.predict([scene.picture for scene in scenes])
    found = [_classes(answer["image"], palette) for answer in answers]
    iou = training.mean_iou(found, [scene.truth for scene in scenes])
    text = load_spec(root / "specs" / "segmentation.yaml").spec.description
    told = re.search(r"On (\d+) .* mean IoU is (0\.\d+)", text)
    assert told is not None
    assert (len(scenes), f"{iou:.3f}") == (int(told[1]), told[2])


def test_the_mean_iou_is_that_of_each_class_by_hand(training: Any) -> None:
    truth = np.arange(11, dtype=np.uint8).repeat(2).reshape(2, 11)
    found = truth.copy()
    found[0, 1] = 5  # class 0 keeps 1 of its 2 pixels, class 5 has 1 more than its 2
    assert training.mean_iou([found], [truth]) == pytest.approx((1 / 2 + 2 / 3 + 9) / 11)


@pytest.mark.parametrize("box", [(0, 0, 192, 192), (40, 60, 172, 192), (60, 100, 150, 192)])
def test_the_mask_has_the_size_of_the_picture_that_was_sent_and_lies_on_its_digit(
    predictor: Predictor, samples: Path, palette: Pixels, box: tuple[int, int, int, int]
) -> None:
    with Image.open(samples / "scene_0.png") as file:
        picture = np.asarray(file.convert("RGB").crop(box))
    with Image.open(samples / "scene_0_truth.png") as file:
        truth = np.asarray(file.crop(box))
    (answer,) = predictor.predict([picture])
    assert answer["image"].shape == picture.shape
    found = _classes(answer["image"], palette)
    both, either = (found > 0) & (truth > 0), (found > 0) | (truth > 0)
    assert both.sum() / either.sum() > 0.6


def test_the_command_writes_the_mask_and_draws_it(
    artifact: Path, samples: Path, tmp_path: Path, palette: Pixels
) -> None:
    mask, drawing = tmp_path / "mask.png", tmp_path / "plot.png"
    arguments = ["predict", artifact, samples / "scene_2.png", "--out", mask, "--plot", drawing]
    done = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    with Image.open(mask) as picture:
        assert (picture.size, picture.mode) == ((192, 192), "RGB")
        seen = {int(number) for number in np.unique(_classes(np.asarray(picture), palette))}
    assert {0, 2, 4} <= seen  # background, a one, a three
    with Image.open(drawing) as picture:
        assert picture.format == "PNG"
