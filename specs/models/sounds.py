"""A small convolutional network for kinds of sounds, on their mel spectrogram."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["SoundsNet"]


class SoundsNet(nn.Module):
    """Classify a spectrogram of 32 bands into six kinds of sounds (7,894 parameters)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 16, kernel_size=5, padding=2),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(16, 6)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Map float32 ``mels`` [batch, 32, frames] to float32 logits [batch, 6]."""
        return self.classifier(self.features(mels[:, None]).mean((2, 3)))
