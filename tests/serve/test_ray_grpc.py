"""gRPC on a real Ray, through the ingress that `deployc serve` starts."""

from __future__ import annotations

import json
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ray


@pytest.fixture
def client(ray_url: str, grpc_port: int) -> Generator[Any]:
    triton: Any = import_module("tritonclient.grpc")
    assert ray_url
    with triton.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        yield client


@pytest.mark.parametrize("app", ["one", "many"])
def test_a_picture_is_answered_over_grpc(client: Any, app: str, root: Path) -> None:
    triton: Any = import_module("tritonclient.grpc")
    picture = (root / "specs" / "samples" / "digits" / "digit_7.png").read_bytes()
    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([picture], object))
    result = client.infer("digits", [given], headers={"application": app}, request_id="seven")
    answer = json.loads(result.as_numpy("answer")[0])
    assert answer["classes"][0]["label"] == "seven"
    assert result.get_response().id == "seven"


def test_an_application_tells_its_own_models_over_grpc(client: Any) -> None:
    def names(app: str) -> list[str]:
        return [
            m.name for m in client.get_model_repository_index(headers={"application": app}).models
        ]

    assert names("one") == ["digits", "digits.tensors"]
    assert names("many") == ["digits", "digits.tensors", "line", "line.tensors"]


def test_no_application_is_meant_where_none_is_named(client: Any) -> None:
    with pytest.raises(Exception, match="NOT_FOUND"):
        client.get_model_metadata("digits")
