"""Torchvision's detectors as plain functions of one tensor, as a graph and a batch need them.

A detector of torchvision takes a list of images and gives a list of dicts, one row for each thing
it found: how many, nobody knows before. Here the images are one tensor and each output has a row
for every thing that the detector may find at most; rows that it leaves empty are zero, also in
their score, which a real row's never is.
"""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import torch

__all__ = ["OUTPUTS", "Detector", "most_detections"]

OUTPUTS = ("boxes", "scores", "labels", "masks", "keypoints", "keypoints_scores")
"""The order of the outputs; each detector has the first three, and those of the rest it knows."""


def most_detections(module: torch.nn.Module) -> int | None:
    """How many things a detector reports at most for an image; None for any other module."""
    most = getattr(getattr(module, "roi_heads", module), "detections_per_img", None)
    return most if isinstance(most, int) else None


class Detector(torch.nn.Module):
    """A detector of torchvision that takes a batch and gives rows of a fixed number.

    Args:
        module: what torchvision's builder made.
        most: how many rows each output has, D.

    The forward takes images [N, 3, height, width], float32 from 0 to 1, and gives a dict, in the
    order of ``OUTPUTS``: boxes [N, D, 4] (left, top, right, bottom in pixels), scores [N, D],
    labels [N, D] int64, and where the detector has them masks [N, D, 1, height, width] and
    keypoints [N, D, K, 3] with keypoints_scores [N, D, K].
    """

    def __init__(self, module: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.module = module
        self.most = most

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The detections of each image, best first, then empty rows."""
        found = self.module(list(images.unbind(0)))
        names = [name for name in OUTPUTS if name in found[0]]
        return {name: torch.stack([self._full(each[name]) for each in found]) for name in names}

    def _full(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [n, ...] with zeros after them, [D, ...]; an index keeps D fixed in the graph."""
        empty = rows.new_zeros((self.most, *rows.shape[1:]))
        return torch.cat((rows, empty)).index_select(0, torch.arange(self.most))
