"""A small transformer encoder for English sentences about programming."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SentenceEncoder"]

BLOCKED = -1e4
"""Added to the score of a token that is padding; float16 holds it, and exp of it is 0."""
WAVELENGTH = 10_000.0
"""Longest wavelength of the positions: Vaswani et al. (arXiv 1706.03762), section 3.5."""


class SentenceEncoder(nn.Module):
    """Turn token ids into one vector for each token; their mean stands for the sentence.

    Pre-norm blocks as in Xiong et al. (arXiv 2002.04745), sine positions. A block adds nothing
    until it is trained, so that a fresh network is a mean of word vectors.

    Args:
        vocabulary: number of token ids.
        width: length of a token's vector.
        blocks: number of blocks.
        heads: attention heads of a block; they divide ``width``.
        longest: most tokens of a sentence.
    """

    positions: torch.Tensor

    def __init__(
        self,
        vocabulary: int = 4096,
        width: int = 128,
        blocks: int = 2,
        heads: int = 4,
        longest: int = 128,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.amplitude = nn.Parameter(torch.zeros(1))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(blocks)])
        self.register_buffer("positions", sines(longest, width), persistent=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Map int64 ``input_ids`` [batch, tokens] to float32 [batch, tokens, width].

        ``attention_mask`` int64 [batch, tokens] is 0 where a token is padding; such a token
        changes no other one's vector, and its own means nothing.
        """
        padding = (attention_mask == 0).to(self.positions.dtype) * BLOCKED
        x = self.words(input_ids) + self.amplitude * self.positions[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x, padding[:, None, None, :])
        return x


class Block(nn.Module):
    """Self-attention, then two linear layers with GELU between; each is added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.norm_mid = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        for last in (self.mixed, self.narrow):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Map [batch, tokens, width] to the same; ``padding`` [batch, 1, 1, tokens] is added."""
        x = x + self.mixed(self._attend(self.norm_in(x), padding))
        return x + self.narrow(functional.gelu(self.widen(self.norm_mid(x))))

    def _attend(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        width = x.shape[2]
        query, key, value = (self._by_head(part) for part in self.query_key_value(x).chunk(3, -1))
        scores = query @ key.transpose(2, 3) / math.sqrt(width / self.heads) + padding
        mixed = scores.softmax(-1) @ value
        return mixed.transpose(1, 2).flatten(2)

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        """Turn [batch, tokens, width] into [batch, heads, tokens, width / heads]."""
        batch, tokens, width = x.shape
        return x.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)


def sines(count: int, width: int) -> torch.Tensor:
    """Sines and cosines of every position, float32 [count, width]."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(WAVELENGTH) / width))
    angles = torch.arange(count)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
