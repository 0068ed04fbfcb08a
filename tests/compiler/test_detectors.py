"""torchvision's detectors as functions of one tensor, and other models of several outputs."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compiler.sources import TorchModel, load_model
from compiler.sources._detection import Detector, most_detections
from compiler.weights import FoundWeights
from specs.errors import DeploycError
from specs.manifest import WeightsOrigin
from specs.schema import StateDict
from specs.sources.torchvision import TorchvisionSource

Spec = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]

MOST = 3
MODEL = "fasterrcnn_mobilenet_v3_large_320_fpn"


class _Finds(torch.nn.Module):
    """Finds as many things in an image as its first pixel says, in torchvision's form."""

    def __init__(self) -> None:
        super().__init__()
        self.detections_per_img = MOST

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [self._rows(int(image[0, 0, 0])) for image in images]

    def _rows(self, count: int) -> dict[str, torch.Tensor]:
        return {
            "masks": torch.ones(count, 1, 8, 8),
            "labels": torch.full((count,), 7),
            "boxes": torch.ones(count, 4),
            "scores": torch.ones(count),
        }


class _Heads(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.roi_heads = _Finds()


def _detect(*counts: int) -> dict[str, torch.Tensor]:
    images = torch.tensor(counts, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    return Detector(_Finds(), MOST)(images)


def test_each_image_gets_as_many_rows_as_may_be_found_at_most() -> None:
    shapes = {name: list(tensor.shape) for name, tensor in _detect(0, 2).items()}
    assert shapes == {
        "boxes": [2, MOST, 4],
        "scores": [2, MOST],
        "labels": [2, MOST],
        "masks": [2, MOST, 1, 8, 8],
    }


def test_outputs_come_in_one_order_whatever_the_detectors_own_is() -> None:
    assert list(_detect(1)) == ["boxes", "scores", "labels", "masks"]


def test_rows_without_a_detection_are_zero_and_the_others_are_kept() -> None:
    found = _detect(0, 2, MOST)
    assert found["scores"].tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert found["labels"].tolist() == [[0, 0, 0], [7, 7, 0], [7, 7, 7]]
    assert found["labels"].dtype == torch.int64


def test_a_detector_is_known_by_how_much_it_reports_at_most() -> None:
    assert most_detections(_Finds()) == MOST
    assert most_detections(_Heads()) == MOST
    assert most_detections(torch.nn.Linear(2, 2)) is None


def _detector_spec(spec: Spec, **parts: Any) -> dict[str, Any]:
    kwargs = {"min_size": 32, "max_size": 32, "box_score_thresh": 0.0, "num_classes": 3}
    return spec(
        **{
            "model": {"torchvision": {"model": MODEL, "kwargs": kwargs}},
            "weights": {"random": {}},
            "inputs": {"x": {"shape": [1, 3, 32, 32]}},
            "outputs": {
                "boxes": {"shape": [1, 100, 4]},
                "scores": {"shape": [1, 100]},
                "labels": {"shape": [1, 100], "dtype": "int64"},
            },
            "dynamic_axes": {},
            **parts,
        }
    )


def test_a_detector_of_torchvision_is_built_by_its_name_alone(
    spec: Spec, build_spec: Build
) -> None:
    result = build_spec(_detector_spec(spec))
    assert result.manifest.graph.nodes["NonMaxSuppression"] == 2
    with np.load(Path(result.folder) / "golden" / "case0.npz") as arrays:
        assert arrays["outputs/scores"].max() > 0


def test_a_detector_with_random_weights_says_that_it_may_find_nothing() -> None:
    source = TorchvisionSource(model=MODEL, kwargs={"num_classes": 3})
    weights = FoundWeights(WeightsOrigin(origin="random", seed=0), None, StateDict())
    model = load_model(source, Path(), weights)
    assert isinstance(model, TorchModel)
    assert "may find nothing" in model.notes[0]


def test_a_detector_asked_for_a_dynamic_batch_is_refused_and_says_what_to_ask_for(
    spec: Spec, refused: Refused
) -> None:
    outputs = {
        "boxes": {"shape": ["batch", 100, 4]},
        "scores": {"shape": ["batch", 100]},
        "labels": {"shape": ["batch", 100], "dtype": "int64"},
    }
    inputs = {"x": {"shape": ["batch", 3, 32, 32]}}
    axes = {"batch": {"min": 1, "opt": 2, "max": 2}}
    error = refused(_detector_spec(spec, inputs=inputs, outputs=outputs, dynamic_axes=axes))
    assert "fixed" in error.hint


def test_a_models_dict_gives_outputs_in_its_own_order(spec: Spec, build_spec: Build) -> None:
    model = "deeplabv3_mobilenet_v3_large"
    kwargs = {"aux_loss": True, "num_classes": 2}
    shape = {"shape": ["batch", 2, 32, 32]}
    result = build_spec(
        spec(
            model={"torchvision": {"model": model, "kwargs": kwargs}},
            weights={"random": {}},
            inputs={"x": {"shape": ["batch", 3, 32, 32]}},
            outputs={"out": shape, "aux": shape},
            dynamic_axes={"batch": {"min": 1, "opt": 2, "max": 2}},
        )
    )
    assert list(result.manifest.outputs) == ["out", "aux"]
