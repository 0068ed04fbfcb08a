"""Detectors from the picture's bytes to boxes in its own pixels: a real one, and torchvision's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import runtime
from runtime.cli import predict
from runtime.predictor import Predictor

Build = Callable[..., Any]
Faces = dict[str, list[dict[str, Any]]]

WEIGHTS = "weights/ultraface_slim_320.pth"
PICTURES = ("faces_4.jpg", "faces_2.jpg", "face_000001.png")
STEP = 1e-3
"""Scores are given with four digits."""


@pytest.fixture(scope="session")
def faces(data: Path) -> Faces:
    """The faces of each picture, found by PyTorch; boxes as corners in its pixels, not clipped."""
    found = json.loads((data / "expected" / "ultraface_slim_320_faces.json").read_text("utf-8"))
    return {name: each["faces"] for name, each in found.items()}


@pytest.fixture(scope="session")
def pictures(data: Path) -> list[bytes]:
    return [(data / "images" / name).read_bytes() for name in PICTURES]


@pytest.fixture(scope="session")
def build_faces(
    data: Path, root: Path, tmp_path_factory: pytest.TempPathFactory, build_file: Build
) -> Callable[..., Path]:
    """Build ``specs/face_detector.yaml`` with the real weights, and with some parts changed."""
    from specs.schema import Weights

    folder = tmp_path_factory.mktemp("faces")
    for part in ("models", "labels"):
        (folder / part).symlink_to(root / "specs" / part)
    text = (root / "specs" / "face_detector.yaml").read_text("utf-8")

    def run(name: str, **changes: Any) -> Path:
        spec = {**yaml.safe_load(text), **changes, "name": name}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
        weights = Weights(path=str(data / WEIGHTS))
        build_file(folder / f"{name}.yaml", folder / "build" / name, weights=weights)
        return folder / "build" / name

    return run


@pytest.fixture(scope="session")
def face_artifact(build_faces: Callable[..., Path]) -> Path:
    return build_faces("face_detector")


@pytest.fixture(scope="session")
def detector(face_artifact: Path) -> Iterator[Predictor]:
    with runtime.load(face_artifact) as predictor:
        yield predictor


def overlap(box: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    first, second = np.array(box), np.array(other)
    shared = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    area = float(shared.clip(0).prod())
    return area / float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - area)


def same_faces(found: list[dict[str, Any]], wanted: list[dict[str, Any]], least: float) -> None:
    """As many faces as wanted, each with its own box and, best first, its score."""
    assert len(found) == len(wanted)
    for face, other in zip(found, wanted, strict=True):
        assert overlap(face["box"], other["box"]) > least
        assert face["score"] == pytest.approx(other["score"], abs=STEP)
        assert (face["index"], face["label"]) == (0, "face")


def test_every_face_is_found_where_it_is_in_the_picture_that_was_sent(
    detector: Predictor, pictures: list[bytes], faces: Faces
) -> None:
    answers = detector.predict(pictures)
    for name, answer in zip(PICTURES, answers, strict=True):
        same_faces(answer["detections"], faces[name], 0.9)


def test_a_picture_of_a_batch_gets_the_answer_that_it_gets_alone(
    detector: Predictor, pictures: list[bytes]
) -> None:
    together = detector.predict(pictures)
    for picture, answer in zip(pictures, together, strict=True):
        alone = detector.predict([picture])[0]["detections"]
        assert len(alone) == len(answer["detections"])
        for one, other in zip(alone, answer["detections"], strict=True):
            assert one["box"] == pytest.approx(other["box"], abs=1e-2)


def test_no_box_leaves_the_picture(detector: Predictor, pictures: list[bytes]) -> None:
    (answer,) = detector.predict([pictures[2]])
    left, top, right, bottom = answer["detections"][0]["box"]
    assert 0 <= left < right <= 256
    assert 0 <= top < bottom == 256


def test_a_picture_without_a_face_has_none(detector: Predictor) -> None:
    assert detector.predict([np.full((60, 90, 3), 90, np.uint8)])[0] == {"detections": []}


def processing_of(root: Path, folder: Path, **changes: Any) -> ModuleType:
    """The generated processing of ``specs/face_detector.yaml`` with some parts changed."""
    from compiler.processing import generate
    from specs.schema import Spec

    spec = yaml.safe_load((root / "specs" / "face_detector.yaml").read_text("utf-8"))
    generated = generate(Spec.model_validate({**spec, **changes}), {"": ["face"]})
    for name, text in generated.files.items():
        (folder / name).write_text(text, "utf-8")
    module = ModuleType("processing")
    module.__file__ = str(folder / "processing.py")
    exec(compile(generated.text, "processing.py", "exec"), vars(module))  # noqa: S102
    return module


def test_boxes_go_back_through_any_pre_processing(
    detector: Predictor, pictures: list[bytes], faces: Faces, root: Path, tmp_path: Path
) -> None:
    steps: list[Any] = [
        "decode_image",
        {"resize": {"shorter_side": 236}},
        {"pad": {"left": 9, "top": 4, "right": 2, "bottom": 0}},
        {"center_crop": [240, 320]},
        {"normalize": {"mean": 127, "std": 128}},
        {"layout": "CHW"},
    ]
    other = processing_of(root, tmp_path, preprocess=steps)
    tensors = other.preprocess(pictures[1])
    outputs = detector.predict_batch({"input": tensors["input"][None]})
    (answer,) = other.postprocess({**outputs, "@geometry": tensors["@geometry"][None]})
    found = sorted(answer["detections"], key=lambda face: face["box"][0])
    assert len(found) == len(faces[PICTURES[1]])
    for face, wanted in zip(found, faces[PICTURES[1]], strict=True):
        assert overlap(face["box"], wanted["box"]) > 0.8


def test_suppression_in_the_graph_finds_the_same_faces_on_every_engine(
    build_faces: Callable[..., Path], detector: Predictor, pictures: list[bytes], root: Path
) -> None:
    pytest.importorskip("openvino")
    engines = ("onnxruntime", "openvino")
    spec = yaml.safe_load((root / "specs" / "face_detector.yaml").read_text("utf-8"))
    parts: dict[str, Any] = {
        "preprocess": [],
        "postprocess": spec["postprocess"][:2],
        "placement": "graph",
        "targets": [{"engine": engine, "name": engine} for engine in engines],
    }
    artifact = build_faces("faces_in_graph", **parts)
    tensors = [{"input": detector.preprocess(picture)["input"]} for picture in pictures]
    wanted = [answer["detections"] for answer in detector.predict(pictures)]
    for engine in engines:
        graph = (artifact / "variants" / engine / "fused.onnx").read_bytes()
        assert b"NonMaxSuppression" in graph
        with runtime.load(artifact, engine) as predictor:
            answers = predictor.predict(tensors)
        for answer, faces_here in zip(answers, wanted, strict=True):
            assert len(answer["detections"]) == len(faces_here)
            for face, other in zip(answer["detections"], faces_here, strict=True):
                assert face["score"] == pytest.approx(other["score"], abs=STEP)
                assert face["label"] == "face"


def test_predict_draws_the_faces_on_the_picture(
    face_artifact: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces.png"
    picture = data / "images" / "faces_2.jpg"
    result = CliRunner().invoke(predict, [str(face_artifact), str(picture), "--plot", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("face") == 3
    with Image.open(out) as drawing:
        assert drawing.size == (640, round(344 * 640 / 450))
        pixels: NDArray[Any] = np.asarray(drawing)
    framed = (pixels == (9, 105, 218)).all(axis=2)
    columns = np.flatnonzero(framed.any(axis=0)) * 450 / 640
    assert columns.min() == pytest.approx(92.3, abs=3)


@pytest.mark.slow
def test_torchvisions_ssdlite_is_built_by_name_and_answers_detections(
    root: Path, tmp_path: Path, build_file: Build
) -> None:
    from specs.schema import RandomWeights, Weights

    weights = Weights(random=RandomWeights())
    build_file(root / "specs" / "ssdlite320.yaml", tmp_path / "ssdlite320", weights=weights)
    with runtime.load(tmp_path / "ssdlite320") as predictor:
        assert predictor.manifest.answer == "detections"
        answer = predictor.predict([np.full((48, 64, 3), 90, np.uint8)])[0]
        assert answer == {"detections": []}  # random weights are sure of nothing
        rows = {
            "boxes": np.zeros((1, 100, 4), np.float32),
            "scores": np.zeros((1, 100), np.float32),
            "labels": np.zeros((1, 100), np.int64),
            "@geometry": predictor.preprocess(np.zeros((480, 640, 3), np.uint8))["@geometry"][None],
        }
        rows["boxes"][0, :2] = [[32, 64, 160, 320], [0, 0, 400, 10]]
        rows["scores"][0, :2] = [0.9, 0.5]
        rows["labels"][0, :2] = [17, 1]
        (answer,) = predictor.postprocess([{name: array[0] for name, array in rows.items()}])
    cat, person = answer["detections"]
    assert (cat["index"], cat["label"], cat["box"]) == (16, {"en": "cat"}, [64, 96, 320, 480])
    assert (person["label"], person["box"]) == ({"en": "person"}, [0, 0, 640, 15])
