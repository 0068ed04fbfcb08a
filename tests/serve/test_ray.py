"""Applications on a real Ray: one model that speaks HTTP itself, and two behind a gate."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import runtime

pytestmark = pytest.mark.ray

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
ONE, MANY = "/one/models/digits/predict", "/many/models/digits/predict"


@pytest.fixture
def client(ray_url: str) -> Generator[httpx.Client, None, None]:
    with httpx.Client(base_url=ray_url, timeout=60) as client:
        yield client


@pytest.fixture
def pictures(root: Path) -> list[Path]:
    return sorted((root / "specs" / "samples" / "digits").glob("*.png"))


@pytest.mark.parametrize("path", [ONE, MANY])
def test_answers_are_those_of_the_runtime(
    client: httpx.Client, path: str, pictures: list[Path], digits_artifact: Path
) -> None:
    with runtime.load(digits_artifact) as predictor:
        expected = predictor.predict([picture.read_bytes() for picture in pictures])
    for picture, answer in zip(pictures, expected, strict=True):
        response = client.post(path, content=picture.read_bytes())
        assert response.status_code == 200
        found, wanted = response.json()["answer"]["classes"], answer["classes"]
        assert [c["index"] for c in found] == [c["index"] for c in wanted]
        assert [c["label"] for c in found] == [c["label"] for c in wanted]
        assert found[0]["probability"] == pytest.approx(wanted[0]["probability"], abs=1e-5)


@pytest.mark.parametrize(("app", "names"), [("one", ["digits"]), ("many", ["digits", "line"])])
def test_an_application_lists_its_models_and_is_ready(
    client: httpx.Client, app: str, names: list[str]
) -> None:
    cards = client.get(f"/{app}/models").json()["models"]
    assert [card["name"] for card in cards] == names
    assert {card["state"] for card in cards} == {"ready"}
    assert client.get(f"/{app}/healthz").json() == {"status": "ok"}
    ready = client.get(f"/{app}/readyz")
    assert ready.status_code == 200
    assert ready.json()["models"] == dict.fromkeys(names, "ready")


def test_tensors_go_to_the_model_that_takes_them(client: httpx.Client) -> None:
    response = client.post("/many/models/line/predict", json=[[0, 0], [1, 1]])
    assert response.status_code == 200, response.text
    assert len(response.json()["answers"]) == 2


@pytest.mark.parametrize("app", ["one", "many"])
@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/models/digits/predict", b"GIF89a", (415, "not_an_image")),
        ("/models/digits/predict", b"", (400, "empty_item")),
        ("/models/digits/predict", b"[1, 2", (400, "bad_json")),
        ("/models/digit/predict", b"x", (404, "unknown_model")),
        ("/model", b"x", (404, "unknown_route")),
        ("/healthz", b"x", (405, "wrong_method")),
        ("/models/digits/predict", bytes(20_000_001), (413, "too_large")),
    ],
)
def test_bad_requests_have_one_form_of_error(
    client: httpx.Client, app: str, path: str, body: bytes, expected: tuple[int, str]
) -> None:
    response = client.post(f"/{app}{path}", content=body)
    error = response.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert (response.status_code, error["code"]) == expected


def test_a_streamed_body_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    def stream() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(1_000_000)

    response = client.post(ONE, content=stream())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("path", [ONE, MANY])
def test_requests_at_once_are_all_answered_each_with_the_batch_it_rode_in(
    client: httpx.Client, path: str, pictures: list[Path]
) -> None:
    bodies = [picture.read_bytes() for picture in pictures] * 20

    def ask(body: bytes) -> httpx.Response:
        return client.post(path, content=body)

    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(ask, bodies))
    assert {response.status_code for response in responses} == {200}
    assert all(_batch(response) >= 1 for response in responses)


@pytest.mark.parametrize("path", [ONE, MANY])
def test_items_that_arrive_together_share_a_batch(
    client: httpx.Client, path: str, pictures: list[Path]
) -> None:
    pixels = [np.asarray(Image.open(picture).convert("RGB")).tolist() for picture in pictures[:3]]
    batches: set[int] = set()
    # A replica without a profile times its engine at start, and on a busy machine may take one
    # at a time to be the faster way until its own times have taught it better.
    for _ in range(50):
        response = client.post(path, json=pixels)
        assert len(response.json()["answers"]) == 3
        batches.add(_batch(response))
        if max(batches) > 1:
            break
    assert max(batches) > 1


def test_all_but_rays_port_between_replicas_listens_on_loopback(
    ray_run: Any, client: httpx.Client
) -> None:
    assert client.get("/one/readyz").status_code == 200
    found = ray_run.listening()
    own = {port for address, port, _ in found if address == "127.0.0.1"}
    assert client.base_url.port in own
    # Of five replicas and two gates: docs/serving.md, "Ports".
    others = [(a, port, command[:40]) for a, port, command in found if a not in LOOPBACK]
    assert [each for each in others if "ServeReplica" not in each[2]] == []
    assert len(others) == 7


def _batch(response: httpx.Response) -> int:
    found = re.search(r'batch;desc="(\d+)"', response.headers["server-timing"])
    assert found is not None
    return int(found[1])
