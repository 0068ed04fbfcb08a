"""Every spec of the project is built, served behind one gate, and answers over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import runtime

pytestmark = [pytest.mark.ray, pytest.mark.slow]

IMAGENET = ("mobilenet_v2", "resnet50", "resnet50_bs1", "resnet50_bs128")
REAL = "mobilenet_real"
RESERVED = {"cpus": 0, "threads": 1}


@pytest.fixture(scope="module")
def artifacts(
    root: Path, tmp_path_factory: pytest.TempPathFactory, build_file: Callable[..., Any]
) -> dict[str, Path]:
    """The ImageNet specs with random weights: theirs come from the network."""
    from compiler.weights import parse_override

    folder = tmp_path_factory.mktemp("specs")
    for name in IMAGENET:
        weights = parse_override("random:0")
        build_file(root / "specs" / f"{name}.yaml", folder / name, weights=weights)
    return {name: folder / name for name in IMAGENET}


@pytest.fixture(scope="module")
def client(
    request: pytest.FixtureRequest,
    artifacts: dict[str, Path],
    start_serving: Callable[..., Any],
) -> Generator[httpx.Client, None, None]:
    """All specs, and MobileNetV2 with real weights where they are there, behind one gate."""
    for name in ("digits", "linear_regression", "srcnn"):
        fixture = "linear_artifact" if name == "linear_regression" else f"{name}_artifact"
        artifacts[name] = request.getfixturevalue(fixture)
    if os.environ.get("DEPLOYC_TEST_DATA"):
        artifacts[REAL] = request.getfixturevalue("mobilenet_artifact")
    models = [
        {"artifact": str(folder), "name": name, **RESERVED} for name, folder in artifacts.items()
    ]
    url = start_serving({"app": models}).url()
    with httpx.Client(base_url=url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A picture with gradients, as a JPEG of 300 x 200."""
    y, x = np.mgrid[0:200, 0:300]
    pixels = np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("name", IMAGENET)
def test_an_imagenet_spec_answers_with_five_classes_in_two_languages(
    client: httpx.Client, name: str, photo: bytes, artifacts: dict[str, Path]
) -> None:
    response = client.post(f"/models/{name}/predict", content=photo)
    assert response.status_code == 200, response.text
    classes = response.json()["answer"]["classes"]
    assert len(classes) == 5
    assert all(set(entry["label"]) == {"en", "zh"} for entry in classes)
    with runtime.load(artifacts[name]) as predictor:
        (expected,) = predictor.predict([photo])
    assert classes[0]["index"] == expected["classes"][0]["index"]


def test_random_weights_are_announced_over_http(client: httpx.Client) -> None:
    cards = {card["name"]: card for card in client.get("/models").json()["models"]}
    assert all("RANDOM" in cards[name]["warnings"][0] for name in IMAGENET)
    assert cards["digits"]["warnings"] == []


def test_digits_answers_with_the_digit(client: httpx.Client, root: Path) -> None:
    for digit in range(10):
        picture = root / "specs" / "samples" / "digits" / f"digit_{digit}.png"
        answer = client.post("/models/digits/predict", content=picture.read_bytes()).json()
        assert answer["answer"]["classes"][0]["index"] == digit


def test_linear_regression_takes_lists_and_npy_and_answers_with_tensors(
    client: httpx.Client,
) -> None:
    by_list = client.post("/models/linear_regression/predict", json=[3.0, 40.0])
    file = io.BytesIO()
    np.save(file, np.array([[3, 40], [0, 0]], np.float32))
    by_npy = client.post("/models/linear_regression/predict", content=file.getvalue())
    assert by_list.json()["answer"]["outputs"]["Y"] == pytest.approx([3.80666], abs=1e-4)
    first, second = by_npy.json()["answers"]
    assert first == by_list.json()["answer"]
    assert second["outputs"]["Y"] == pytest.approx([2.8048], abs=1e-4)


def test_srcnn_answers_with_a_png_where_the_client_wants_one(
    client: httpx.Client, photo: bytes
) -> None:
    as_png = client.post("/models/srcnn/predict", content=photo, headers={"Accept": "image/png"})
    assert as_png.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(as_png.content)) as image:
        assert image.size == (900, 600)
    as_json = client.post("/models/srcnn/predict", content=photo).json()["answer"]["image"]
    assert base64.b64decode(as_json["base64"]) == as_png.content


def test_real_pictures_get_the_same_answer_over_http_as_from_the_runtime(
    client: httpx.Client, mobilenet_artifact: Path, labelled: list[tuple[Path, int]], data: Path
) -> None:
    with runtime.load(mobilenet_artifact) as predictor:
        expected = predictor.predict([file.read_bytes() for file, _ in labelled])
    right = 0
    for (file, index), wanted in zip(labelled, expected, strict=True):
        response = client.post(f"/models/{REAL}/predict", content=file.read_bytes())
        found = response.json()["answer"]["classes"]
        best = [entry["index"] for entry in found]
        assert best[0] == wanted["classes"][0]["index"], file.name
        assert set(best) == {entry["index"] for entry in wanted["classes"]}, file.name
        right += best[0] == index
    figures = json.loads((data / "expected" / "figures.json").read_text("utf-8"))
    assert right == figures["mobilenet_v2"]["top1"]
