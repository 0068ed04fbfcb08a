"""A small convolutional network for scikit-learn's 8x8 handwritten digits."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["DigitsNet"]


class DigitsNet(nn.Module):
    """Classify one-plane 8x8 pictures into the digits 0..9 (58,314 parameters)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(64 * 2 * 2, 10)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - names the graph's input
        """Map float32 ``input`` [batch, 1, 8, 8] in 0..1 to float32 logits [batch, 10]."""
        return self.classifier(torch.flatten(self.features(input), start_dim=1))
