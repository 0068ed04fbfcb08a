"""SRCNN, the super-resolution network of Dong et al. (arXiv 1501.00092), for colour pictures."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SRCNN"]


class SRCNN(nn.Module):
    """Enlarge RGB pictures ``scale`` times: bicubic, then three convolutions (9-1-5).

    Args:
        scale: how many times wider and higher the output is.
        padding_mode: what the convolutions see beyond the edge, as ``nn.Conv2d`` names it. The
            paper's zeros leave a dark frame around the picture; ``replicate`` does not.
    """

    def __init__(
        self, scale: int = 3, padding_mode: Literal["zeros", "replicate"] = "zeros"
    ) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(3, 64, kernel_size=9, padding=4, padding_mode=padding_mode)
        self.conv2 = nn.Conv2d(64, 32, kernel_size=1)
        self.conv3 = nn.Conv2d(32, 3, kernel_size=5, padding=2, padding_mode=padding_mode)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - names the graph's input
        """Map float32 ``input`` [batch, 3, h, w] to float32 [batch, 3, h*scale, w*scale].

        Both are RGB in 0..1; the output is not clipped and may leave that range a little.
        """
        enlarged = functional.interpolate(
            input, scale_factor=self.scale, mode="bicubic", align_corners=False
        )
        hidden = functional.relu(self.conv1(enlarged))
        return self.conv3(functional.relu(self.conv2(hidden)))
