"""Train ``Segmenter`` on handwritten digits put on noisy backgrounds; write what its spec needs.

Run ``python specs/models/train_segmenter.py`` (a few minutes on one core). It writes, below
``specs/``:

* ``weights/segmenter.safetensors``: the state dict, in float16 to halve its size;
* ``samples/segmentation/scene_0.png`` .. ``scene_2.png``: scenes of held-out digits, 192 x 192,
  and ``scene_0_truth.png``, the first one's true classes (mode L, 0 for background, 1 + digit).

The strokes are real handwriting, scikit-learn's bundled digits; backgrounds, colours, places and
sizes are drawn at random, and so are known exactly. Training sees 1437 of the digits, the figure
is measured on scenes of the other 360, which are the same that ``train_digits.py`` holds out.

The split, the seeds and the thread count are fixed, so two runs on one machine write the same
bytes.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch, safetensors and scikit-learn leave some of their own types unknown)

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save
from segmenter import Segmenter
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

SPECS = Path(__file__).resolve().parents[1]
SEED = 0
SIDE = 64  # of the pictures that the network takes
SAMPLE_SIDE = 192
SAMPLES = 3
CLASSES = 11
STEPS = 900
BATCH = 32
PEAK_RATE = 6e-3
BACKGROUND_WEIGHT = 0.3  # nine pixels in ten are background
SCENES = 200  # on which the figure is measured
MOST_DIGITS = 4
SIZES = (0.27, 0.5)  # of a digit, as a share of the scene's side
CONTRAST = 60.0  # least difference of the mean level of stroke and background
TURN = 15.0  # degrees, at most
TRIES = 20  # places that are tried for a digit before it is left out

Picture = NDArray[np.uint8]


class Digits(NamedTuple):
    """Pictures float32 [n, 8, 8] in 0..1 and their classes int64 [n]."""

    strokes: NDArray[np.float32]
    classes: NDArray[np.int64]


class Scene(NamedTuple):
    """A picture uint8 [side, side, 3], and each pixel's class uint8 [side, side]."""

    picture: Picture
    truth: Picture


def load_splits() -> tuple[Digits, Digits]:
    """Return the digits to train on (1437) and those held out (360)."""
    bunch = cast("Any", load_digits())
    strokes = np.asarray(bunch.images, dtype=np.float32) / 16.0
    classes = np.asarray(bunch.target, dtype=np.int64)
    parts = cast(
        "list[Any]",
        train_test_split(strokes, classes, test_size=0.2, stratify=classes, random_state=0),
    )
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


# --- scenes


def draw_scene(digits: Digits, rng: np.random.Generator, side: int = SIDE) -> Scene:
    """Put one to MOST_DIGITS digits side by side on a background of its own."""
    pixels, level = background(side, rng)
    truth = np.zeros((side, side), np.uint8)
    taken = np.zeros((side, side), np.bool_)
    for _ in range(int(rng.integers(1, MOST_DIGITS + 1))):
        chosen = int(rng.integers(len(digits.classes)))
        cover = grown(digits.strokes[chosen], int(side * rng.uniform(*SIZES)), rng)
        place = free_place(taken, cover.shape[0], rng)
        if place is not None:
            taken[place] = True
            color = ink(level, rng)
            pixels[place] += cover[..., None] * (color - pixels[place])
            truth[place][cover > 0.5] = 1 + digits.classes[chosen]  # noqa: PLR2004 - more than half
    pixels += rng.normal(0, rng.uniform(2, 14), pixels.shape)
    return Scene(pixels.clip(0, 255).astype(np.uint8), truth)


def background(side: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """Return blotches of two related colours, float64 [side, side, 3], and their mean level."""
    base = rng.uniform(0, 255, 3)
    other = (base + rng.normal(0, 30, 3)).clip(0, 255)
    coarse = Image.fromarray(rng.uniform(0, 1, (6, 6)).astype(np.float32))
    mix = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))[..., None]
    pixels = base + mix * (other - base)
    return pixels, float(pixels.mean())


def ink(level: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a colour whose mean differs from ``level`` by CONTRAST or more."""
    while True:
        color = rng.uniform(0, 255, 3)
        if abs(color.mean() - level) >= CONTRAST:
            return color


def grown(stroke: NDArray[np.float32], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a digit turned a little and enlarged: how much ink covers each pixel, 0..1."""
    # Strokes reach the edge of their eight pixels: a frame lets them end before it.
    framed = Image.fromarray(np.pad(stroke, 1))
    picture = framed.resize((size, size), Image.Resampling.BICUBIC)
    turned = picture.rotate(rng.uniform(-TURN, TURN), Image.Resampling.BILINEAR)
    return np.asarray(turned).clip(0, 1)


def free_place(
    taken: NDArray[np.bool_], size: int, rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """Return a square that no digit has taken yet, or None after TRIES tries."""
    for _ in range(TRIES):
        top, left = rng.integers(0, len(taken) - size + 1, 2)
        place = (slice(top, top + size), slice(left, left + size))
        if not taken[place].any():
            return place
    return None


# --- training


def batch_of(digits: Digits, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return new scenes: float32 [BATCH, 3, SIDE, SIDE] in 0..1, int64 [BATCH, SIDE, SIDE]."""
    scenes = [draw_scene(digits, rng) for _ in range(BATCH)]
    truth = np.stack([scene.truth for scene in scenes]).astype(np.int64)
    return to_input([scene.picture for scene in scenes]), torch.from_numpy(truth)


def to_input(pictures: list[Picture]) -> torch.Tensor:
    """Turn pictures into the network's float32 [n, 3, SIDE, SIDE] in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(torch.float32) / 255.0


def train(digits: Digits) -> Segmenter:
    """Fit a fresh network with Adam and a one-cycle rate, every batch of new scenes."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    network = Segmenter(CLASSES)
    weights = torch.ones(CLASSES)
    weights[0] = BACKGROUND_WEIGHT
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
    for step in range(STEPS):
        pictures, truth = batch_of(digits, rng)
        loss = functional.cross_entropy(network(pictures), truth, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: {loss.item():.3f}")
    return network.eval()


# --- what came of it


def held_out_scenes(digits: Digits, count: int = SCENES) -> list[Scene]:
    """Return the scenes that the figure is measured on."""
    rng = np.random.default_rng(SEED + 1)
    return [draw_scene(digits, rng) for _ in range(count)]


def mean_iou(found: list[Picture], truth: list[Picture]) -> float:
    """Intersection over union of each class over all pixels of all pictures, then their mean."""
    pairs = np.stack(truth).astype(np.int64) * CLASSES + np.stack(found)
    table = np.bincount(pairs.ravel(), minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    both = np.diagonal(table)
    return float((both / (table.sum(0) + table.sum(1) - both)).mean())


def write_samples(digits: Digits) -> None:
    """Write larger scenes of held-out digits, and the truth of the first."""
    folder = SPECS / "samples" / "segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED + 2)
    scenes = [draw_scene(digits, rng, SAMPLE_SIDE) for _ in range(SAMPLES)]
    for number, scene in enumerate(scenes):
        Image.fromarray(scene.picture).save(folder / f"scene_{number}.png", optimize=True)
    Image.fromarray(scenes[0].truth).save(folder / "scene_0_truth.png", optimize=True)


def main() -> None:
    """Train, report the mean IoU on held-out digits, write weights and samples."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    training, held_out = load_splits()
    write_samples(held_out)
    network = train(training).half().float()  # as it will be read from the file
    scenes = held_out_scenes(held_out)
    with torch.inference_mode():
        found = network(to_input([scene.picture for scene in scenes])).argmax(1)
    iou = mean_iou(list(found.numpy().astype(np.uint8)), [scene.truth for scene in scenes])
    print(f"held out: mean IoU {iou:.3f} over {CLASSES} classes, {SCENES} scenes")
    file = SPECS / "weights" / "segmenter.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    state = network.state_dict().items()
    file.write_bytes(save({name: t.half() if t.is_floating_point() else t for name, t in state}))


if __name__ == "__main__":
    main()
