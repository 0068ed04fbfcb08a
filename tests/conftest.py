"""What all tests share: a cache of their own, real test data, specs built once."""

from __future__ import annotations

import csv
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DATA = "DEPLOYC_TEST_DATA"


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let started commands be interrupted: a shell's background job inherits an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path, None, None]:
    """Keep the user's own cache out of the tests, and theirs out of it."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("DEPLOYC_CACHE")
    os.environ["DEPLOYC_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["DEPLOYC_CACHE"]
    else:
        os.environ["DEPLOYC_CACHE"] = before


@pytest.fixture(autouse=True)
def pillows_resize(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests compare with Pillow pixel for pixel, unless they ask for ``fast_resize``."""
    if "fast_resize" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
        monkeypatch.setattr("specs.ops._fast.LIBRARIES", {})


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def data() -> Path:
    """Real weights and pictures; their licences keep them out of the repository."""
    given = os.environ.get(DATA)
    if not given:
        pytest.skip(f"{DATA} is not set: real weights and pictures are not there")
    return Path(given)


def free_port_number() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    """A port on loopback that nothing listens on."""
    return free_port_number()


BuildSpec = Callable[..., Any]


@pytest.fixture(scope="session")
def build_file() -> BuildSpec:
    """Build the spec in a file: ``build_file(spec, destination, **options) -> BuildResult``."""

    def run(spec: Path, destination: Path, **options: Any) -> Any:
        from compiler.build import build
        from compiler.progress import Reporter
        from specs.loader import load_spec

        reporter = options.pop("reporter", None) or Reporter(quiet=True)
        return build(load_spec(spec), destination, reporter=reporter, **options)

    return run


@pytest.fixture
def build_spec(tmp_path: Path, build_file: BuildSpec) -> BuildSpec:
    """Build a spec given as data, written into ``tmp_path``: ``build_spec(spec, **options)``."""

    def run(spec: dict[str, Any], destination: Path | None = None, **options: Any) -> Any:
        file = tmp_path / f"{spec['name']}.yaml"
        file.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
        return build_file(file, destination or tmp_path / "artifact", **options)

    return run


def _artifact(
    name: str, tmp_path_factory: pytest.TempPathFactory, build_file: BuildSpec, **options: Any
) -> Path:
    destination = tmp_path_factory.mktemp("artifacts") / name
    build_file(ROOT / "specs" / f"{name}.yaml", destination, **options)
    return destination


@pytest.fixture(scope="session")
def digits_artifact(tmp_path_factory: pytest.TempPathFactory, build_file: BuildSpec) -> Path:
    """``specs/digits.yaml``, built once."""
    return _artifact("digits", tmp_path_factory, build_file)


@pytest.fixture(scope="session")
def linear_artifact(tmp_path_factory: pytest.TempPathFactory, build_file: BuildSpec) -> Path:
    """``specs/linear_regression.yaml``, built once."""
    return _artifact("linear_regression", tmp_path_factory, build_file)


@pytest.fixture(scope="session")
def srcnn_artifact(tmp_path_factory: pytest.TempPathFactory, build_file: BuildSpec) -> Path:
    """``specs/srcnn.yaml``, built once."""
    return _artifact("srcnn", tmp_path_factory, build_file)


@pytest.fixture(scope="session")
def mobilenet_artifact(
    data: Path, tmp_path_factory: pytest.TempPathFactory, build_file: BuildSpec
) -> Path:
    """``specs/mobilenet_v2.yaml`` with real ImageNet weights."""
    from specs.schema import Weights

    weights = Weights(path=str(data / "weights" / "mobilenet_v2_imagenet.pth"))
    return _artifact("mobilenet_v2", tmp_path_factory, build_file, weights=weights)


@pytest.fixture(scope="session")
def labelled(data: Path) -> list[tuple[Path, int]]:
    """Real pictures with their ImageNet classes."""
    folder = data / "imagenet_samples"
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        return [(folder / row["file"], int(row["class_index"])) for row in csv.DictReader(file)]
