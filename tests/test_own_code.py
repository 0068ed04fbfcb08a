"""The spec's own code in an artifact: named by `inspect`, and the server's fault where it fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

import runtime
from runtime.predictor import Predictor
from serve.http import http_app
from serve.model import Model, Options
from specs.cli import main

pytest.importorskip("torch")

OWN = """
def picky(x):
    if x.min() == 255:
        raise LookupError("/secret/place has no white pictures")
    return x


def no_ones(x):
    if (x.argmax(1) == 1).any():
        raise ZeroDivisionError("/secret/place has no ones")
    return x
"""
WHITE, ONE, THREE = "white", "digit_1.png", "digit_3.png"


@pytest.fixture(scope="module")
def artifact(
    root: Path, tmp_path_factory: pytest.TempPathFactory, build_file: Callable[..., Any]
) -> Path:
    """The embedded model with a function before it and one behind it."""
    folder = tmp_path_factory.mktemp("own")
    for part in ("models", "labels", "weights", "samples"):
        (folder / part).symlink_to(root / "specs" / part)
    (folder / "own.py").write_text(OWN, "utf-8")
    spec = yaml.safe_load((root / "specs" / "digits.yaml").read_text("utf-8"))
    spec["preprocess"].insert(2, {"python": {"file": "own.py", "function": "picky"}})
    spec["postprocess"].insert(1, {"python": {"file": "own.py", "function": "no_ones"}})
    spec["verify"] = {"samples": [f"samples/digits/{THREE}"]}
    (folder / "own.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    build_file(folder / "own.yaml", folder / "built")
    return folder / "built"


@pytest.fixture(scope="module")
def predictor(artifact: Path) -> Generator[Predictor]:
    with runtime.load(artifact) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def bodies(root: Path) -> dict[str, bytes]:
    """A picture that neither refuses, and one for each that does."""
    samples = root / "specs" / "samples" / "digits"
    white = json.dumps([[255] * 8] * 8).encode()
    return {WHITE: white, **{name: (samples / name).read_bytes() for name in (ONE, THREE)}}


def _ask(predictor: Predictor, bodies: list[bytes]) -> list[httpx.Response]:
    """The replies to requests that come together."""

    async def ask() -> list[httpx.Response]:
        model = Model(predictor, Options("own", max_batch=8, max_items=16, threads=2))
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = [client.post("/models/own/predict", content=body) for body in bodies]
            return await asyncio.gather(*asked)

    return asyncio.run(ask())


@pytest.mark.parametrize(("name", "raised"), [(WHITE, "LookupError"), (ONE, "ZeroDivisionError")])
def test_what_the_specs_own_code_raises_is_a_500_without_its_text_and_the_log_has_it(
    predictor: Predictor,
    bodies: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
    name: str,
    raised: str,
) -> None:
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        good, bad = _ask(predictor, [bodies[THREE], bodies[name]])
    assert good.status_code == 200
    assert (bad.status_code, bad.json()["error"]["code"]) == (500, "python_step")
    assert "secret" not in bad.text
    assert raised not in bad.text
    assert f"{raised}: /secret/place" in caplog.text


def test_inspect_names_the_functions_and_what_the_gate_does_not_compare(artifact: Path) -> None:
    done = CliRunner().invoke(main, ["inspect", str(artifact)])
    assert "preprocess: picky in own.py (step_own_" in done.stdout
    assert "postprocess: no_ones in own.py (step_own_" in done.stdout
    assert "! python: not compared on their own: python" in done.stdout
    told = json.loads(CliRunner().invoke(main, ["inspect", str(artifact), "--json"]).stdout)
    assert [each["function"] for each in told["own_code"]] == ["picky", "no_ones"]
