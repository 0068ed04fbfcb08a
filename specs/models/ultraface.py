"""UltraFace slim, a face detector of 0.3 million parameters for pictures of 320x240."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["UltraFaceSlim"]

BLOCKS = (
    (16, 32, 1),
    (32, 32, 2),
    (32, 32, 1),
    (32, 64, 2),
    (64, 64, 1),
    (64, 64, 1),
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
)
"""Planes in, planes out and stride of the blocks after the first one."""
MAPS = (8, 11, 13)
"""How many blocks come before each of the first three feature maps."""
PLANES = (64, 128, 256, 256)
"""Planes of the four feature maps."""
PRIORS = (3, 2, 2, 3)
"""How many priors there are at each cell of a map."""
CLASSES = 2
BOX = 4


def first_block() -> nn.Sequential:
    """A convolution that halves the picture."""
    convolution = nn.Conv2d(3, 16, kernel_size=3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(16), nn.ReLU())


def block(before: int, after: int, stride: int) -> nn.Sequential:
    """A depthwise convolution, then one of single pixels, each with its normalization."""
    return nn.Sequential(
        nn.Conv2d(before, before, 3, stride, padding=1, groups=before, bias=False),
        nn.BatchNorm2d(before),
        nn.ReLU(),
        nn.Conv2d(before, after, kernel_size=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


def separable(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A depthwise convolution, then one of single pixels, without normalization."""
    return nn.Sequential(
        nn.Conv2d(before, before, 3, stride, padding=1, groups=before),
        nn.ReLU(),
        nn.Conv2d(before, after, kernel_size=1),
    )


def extra() -> nn.Sequential:
    """The layers that make the fourth feature map, half as large as the third."""
    return nn.Sequential(
        nn.Conv2d(256, 64, kernel_size=1), nn.ReLU(), separable(64, 256, 2), nn.ReLU()
    )


def headers(numbers: int) -> nn.ModuleList:
    """For each feature map what gives ``numbers`` for every prior."""
    last = nn.Conv2d(PLANES[3], PRIORS[3] * numbers, kernel_size=3, padding=1)
    pairs = zip(PLANES[:3], PRIORS[:3], strict=True)
    return nn.ModuleList([*(separable(planes, count * numbers) for planes, count in pairs), last])


def joined(maps: Iterable[torch.Tensor], numbers: int) -> torch.Tensor:
    """Maps [batch, priors * numbers, h, w] as rows [batch, n, numbers]: by map, row, column."""
    rows = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, numbers) for x in maps]
    return torch.cat(rows, dim=1)


class UltraFaceSlim(nn.Module):
    """Find faces: four feature maps with 4420 priors, as SSD has them.

    The layers and their names are those of the checkpoint ``version-slim-320.pth`` of
    github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB.
    """

    def __init__(self) -> None:
        super().__init__()
        self.base_net = nn.Sequential(first_block(), *(block(*sizes) for sizes in BLOCKS))
        self.extras = nn.ModuleList([extra()])
        self.classification_headers = headers(CLASSES)
        self.regression_headers = headers(BOX)

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: A002 - names the graph's input
        """Map float32 ``input`` [batch, 3, 240, 320] to what each prior says, not yet decoded.

        Returns:
            Scores [batch, 4420, 2] (background, face), before softmax, and offsets [batch, 4420, 4]
            of centre and size from the priors.
        """
        maps: list[torch.Tensor] = []
        x = input
        for start, end in zip((0, *MAPS), MAPS, strict=False):
            x = self.base_net[start:end](x)
            maps.append(x)
        maps.append(self.extras[0](x))
        scores = [head(x) for head, x in zip(self.classification_headers, maps, strict=True)]
        offsets = [head(x) for head, x in zip(self.regression_headers, maps, strict=True)]
        return joined(scores, CLASSES), joined(offsets, BOX)
