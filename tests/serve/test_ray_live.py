"""A running `deployc serve` with API keys: what goes wrong in it, and what is changed in it.

``/one`` is one model, ``/many`` two behind the gate, which stays where one of them leaves. Their
engine can be made to hang. The tests run in their order: the last one stops the server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve.environment import DRAINING_S

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KEY = "0123456789abcdef"
FOLDER = Path(__file__).parent / "trapped"
STOP_S, TOLD_S = 120, 180
PATIENT = {"x-api-key": KEY, "x-request-timeout-ms": "60000"}
PREDICT = "/models/slow/predict"
APPS = ["one", "many"]
ENGINE_MS = 20
"""What a batch takes in the trapped engine, at least."""


@dataclass
class Live:
    """The running server, its trap, and the artifact that can be rebuilt."""

    run: Any
    trap: Path
    artifact: Path
    client: httpx.Client
    url: str
    """Before the applications' prefixes."""

    def wait_until_told(self) -> None:
        """Read what it prints, to the line about the last application."""
        watchdog = threading.Timer(TOLD_S, self.run.process.terminate)
        watchdog.start()
        for line in self.run.process.stdout:
            if "serving at" in line and "/many" in line:
                watchdog.cancel()
                return
        pytest.fail(f"it ended: {self.run.log.read_text()}")

    def post(self, app: str, **headers: str) -> httpx.Response:
        return self.client.post(f"/{app}{PREDICT}", json=[1, 2], headers={**PATIENT, **headers})

    def stats(self, app: str) -> dict[str, Any]:
        return self.client.get(f"/{app}/models/slow/stats").json()["stats"]

    def names(self, app: str) -> list[str]:
        """Of its models."""
        return [card["name"] for card in self.client.get(f"/{app}/models").json()["models"]]

    def slow(self, app: str) -> dict[str, Any]:
        """The card."""
        cards = self.client.get(f"/{app}/models").json()["models"]
        return next(card for card in cards if card["name"] == "slow")

    def gates(self) -> set[str]:
        """Process ids of the gate's replicas."""
        return {folder.name for folder in self.run.folders("ServeReplica:many:ingress")}

    @contextmanager
    def held_up(self) -> Generator[None]:
        """Meanwhile the engines hang."""
        self.trap.touch()
        try:
            yield
        finally:
            self.trap.unlink()

    def deploy_again(self, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        """Change deploy.yaml, and wait until it is in force."""
        file = self.run.home / "deploy.yaml"
        config = yaml.safe_load(file.read_text("utf-8"))
        change(config)
        file.write_text(yaml.safe_dump(config), "utf-8")
        self.run.process.send_signal(signal.SIGUSR1)
        self.wait_until_told()


def plugged_in(folder: Path) -> dict[str, str]:
    """What makes the trapped engine known to processes, as an installed plug-in."""
    info = folder / "deployc_trapped-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deployc-trapped\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[deployc.engines]\ntrapped = trapped_engines\n")
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(FOLDER), *before])}


def built(folder: Path, trap: Path, root: Path, env: dict[str, str]) -> Path:
    """A linear model on the trapped engine."""
    spec = {
        "version": 1,
        "name": "slow",
        "model": {"onnx": str(root / "specs" / "models" / "linear_regression.onnx")},
        "inputs": {"X": {"shape": ["batch", 2]}},
        "outputs": {"Y": {"shape": ["batch", 1]}},
        "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
        "targets": [{"engine": "trapped", "device": "cpu", "options": {"trap": str(trap)}}],
    }
    (folder / "slow.yaml").write_text(json.dumps(spec))  # JSON is YAML
    command = [sys.executable, str(FOLDER / "build.py"), "build", "-q", "-o", str(folder / "slow")]
    subprocess.run([*command, str(folder / "slow.yaml")], check=True, env={**os.environ, **env})
    return folder / "slow"


@pytest.fixture(scope="module")
def live(
    start_serving: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    linear_artifact: Path,
    root: Path,
) -> Generator[Live]:
    folder = tmp_path_factory.mktemp("live")
    env = {
        **plugged_in(folder),
        "DEPLOYC_API_KEYS": KEY,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
    }
    artifact = built(folder, folder / "trap", root, env)
    line = shutil.copytree(linear_artifact, folder / "line")
    slow = {"artifact": str(artifact), "slo_ms": 1000, "max_ongoing_requests": 16}
    apps = {"one": [slow], "many": [slow, {"artifact": str(line), "name": "line"}]}
    run = start_serving(apps, env=env)
    url = run.url().removesuffix("/one")
    with httpx.Client(base_url=url, headers={"x-api-key": KEY}, timeout=60) as client:
        live = Live(run, folder / "trap", artifact, client, url)
        live.wait_until_told()
        yield live


def until(true: Callable[[], object], seconds: float = 180) -> bool:
    """Whether it becomes true in that time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(true())


# --- keys


@pytest.mark.parametrize("app", APPS)
def test_with_keys_it_starts_answers_who_has_one_and_refuses_who_has_none(
    live: Live, app: str
) -> None:
    assert live.post(app).status_code == 200
    refused = httpx.post(f"{live.url}/{app}{PREDICT}", json=[1, 2])
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")


def test_it_tells_every_application_how_to_ask_it_and_no_key(live: Live) -> None:
    said = "".join(live.run.printed)
    for path in ("/one/models/slow", "/many/models/slow", "/many/models/line"):
        assert f"{live.url}{path}/predict" in said
    assert 'curl -H "x-api-key: $KEY"' in said
    assert KEY not in said + live.run.log.read_text()


def test_replicas_without_the_keys_that_are_meant_do_not_start(
    start_serving: Callable[..., Any], linear_artifact: Path
) -> None:
    """Their environment is not the command's, as on a cluster that was joined."""
    run = start_serving(
        {"app": [{"artifact": str(linear_artifact)}]},
        env={"DEPLOYC_API_KEYS": KEY},
        app_options={"runtime_env": {"env_vars": {"DEPLOYC_API_KEYS": ""}}},
    )
    assert run.process.wait(STOP_S) == 1
    said = run.log.read_text()
    assert "API keys are asked for (`protected`), and this process finds none" in said
    assert 'File "' not in said
    assert run.living() == []


# --- limits


def test_the_card_names_what_the_limits_follow_from(live: Live) -> None:
    serving = live.slow("one")["serving"]
    assert serving["max_items"] == {"value": 16, "source": "deploy.yaml"}
    assert serving["max_ongoing_requests"] == {"value": 16 + 64, "source": "max_items"}


@pytest.mark.parametrize("app", APPS)
def test_overload_is_429_with_a_time_to_come_back_through_the_ingress(live: Live, app: str) -> None:
    with ThreadPoolExecutor(40) as pool:
        with live.held_up():  # however slowly they come, the queue is full then
            running = [pool.submit(live.post, app) for _ in range(40)]
            assert until(lambda: sum(each.done() for each in running) >= 40 - 16, 8)
        found = [each.result() for each in running]
    assert Counter(each.status_code for each in found) == {200: 16, 429: 24}
    for each in found:
        if each.status_code == 429:
            assert each.json()["error"]["code"] == "overloaded"
            assert int(each.headers["retry-after"]) >= 1


@pytest.mark.parametrize("app", APPS)
def test_a_client_that_goes_away_leaves_the_queue(live: Live, app: str) -> None:
    with ThreadPoolExecutor(1) as pool, live.held_up():
        first = pool.submit(live.post, app)
        # In the engine, so that the next ones do not ride with it.
        assert until(lambda: _load(live, app) == (1, 0))
        with closing(_begun(live, app)), closing(_begun(live, app)):
            assert until(lambda: _load(live, app) == (3, 2))
        assert until(lambda: _load(live, app) == (1, 0), 5)
        live.trap.unlink()
        assert first.result().status_code == 200
        live.trap.touch()


def _load(live: Live, app: str) -> tuple[int, int]:
    """Items in the replica, and those of them that wait."""
    stats = live.stats(app)
    return stats["load"], stats["waiting"]


def _begun(live: Live, app: str) -> socket.socket:
    """A request that was sent, and whose answer nobody reads yet."""
    url = live.client.base_url
    sock = socket.create_connection((url.host, url.port or 80))
    headers = "".join(f"{name}: {value}\r\n" for name, value in PATIENT.items())
    body = b"[1, 2]"
    start = f"POST /{app}{PREDICT} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n"
    sock.sendall(f"{start}{headers}\r\n".encode() + body)
    return sock


# --- metrics


def test_prometheus_finds_our_metrics_with_the_provider_in_use(live: Live) -> None:
    # Ray exports every ten seconds.
    turned_away = re.compile(r'ray_deployc_requests_total\{[^}]*outcome="overloaded"')
    assert until(lambda: turned_away.search(scraped(live)))
    text = scraped(live)
    (one,) = [
        line
        for line in text.splitlines()
        if line.startswith("ray_deployc_variant_in_use") and 'application="one"' in line
    ]
    assert 'provider="CPUExecutionProvider"' in one
    assert 'engine="trapped"' in one
    for name in ("stage_ms_bucket", "batch_items_sum", "queue_items"):
        assert f"ray_deployc_{name}" in text


def scraped(live: Live) -> str:
    """What Ray's metrics port says."""
    sessions = {found[1] for line in live.run.living() if (found := SESSION.search(line))}
    (session,) = sessions
    (file,) = Path(session).glob("metrics_export_port_*")
    return httpx.get(f"http://127.0.0.1:{file.read_text()}/metrics", timeout=30).text


SESSION = re.compile(r"--session-dir=(\S+)")


# --- changes


def test_a_hot_user_config_reaches_the_running_replica(live: Live) -> None:
    before = live.stats("one")["replica"]

    def change(config: dict[str, Any]) -> None:
        hot = {"name": "slow", "user_config": {"slo_ms": 30_000, "max_items": 2000}}
        config["applications"][0]["deployments"] = [hot]

    live.deploy_again(change)
    card = live.slow("one")
    assert card["serving"]["slo_ms"] == {"value": 30_000, "source": "user_config"}
    assert any("max_items is 2000 (user_config)" in each for each in card["warnings"])
    assert live.stats("one")["replica"] == before


def test_a_rebuilt_artifact_is_rolled_out_and_every_request_is_answered(live: Live) -> None:
    """And a model leaves the others, so that the gate is replaced in any case."""
    manifest = live.artifact / "manifest.json"
    before = {app: live.stats(app)["replica"] for app in APPS}
    gates = live.gates()
    manifest.write_text(manifest.read_text() + "\n")  # another digest
    took, asked = changed(live, left)
    assert set(live.names("many")) == {"slow"}
    assert not gates & live.gates()
    for app, responses in asked.items():
        assert live.stats(app)["replica"] != before[app]
        # Nobody waited for a replica to start, which is most of what it takes.
        assert max(each.elapsed.total_seconds() for each in responses) < took / 3


def test_a_model_that_joins_others_costs_no_request(live: Live, linear_artifact: Path) -> None:
    changed(live, lambda config: joined(config, "many", linear_artifact))
    assert set(live.names("many")) == {"slow", "line"}


def test_a_second_model_without_a_gate_is_refused_for_it_would_cost_requests(
    live: Live, linear_artifact: Path
) -> None:
    file = live.run.home / "deploy.yaml"
    good = file.read_text()
    config = yaml.safe_load(good)
    joined(config, "one", linear_artifact)
    file.write_text(yaml.safe_dump(config))
    with steady(live) as asked:
        live.run.process.send_signal(signal.SIGUSR1)
        assert until(lambda: "with `gate: true` in its args" in live.run.log.read_text())
    for responses in asked.values():
        assert responses
        assert not [each for each in responses if each.is_error]
    file.write_text(good)


def left(config: dict[str, Any]) -> None:
    """Take the second of two models away, and keep their gate."""
    args = config["applications"][1]["args"]
    args["models"].pop()
    args["gate"] = True


def joined(config: dict[str, Any], app: str, artifact: Path) -> None:
    """Add a model."""
    (args,) = [each["args"] for each in config["applications"] if each["name"] == app]
    args["models"].append({"artifact": str(artifact), "name": "line"})


def changed(
    live: Live, change: Callable[[dict[str, Any]], None]
) -> tuple[float, dict[str, list[httpx.Response]]]:
    """Change what is served while it is asked; seconds, and the answers, all of which are good."""
    with steady(live) as asked:
        time.sleep(1)
        began = time.monotonic()
        live.deploy_again(change)
        took = time.monotonic() - began
        time.sleep(DRAINING_S + 3)  # the old replicas close their connections
    for app, responses in asked.items():
        assert len(responses) > 50
        assert [(app, each.status_code, each.text) for each in responses if each.is_error] == []
    return took, asked


@contextmanager
def steady(live: Live) -> Generator[dict[str, list[httpx.Response]]]:
    """Meanwhile each application is asked by two clients, without a pause."""
    over = threading.Event()
    asked: dict[str, list[httpx.Response]] = {app: [] for app in APPS}

    def ask(app: str) -> None:
        while not over.is_set():
            asked[app].append(live.post(app))
            time.sleep(0.01)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask, app) for app in APPS * 2]
        try:
            yield asked
        finally:
            over.set()
    for each in running:
        each.result()


def test_what_cannot_be_deployed_is_told_and_the_old_one_serves_on(live: Live) -> None:
    file = live.run.home / "deploy.yaml"
    good = file.read_text()
    file.write_text(good.replace("models:", "modles:", 1))
    live.run.process.send_signal(signal.SIGUSR1)
    said = "did you mean 'models'?\nnot deployed: what was served before serves on"
    assert until(lambda: said in live.run.log.read_text())
    file.write_text(good)
    assert live.post("one").status_code == 200


def test_a_change_that_no_replica_starts_with_is_told_and_the_old_ones_serve_on(
    live: Live,
) -> None:
    """Without a profile nobody knows that an SLO is impossible before a replica has measured."""
    file = live.run.home / "deploy.yaml"
    before, good = {app: live.stats(app)["replica"] for app in APPS}, file.read_text()
    config = yaml.safe_load(good)
    config["applications"][1]["args"]["models"][0]["slo_ms"] = 0.5
    file.write_text(yaml.safe_dump(config))
    live.run.process.send_signal(signal.SIGUSR1)
    said = re.compile(r"the SLO is 0\.5 ms, and a batch of 1 alone takes (\d+\.?\d*) ms")
    with steady(live) as asked:
        assert until(lambda: said.search(live.run.log.read_text()))
    told = live.run.log.read_text()
    assert "allow at least" in told
    assert all(float(ms) >= ENGINE_MS for ms in said.findall(told))
    assert {each.status_code for app in APPS for each in asked[app]} == {200}
    assert {app: live.stats(app)["replica"] for app in APPS} == before
    file.write_text(good)
    live.deploy_again()


# --- faults


def test_an_engine_that_hangs_costs_its_replica_and_the_next_one_answers(live: Live) -> None:
    before = live.stats("one")["replica"]
    with live.held_up():
        stuck = live.post("one")
        assert (stuck.status_code, stuck.json()["error"]["code"]) == (503, "engine_stuck")
        assert stuck.headers["retry-after"]
        assert until(lambda: live.post("one").status_code == 200)
        assert live.stats("one")["replica"] != before


def test_ctrl_c_answers_what_waits_in_front_of_the_gate_and_the_model(live: Live) -> None:
    with ThreadPoolExecutor(12) as pool:
        with live.held_up():
            waiting: list[Future[httpx.Response]] = [
                pool.submit(live.post, app) for app in APPS for _ in range(6)
            ]
            assert until(lambda: all(live.stats(app)["load"] == 6 for app in APPS))
            live.run.process.send_signal(signal.SIGINT)
            time.sleep(1)
        assert [each.result().status_code for each in waiting] == [200] * 12
    assert live.run.process.wait(STOP_S) == 0, live.run.log.read_text()
    assert live.run.living() == []
