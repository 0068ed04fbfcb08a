"""A small U-Net (arXiv 1505.04597) that says of every pixel which digit's stroke it is."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Segmenter"]


class Segmenter(nn.Module):
    """Give every pixel of 64 x 64 pictures a score for background and for each digit.

    Args:
        classes: number of scores a pixel gets.
        widths: channels at full, half, quarter and eighth size.
    """

    def __init__(self, classes: int = 11, widths: tuple[int, ...] = (12, 24, 40, 48)) -> None:
        super().__init__()
        before = (3, *widths[:-1])
        self.down = nn.ModuleList([pair(i, o) for i, o in zip(before, widths, strict=True)])
        steps = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.up = nn.ModuleList([pair(coarse + fine, fine) for coarse, fine in steps])
        self.head = nn.Conv2d(widths[0], classes, kernel_size=1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - names the graph's input
        """Map float32 ``input`` [batch, 3, 64, 64] in 0..1 to scores [batch, classes, 64, 64]."""
        kept: list[torch.Tensor] = []
        x = input
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, fine in zip(self.up, kept[-2::-1], strict=True):
            grown = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([grown, fine], dim=1))
        return self.head(x)


def pair(entering: int, leaving: int) -> nn.Sequential:
    """Two convolutions, each with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(entering, leaving, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(leaving),
        nn.ReLU(),
        nn.Conv2d(leaving, leaving, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(leaving),
        nn.ReLU(),
    )
