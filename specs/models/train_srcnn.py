"""Train ``SRCNN`` for x3 on scikit-learn's two bundled photos and write a nested checkpoint.

Run ``python specs/models/train_srcnn.py`` (a few minutes on one core). It writes
``specs/weights/srcnn_x3.pth``, a checkpoint as other frameworks nest it::

    {"meta": {...plain values...}, "state_dict": {"generator.conv1.weight": ..., ...}}

which loads with ``weights_only=True``. It then prints the PSNR of the network and of torch's
bicubic on the lowest quarter of each photo, which training never sees, and, where the
environment variable ``DEPLOYC_TEST_DATA`` names a folder with ``images/face_000001.png``, on it.

PSNR: shrink to 1/3 with PIL bicubic, enlarge, clip to 0..1, cut 8 pixels off each side, peak 1.0,
over the three colour planes together.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# (torch and scikit-learn leave some of their own types unknown)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from srcnn import SRCNN
from torch import nn
from torch.nn import functional

SPECS = Path(__file__).resolve().parents[1]
SEED = 0
SCALE = 3
STEPS = 4000
BATCH = 8
PATCH = 24  # side of a shrunk crop; its original is SCALE times as wide
MARGIN = 6  # enlarged pixels that zero padding reaches (4 + 0 + 2), left out of the loss
SPLIT_ROW = 318  # training sees the rows above it, the report the rest
TRAINING_SIZES = (1.0, 0.75, 0.5)  # the photos are also trained on when shrunk by these

Picture = NDArray[np.uint8]  # [h, w, 3], RGB, both sides multiples of SCALE
Pair = tuple[torch.Tensor, torch.Tensor]  # shrunk and original, float32 [3, h, w] in 0..1


def crop(picture: Picture) -> Picture:
    """Crop uint8 [h, w, 3], from the top left, to multiples of SCALE."""
    height, width = (side - side % SCALE for side in picture.shape[:2])
    return picture[:height, :width]


def resize(picture: Picture, height: int, width: int) -> Picture:
    """Resize uint8 [h, w, 3] with PIL's bicubic filter."""
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def to_planes(picture: Picture) -> torch.Tensor:
    """Turn uint8 [h, w, 3] into float32 [3, h, w] in 0..1."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).to(torch.float32) / 255.0


def to_pair(picture: Picture) -> Pair:
    """Return a picture shrunk to 1/SCALE and the picture itself."""
    original = crop(picture)
    height, width = original.shape[:2]
    return to_planes(resize(original, height // SCALE, width // SCALE)), to_planes(original)


def training_pairs(photos: list[Picture]) -> list[Pair]:
    """Return the upper part of each photo at each of TRAINING_SIZES as pairs."""
    pairs: list[Pair] = []
    for photo in photos:
        upper = photo[:SPLIT_ROW]
        height, width = upper.shape[:2]
        pairs += [to_pair(resize(upper, int(height * s), int(width * s))) for s in TRAINING_SIZES]
    return pairs


def draw(pairs: list[Pair], generator: torch.Generator) -> Pair:
    """Cut one random patch [3, PATCH, PATCH] and its original, turned and flipped at random."""

    def below(limit: int) -> int:
        return int(torch.randint(0, limit, (1,), generator=generator))

    small, large = pairs[below(len(pairs))]
    top, left = below(small.shape[1] - PATCH + 1), below(small.shape[2] - PATCH + 1)
    turns, mirror = below(4), below(2) == 1
    planes = torch.randperm(3, generator=generator)

    def cut(picture: torch.Tensor, unit: int) -> torch.Tensor:
        rows = slice(top * unit, (top + PATCH) * unit)
        columns = slice(left * unit, (left + PATCH) * unit)
        turned = torch.rot90(picture[planes, rows, columns], turns, (1, 2))
        return turned.flip(2) if mirror else turned

    return cut(small, 1), cut(large, SCALE)


def draw_batch(pairs: list[Pair], generator: torch.Generator) -> Pair:
    """Stack BATCH draws: [BATCH, 3, PATCH, PATCH] and the originals, SCALE times as wide."""
    drawn = [draw(pairs, generator) for _ in range(BATCH)]
    return torch.stack([small for small, _ in drawn]), torch.stack([large for _, large in drawn])


def start_as_identity(network: SRCNN) -> None:
    """Let the first three planes pass through unchanged, so training starts at bicubic.

    The network has no skip connection; the other planes start at random and unused.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                nn.init.dirac_(parameter[:3, :3])
        network.conv2.weight[:3, 3:].zero_()
        network.conv3.weight[:, 3:].zero_()


def loss(output: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
    """Return the mean over the batch [n, 3, h, w] of each patch's root mean squared error.

    The root keeps the sharpest patches from drowning the smooth ones.
    """
    inside = slice(MARGIN, -MARGIN)
    squares = (output - large)[..., inside, inside].square()
    return (squares.mean(dim=(1, 2, 3)) + 1e-6).sqrt().mean()


def train(pairs: list[Pair]) -> SRCNN:
    """Fit a fresh network with Adam and a one-cycle rate."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = SRCNN(scale=SCALE)
    start_as_identity(network)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=STEPS)
    for _ in range(STEPS):
        small, large = draw_batch(pairs, generator)
        optimizer.zero_grad()
        loss(network(small), large).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    return network.eval()


def psnr(output: torch.Tensor, original: torch.Tensor) -> float:
    """Return the PSNR in dB of two float32 [3, h, w], by the procedure of the module's head."""
    inside = slice(8, -8)
    error = output.clamp(0.0, 1.0)[:, inside, inside] - original[:, inside, inside]
    return float(-10.0 * torch.log10(error.square().mean()))


def report(name: str, network: SRCNN, picture: Picture) -> None:
    """Print the PSNR of the network and of torch's bicubic on uint8 [h, w, 3]."""
    small, original = to_pair(picture)
    with torch.inference_mode():
        ours = network(small[None])[0]
        bicubic = functional.interpolate(
            small[None], scale_factor=SCALE, mode="bicubic", align_corners=False
        )[0]
    print(f"{name}: bicubic {psnr(bicubic, original):.3f} dB, SRCNN {psnr(ours, original):.3f} dB")


def save(network: SRCNN, path: Path) -> None:
    """Save the nested checkpoint with ``generator.`` before every key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    meta = {"name": "SRCNN", "scale": SCALE, "steps": STEPS, "seed": SEED}
    torch.save({"meta": meta, "state_dict": state}, path)


def main() -> None:
    """Train, save the checkpoint, report the PSNR figures."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    bunch = cast("Any", load_sample_images())
    photos: list[Picture] = bunch.images
    network = train(training_pairs(photos))
    save(network, SPECS / "weights" / "srcnn_x3.pth")
    for name, photo in zip(bunch.filenames, photos, strict=True):
        report(f"{Path(name).name}, lowest quarter", network, photo[SPLIT_ROW:])
    if folder := os.environ.get("DEPLOYC_TEST_DATA"):
        face = Image.open(Path(folder) / "images" / "face_000001.png").convert("RGB")
        report("face_000001.png", network, np.asarray(face))


if __name__ == "__main__":
    main()
