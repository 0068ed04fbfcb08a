"""Loads ``model: {torchvision: NAME}``."""

# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# torch's functions are typed in part, torchvision's not at all.
from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import torch

from compiler.sources._base import Model, SourceLoader, TorchModel, seed_of, told, with_weights
from compiler.sources._detection import Detector, most_detections
from compiler.weights import FoundWeights
from specs.errors import SourceError
from specs.faults import nearest
from specs.sources.torchvision import TorchvisionSource

__all__ = ["TorchvisionLoader"]

DOWNLOADS = frozenset({"weights", "weights_backbone", "pretrained", "pretrained_backbone"})
NOTHING_FOUND = (
    "a detector with random weights may find nothing: parity then compares empty rows, and proves "
    "little"
)


class TorchvisionLoader(SourceLoader):
    """Builds a model of torchvision without its own download."""

    name: ClassVar[str] = TorchvisionSource.name

    @classmethod
    def load(cls, source: TorchvisionSource, folder: Path, weights: FoundWeights) -> Model:
        """Build by name; the weights come from the spec alone."""
        from torchvision import models

        known = models.list_models()
        if source.model not in known:
            message = f"torchvision has no model '{source.model}'"
            raise SourceError(message, hint=nearest(source.model, known), code="model_unknown")
        _refuse_downloads(source)
        torch.manual_seed(seed_of(weights))
        kwargs = {"weights": None, **_no_backbone(models, source.model), **source.kwargs}
        try:
            module = models.get_model(source.model, **kwargs)
        except Exception as error:  # each builder checks its arguments in its own way
            message = f"torchvision.models.{source.model} refuses its kwargs: {told(error)}"
            raise SourceError(message, hint="correct model.torchvision.kwargs") from error
        return _as_function(with_weights(module, weights), module, weights)


def _as_function(model: TorchModel, module: torch.nn.Module, weights: FoundWeights) -> TorchModel:
    """A detector as a function of tensors; every other model is one already."""
    most = most_detections(module)
    if most is None:
        return model
    detector = Detector(module, most).eval()
    notes = (NOTHING_FOUND,) if weights.file is None else ()
    return TorchModel(detector, detector, (*model.notes, *notes))


def _refuse_downloads(source: TorchvisionSource) -> None:
    """Weights that torchvision fetches itself would come unchecked, and unsaid by the manifest."""
    for name in DOWNLOADS & source.kwargs.keys():
        if source.kwargs[name]:
            message = f"model.torchvision.kwargs.{name} would make torchvision download weights"
            hint = "remove it, and name them under weights: {url, sha256}"
            raise SourceError(message, hint=hint, code="source_downloads")


def _no_backbone(models: Any, name: str) -> dict[str, None]:  # noqa: ANN401 - a module
    """Keep a detection or segmentation builder from fetching its backbone's weights."""
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    return {"weights_backbone": None} if "weights_backbone" in parameters else {}
