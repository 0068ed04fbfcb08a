"""``model: {torchvision: resnet50}``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from specs.base import Plain
from specs.sources._base import Source

__all__ = ["TorchvisionSource"]


class TorchvisionSource(Source):
    """A model by the name that ``torchvision.models.list_models()`` gives it."""

    name: ClassVar[str] = "torchvision"
    shorthand: ClassVar[str] = "model"

    model: str = Field(min_length=1)
    """The model's name."""
    kwargs: dict[str, Plain] = Field(default_factory=dict)
    """Keyword arguments of its builder, such as ``num_classes``."""
