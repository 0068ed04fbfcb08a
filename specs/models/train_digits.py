"""Train ``DigitsNet`` on scikit-learn's bundled digits and write what the digits specs need.

Run ``python specs/models/train_digits.py``. It writes, below ``specs/``:

* ``weights/digits.safetensors``: the state dict, float32;
* ``samples/digits/digit_0.png`` .. ``digit_9.png``: the first held-out picture of each class
  (8x8, mode L), and ``samples/digits/labels.csv`` (``file,class_index``).

The split, the seed and the thread count are fixed, so two runs on one machine write the same
bytes. The pixels are those a server sees after decoding a sample: ``round(v * 255 / 16) / 255``.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch, safetensors and scikit-learn leave some of their own types unknown)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from digits import DigitsNet
from PIL import Image
from safetensors.torch import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPECS = Path(__file__).resolve().parents[1]
SEED = 0
EPOCHS = 60
BATCH = 64
PEAK_RATE = 3e-3


class Split(NamedTuple):
    """Pictures uint8 [n, 8, 8] in 0..255 and their classes int64 [n]."""

    pictures: NDArray[np.uint8]
    classes: NDArray[np.int64]


def load_splits() -> tuple[Split, Split]:
    """Return the training split (1437 pictures) and the held-out split (360)."""
    bunch = cast("Any", load_digits())
    values: NDArray[np.float64] = bunch.images
    pictures = np.round(values * 255.0 / 16.0).astype(np.uint8)
    classes = np.asarray(bunch.target, dtype=np.int64)
    parts = cast(
        "list[Any]",
        train_test_split(pictures, classes, test_size=0.2, stratify=classes, random_state=0),
    )
    return Split(parts[0], parts[2]), Split(parts[1], parts[3])


def to_input(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """Turn uint8 [n, 8, 8] into the network's float32 [n, 1, 8, 8] in 0..1."""
    return torch.from_numpy(pictures).to(torch.float32).div(255.0).unsqueeze(1)


def shift(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move each picture of [n, 1, 8, 8] by -1, 0 or 1 pixel each way; zeros come in."""
    moves = torch.randint(0, 3, (len(batch), 2), generator=generator)
    rows = (moves[:, :1] + torch.arange(8)).view(-1, 1, 8, 1)
    columns = (moves[:, 1:] + torch.arange(8)).view(-1, 1, 1, 8)
    which = torch.arange(len(batch)).view(-1, 1, 1, 1)
    return functional.pad(batch, (1, 1, 1, 1))[which, 0, rows, columns]


def train(split: Split) -> DigitsNet:
    """Fit a fresh network with Adam and a one-cycle rate on shifted pictures."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    inputs, classes = to_input(split.pictures), torch.from_numpy(split.classes)
    network = DigitsNet()
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-4)
    steps = EPOCHS * -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(inputs), generator=generator), BATCH):
            logits = network(shift(inputs[chosen], generator))
            optimizer.zero_grad()
            functional.cross_entropy(logits, classes[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def count_right(network: DigitsNet, split: Split) -> int:
    """Count the pictures whose largest logit is their class."""
    with torch.inference_mode():
        predicted = network(to_input(split.pictures)).argmax(dim=1)
    return int((predicted == torch.from_numpy(split.classes)).sum())


def write_samples(split: Split, folder: Path) -> None:
    """Write the first picture of each class in ``split`` and ``labels.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,class_index"]
    for digit in range(10):
        first = int(np.flatnonzero(split.classes == digit)[0])
        Image.fromarray(split.pictures[first]).save(folder / f"digit_{digit}.png")
        lines.append(f"digit_{digit}.png,{digit}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Train, report the held-out accuracy, write weights and samples."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    training, held_out = load_splits()
    network = train(training)
    right, total = count_right(network, held_out), len(held_out.classes)
    print(f"held out: {right} right of {total} ({100 * right / total:.2f} %)")
    weights = SPECS / "weights" / "digits.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(save(network.state_dict()))
    write_samples(held_out, SPECS / "samples" / "digits")


if __name__ == "__main__":
    main()
