"""A predictor that needs no artifact, and one Ray for all tests that need one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from runtime.predictor import PassedOver
from runtime.tensors import Array, Tensors
from specs.axes import AxisRange
from specs.errors import InputError
from specs.manifest import SCHEMA_VERSION, Graph, Manifest, Variant, WeightsOrigin
from specs.ops._source import BadInput, as_tensors
from specs.ops.decode_image import decode_array
from specs.profile import PROFILE_VERSION, Profile
from specs.schema import Limits, RandomWeights, Serving, TensorSpec, Weights

START_S = 240
"""How long Ray may take to start two applications on a loaded machine."""
STOP_S = 120
MARK = "DEPLOYC_TEST_RUN"
DRAINING = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
"""1 s unless a test says otherwise: every server that is started has to end."""

ManifestMaker = Callable[..., Manifest]


def _manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": "twice",
        "description": "doubles its input",
        "spec_sha256": "0" * 64,
        "toolchain": {},
        "files": {},
        "inputs": {"x": TensorSpec(shape=("batch", 2))},
        "outputs": {"y": TensorSpec(shape=("batch", 2))},
        "axes": {"batch": AxisRange(min=1, opt=4, max=8)},
        "batch": AxisRange(min=1, opt=4, max=8),
        "takes": "tensors",
        "answer": "tensors",
        "weights": WeightsOrigin(origin="random", seed=0),
        "graph": Graph(exporter="none", opset=18, ir_version=10, nodes={}, parameters=0),
        "variants": (
            Variant(
                name="fake-cpu-fp32",
                target="fake-cpu-fp32",
                engine="fake",
                device="cpu",
                precision="fp32",
                file="model",
                tolerance=None,
            ),
        ),
        "limits": Limits(bytes=10_000),
        "serving": Serving(),
        "on_missing": "refuse",
    }
    return Manifest(**{**values, **changes})


def _one(tensor: TensorSpec) -> Any:
    """One item's shape, as generated code writes it."""
    return tuple(size if isinstance(size, int) else (size, 1, 99) for size in tensor.shape[1:])


@dataclass
class FakePredictor:
    """Doubles tensors [2]; of an image's bytes it takes the length. 13 breaks the engine."""

    manifest: Manifest
    delay_s: float = 0.0
    batches: list[int] = field(default_factory=list[int])
    threads: set[str] = field(default_factory=set[str])
    closed: bool = False
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def variant(self) -> Variant:
        return self.manifest.variants[0]

    @property
    def max_batch(self) -> int:
        return self.manifest.batch.max

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        return self.manifest.inputs

    @staticmethod
    def host_array(shape: tuple[int, ...], dtype: str) -> Array:
        return np.empty(shape, dtype)

    def preprocess(self, item: Any, out: Tensors | None = None) -> Tensors:
        if isinstance(item, bytes):
            if not item.startswith(b"IMG"):
                raise InputError("no image starts like this", hint="", code="not_an_image")
            return {"x": np.full(2, len(item), np.float32)}
        try:
            return {"x": self._checked(item).astype(np.float32)}
        except BadInput as error:
            raise InputError(error.message, hint=error.hint, code=error.code) from error

    def _checked(self, item: Any) -> Any:
        """As generated code does it: pixels of any size, or the inputs, of which x counts."""
        if self.manifest.takes == "image":
            decode_array(item, "RGB")
            return np.asarray(item)
        wanted = {name: (t.dtype, _one(t)) for name, t in self.manifest.inputs.items()}
        return as_tensors(item, wanted)["x"]

    def run(self, items: Sequence[Tensors]) -> list[Tensors]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(items))
        time.sleep(self.delay_s)
        if any((item["x"] == 13).any() for item in items):
            raise RuntimeError("the engine choked")
        return [{"y": np.multiply(item["x"], 2)} for item in items]

    def postprocess(self, outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        if self.manifest.answer == "image":
            return [{"image": np.full((2, 3, 3), 7, np.uint8)} for _ in outputs]
        return [{"outputs": {"y": output["y"]}} for output in outputs]

    def beside(self, threads: int) -> FakePredictor | None:
        return None

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def make_manifest() -> ManifestMaker:
    """Makes a manifest of one input x [batch, 2]; keywords change its fields."""
    return _manifest


ProfileMaker = Callable[..., Profile]


def _point(batch: int, p50_ms: float) -> dict[str, Any]:
    return {
        "batch": batch,
        "form": "dynamic",
        "samples": 100,
        "warmup": 10,
        "mean_ms": p50_ms,
        "p50_ms": p50_ms,
        "p95_ms": 1.2 * p50_ms,
        "p99_ms": 1.5 * p50_ms,
        "p50_ci": {"low": p50_ms, "high": p50_ms},
        "p99_ci": {"low": 1.25 * p50_ms, "high": None},
        "rate": 1000 * batch / p50_ms,
        "load_seconds": 0.1,
        "peak_memory_bytes": 1,
    }


def _profile(ms: dict[int, float], **changes: Any) -> Profile:
    machine = {"cpu": "", "cores": 1, "threads": 1, "memory_bytes": 1, "os": "", "python": ""}
    values: dict[str, Any] = {
        "version": PROFILE_VERSION,
        "variant": "fake-cpu-fp32",
        "engine": "fake",
        "device": "cpu",
        "precision": "fp32",
        "identity": "",
        "machine": machine,
        "measured_at": "",
        "inputs": "",
        "seconds": 1.0,
        "points": [_point(batch, p50_ms) for batch, p50_ms in ms.items()],
        "advice": {"form": "dynamic", "throughput": max(ms)},
    }
    return Profile.model_validate({**values, **changes})


@pytest.fixture
def make_profile() -> ProfileMaker:
    """Makes a profile of these medians, milliseconds by batch size; keywords change its fields."""
    return _profile


@pytest.fixture(scope="session")
def make_predictor() -> Callable[..., FakePredictor]:
    """Makes a predictor; ``delay_s`` is the engine's time, other keywords go to the manifest."""

    def make(delay_s: float = 0.0, **changes: Any) -> FakePredictor:
        return FakePredictor(_manifest(**changes), delay_s)

    return make


@dataclass
class Run:
    """A started command, with a mark that all its descendants inherit."""

    process: subprocess.Popen[str]
    mark: str
    home: Path
    log: Path
    printed: list[str] = field(default_factory=list[str])

    def url(self) -> str:
        """Where it serves, read from its output; ``printed`` is what came before."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        for line in self.process.stdout:
            if found := re.search(r"serving at (\S+)", line):
                watchdog.cancel()
                return found[1]
            self.printed.append(line)
        pytest.fail(f"it ended before it served: {self.log.read_text()}")

    def living(self) -> list[str]:
        """Command lines of the processes that carry the mark."""
        return [command for command, _ in self._processes()]

    def rays(self) -> list[bytes]:
        """Environments of Ray's own processes."""
        found = [environment for command, environment in self._processes() if "ray/" in command]
        assert found
        return found

    def folders(self, command: str) -> list[Path]:
        """The /proc folders of its processes whose command line holds ``command``."""
        found: list[Path] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                named = command.encode() in (folder / "cmdline").read_bytes()
                if named and self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(folder)
        return found

    def listening(self) -> list[tuple[str, int, str]]:
        """Address, port and command line of all that its processes listen on."""
        sockets = _listening()
        found: list[tuple[str, int, str]] = []
        for folder in self.folders(""):
            with suppress(OSError):
                command = (folder / "cmdline").read_text().replace("\0", " ")
                held = {str(each.readlink()) for each in (folder / "fd").iterdir()}
                found += [(*sockets[each], command) for each in held & sockets.keys()]
        return found

    def _processes(self) -> Iterator[tuple[str, bytes]]:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (folder / "environ").read_bytes()
                if self.mark.encode() in environment:
                    yield (folder / "cmdline").read_text().replace("\0", " "), environment


def _listening() -> dict[str, tuple[str, int]]:
    """Address and port of each listening TCP socket of this machine, by its name in /proc."""
    found: dict[str, tuple[str, int]] = {}
    for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for row in map(str.split, Path(f"/proc/net/{name}").read_text().splitlines()[1:]):
            address, port = row[1].split(":")
            if row[3] == "0A":  # TCP_LISTEN
                words = [bytes.fromhex(address[n : n + 8])[::-1] for n in range(0, len(address), 8)]
                ip = socket.inet_ntop(family, b"".join(words))
                found[f"socket:[{row[9]}]"] = ip, int(port, 16)
    return found


Start = Callable[..., Run]


@pytest.fixture(scope="session")
def start_serving(
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Start, None, None]:
    """Starts `deployc serve` for applications (by name: their models) on any free port.

    ``env`` is added to its environment, ``app_options`` to each application. Other keywords are
    further keys of deploy.yaml.
    """
    runs: list[Run] = []

    def run(
        apps: dict[str, list[dict[str, Any]]],
        *arguments: str,
        env: dict[str, str] | None = None,
        app_options: dict[str, Any] | None = None,
        **options: dict[str, Any],
    ) -> Run:
        home = tmp_path_factory.mktemp("serve")
        config = {**_config(apps, app_options or {}), **options}
        (home / "deploy.yaml").write_text(yaml.safe_dump(config), "utf-8")
        mark, log = uuid.uuid4().hex, home / "log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "specs.cli", "serve", "--port", "0", *arguments],
            cwd=home,
            env={**clean, MARK: mark, "HOME": str(home), DRAINING: "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            start_new_session=True,
        )
        runs.append(Run(process, mark, home, log))
        return runs[-1]

    yield run
    for started in runs:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGTERM)
            started.process.wait(STOP_S)


@pytest.fixture(scope="session")
def grpc_port() -> int:
    """Where the Ray of all tests speaks gRPC."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def untrained_artifact(
    tmp_path_factory: pytest.TempPathFactory, build_file: Callable[..., Any], root: Path
) -> Path:
    """``specs/digits.yaml`` with random weights: a bad new version of digits."""
    destination = tmp_path_factory.mktemp("artifacts") / "untrained"
    weights = Weights(random=RandomWeights(seed=1))
    build_file(root / "specs" / "digits.yaml", destination, weights=weights)
    return destination


@pytest.fixture(scope="session")
def ray_run(
    start_serving: Start,
    digits_artifact: Path,
    linear_artifact: Path,
    untrained_artifact: Path,
    grpc_port: int,
) -> Run:
    """One Ray for all tests.

    ``/one`` serves digits alone, ``/many`` digits and line, ``/split`` digits with a bad canary.
    """
    digits = {"artifact": str(digits_artifact)}
    line = {"artifact": str(linear_artifact), "name": "line"}
    gate = {"min_requests": 10, "max_latency_ratio": None, "parity": {"by": "top"}}
    canary = {"artifact": str(untrained_artifact), "weight": 0.5, "sample": 0.5, "gate": gate}
    split = {**digits, "canary": canary}
    apps = {"one": [{**digits, "max_batch": 8}], "many": [digits, line], "split": [split]}
    return start_serving(apps, grpc_options={"port": grpc_port})


@pytest.fixture(scope="session")
def ray_url(ray_run: Run) -> str:
    """Where it answers, without the applications' prefixes."""
    return ray_run.url().removesuffix("/one")


def _config(apps: dict[str, list[dict[str, Any]]], app_options: dict[str, Any]) -> dict[str, Any]:
    applications = [
        {
            "name": name,
            "route_prefix": "/" if len(apps) == 1 else f"/{name}",
            "import_path": "serve.app:build",
            "args": {"models": models},
            **app_options,
        }
        for name, models in apps.items()
    ]
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1"},
        "applications": applications,
    }
