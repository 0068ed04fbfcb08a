"""What makes parity of a detector with random weights mean something.

A trained detector is sure of a few things. One with random weights finds nothing at all, or as
much as it may report, in nearly equal scores: then two rows may change places with the last bit of
a score. So the threshold of its scores, an argument of torchvision's builders, is set such that a
few things are found; and images are taken in which PyTorch, asked alone, sees no near tie.
"""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["CLASSES", "set_threshold", "write_images"]

CLASSES = r"cls_score|cls_logits|classification_head\.module_list\.\d+(\.1)?$"
"""Names of the layers that give the scores of classes."""
FOUND = range(6, 21)
"""How many things are to be found in the first image."""
IMAGES = 2
"""How many images a detector is compared on."""
APART = 1e-3
"""Least distance of two scores' logits; those of two engines differ by about a tenth of it."""
SEEDS = 200
"""How many images are looked at, at most."""


def set_threshold(detector: Any, image: torch.Tensor) -> dict[str, float]:  # noqa: ANN401
    """Set the score below which nothing is reported; the builder's argument that does the same.

    A threshold cuts the tail off and changes nothing before it, so one run without any tells how
    many things each threshold leaves. It is put into the widest gap.

    Args:
        detector: what the torchvision source made.
        image: [3, H, W].
    """
    logits = _logits(detector, image)
    gaps = logits[:-1] - logits[1:]
    last = FOUND.start - 1 + int(gaps[FOUND.start - 1 : FOUND.stop - 1].argmax())
    threshold = round(float(torch.sigmoid((logits[last] + logits[last + 1]) / 2)), 6)
    _holder(detector).score_thresh = threshold
    two_stages = hasattr(detector.module, "roi_heads")
    return {"box_score_thresh" if two_stages else "score_thresh": threshold}


def _holder(detector: Any) -> Any:  # noqa: ANN401 - the part that has ``score_thresh``
    return getattr(detector.module, "roi_heads", detector.module)


def _logits(detector: Any, image: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """Logits of all scores that PyTorch gives an image without a threshold, best first."""
    holder = _holder(detector)
    threshold, holder.score_thresh = holder.score_thresh, 0.0
    with torch.no_grad():
        scores = detector(image[None])["scores"][0]
    holder.score_thresh = threshold
    return torch.logit(scores[scores > 0].double())


def write_images(detector: nn.Module, shape: tuple[int, ...], folder: Path) -> None:
    """Random images [3, H, W] as ``image0.npy`` …, without near ties.

    Raises:
        RuntimeError: too few were found.
    """
    count = 0
    for seed in range(SEEDS):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        if _clear(detector, image):
            np.save(folder / f"image{count}.npy", image.numpy())
            count += 1
        if count == IMAGES:
            return
    raise RuntimeError(f"only {count} of {SEEDS} images have scores that lie apart")


def _clear(detector: Any, image: torch.Tensor) -> bool:  # noqa: ANN401
    """Whether some things are found, and no score is near another or the threshold."""
    threshold = torch.logit(torch.tensor(_holder(detector).score_thresh, dtype=torch.float64))
    logits = _logits(detector, image)
    found = logits[logits > threshold]
    near = torch.cat((found, logits[len(found) : len(found) + 1], threshold[None]))
    near = near.sort(descending=True).values
    return len(found) >= FOUND.start // 2 and bool((near[:-1] - near[1:] >= APART).all())
