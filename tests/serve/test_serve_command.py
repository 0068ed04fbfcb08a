"""`deployc serve` as people run it: a process that is started, asked, and interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from runtime.artifact import read_manifest
from serve.environment import free_port
from specs.profile import Profile, identity, profile_path

STOP_S = 120

Start = Callable[..., Any]


def _slowly(body: bytes, sent: threading.Event, seconds: float) -> Iterator[bytes]:
    yield body[:50]
    sent.set()
    time.sleep(seconds)
    yield body[50:]


@pytest.mark.ray
@pytest.mark.slow
def test_it_serves_until_ctrl_c_answers_what_is_in_flight_and_leaves_nothing(
    start_serving: Start, digits_artifact: Path, root: Path
) -> None:
    picture = root / "specs" / "samples" / "digits" / "digit_3.png"
    run = start_serving({"app": [{"artifact": str(digits_artifact)}]}, "--try", str(picture))
    url = run.url()
    assert any("digit_3.png" in line and "three" in line for line in run.printed)
    assert all(b"RAY_AUTH_MODE=token" in environment for environment in run.rays())
    predict = f"{url}/models/digits/predict"
    body = picture.read_bytes()
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert httpx.post(predict, content=body).json()["answer"]["classes"][0]["label"] == "three"
    assert httpx.post(predict, content=b"no image").status_code == 415
    assert httpx.post(f"{url}/models/digit/predict", content=body).status_code == 404
    assert httpx.post(predict, content=bytes(20_000_001)).status_code == 413

    statuses: list[int] = []
    sent = threading.Event()

    def ask() -> None:
        slow = httpx.post(predict, content=_slowly(body, sent, 4), timeout=60)
        statuses.append(slow.status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert sent.wait(10)
    time.sleep(0.5)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(STOP_S) == 0, run.log.read_text()
    asking.join(10)
    assert statuses == [200]
    assert run.living() == []
    assert not (run.home / ".ray").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_without_haproxy_it_says_so_and_ends_with_its_parent(
    start_serving: Start, digits_artifact: Path
) -> None:
    run = start_serving({"app": [{"artifact": str(digits_artifact)}]}, "--no-haproxy")
    url = run.url()
    assert "Python proxy" in run.log.read_text()
    assert httpx.get(f"{url}/readyz").status_code == 200
    run.process.kill()
    run.process.wait()
    deadline = time.monotonic() + STOP_S
    while run.living() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert run.living() == []


@pytest.mark.ray
@pytest.mark.slow
def test_two_runs_on_one_machine_answer_for_their_own_models_alone(
    start_serving: Start, ray_url: str, linear_artifact: Path
) -> None:
    run = start_serving({"app": [{"artifact": str(linear_artifact), "name": "alone"}]})
    # Asked from the first moment on, when HAProxy may not know the replica yet.
    url = run.url()
    answers = [httpx.get(f"{url}/models").json()["models"][0]["name"] for _ in range(40)]
    assert set(answers) == {"alone"}
    other = [httpx.get(f"{ray_url}/one/models").json()["models"][0]["name"] for _ in range(40)]
    assert set(other) == {"digits"}
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(STOP_S) == 0


def refused(folder: Path, config: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run that ends before Ray is started, under a config."""
    (folder / "deploy.yaml").write_text(config)
    command = [sys.executable, "-m", "specs.cli", "serve", "--port", "0", *arguments]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DEPLOYC_API")}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=clean
    )
    assert "starting Ray" not in done.stderr
    return done


def test_other_machines_are_not_let_in_without_keys_and_the_way_out_is_named(
    tmp_path: Path,
) -> None:
    done = refused(tmp_path, "applications: []\n", "--host", "0.0.0.0")  # noqa: S104 - what is refused
    assert done.returncode == 1
    assert "0.0.0.0 can be reached by others, and there are no API keys" in done.stderr
    assert "--unprotected" in done.stderr


def test_an_slo_that_the_profile_rules_out_is_refused_before_ray_with_the_figures(
    tmp_path: Path, linear_artifact: Path, make_profile: Callable[..., Profile]
) -> None:
    folder = tmp_path / "line"
    shutil.copytree(linear_artifact, folder)
    manifest = read_manifest(folder)
    variant = manifest.variants[0]
    about = {"variant": variant.name, "identity": identity(manifest, variant)}
    file = folder / profile_path(variant.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(make_profile({1: 4.0, 8: 8.0}, **about).model_dump_json(), "utf-8")
    models = "{models: [{artifact: line, slo_ms: 2}]}"
    app = f"{{name: app, import_path: 'serve.app:build', args: {models}}}"
    done = refused(tmp_path, f"applications: [{app}]\n")
    assert done.returncode == 1
    assert "the SLO is 2 ms, and a batch of 1 alone takes 5 ms (profile)" in done.stderr
    assert "allow at least 10 ms" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_key_ends_it_before_anything_is_started(tmp_path: Path) -> None:
    done = refused(tmp_path, "aplications: []\n")
    assert done.returncode == 1
    assert "deploy.yaml:1:1: aplications" in done.stderr
    assert "did you mean 'applications'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_plain_serve_run_takes_the_same_file(
    digits_artifact: Path, root: Path, tmp_path: Path
) -> None:
    port = free_port()
    config = yaml.safe_load((root / "deploy.yaml").read_text("utf-8"))
    config["http_options"]["port"] = port
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "digits").symlink_to(digits_artifact)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("serve")), "run", "--address", "local", "deploy.yaml"],
        cwd=tmp_path,
        # Loopback only and without a token in the home folder, as tests should.
        env={**clean, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"},
        stdout=(tmp_path / "log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        picture = (root / "specs" / "samples" / "digits" / "digit_3.png").read_bytes()
        response = first_answer(f"http://127.0.0.1:{port}/models/digits/predict", picture)
        assert response.json()["answer"]["classes"][0]["label"] == "three"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what plain Ray leaves behind


def first_answer(url: str, body: bytes) -> httpx.Response:
    """The first answer that is no refusal, once the server has come up."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            response = httpx.post(url, content=body, timeout=30)
            if response.status_code == 200:
                return response
        time.sleep(0.5)
    pytest.fail("plain `serve run` did not answer within 180 s")
