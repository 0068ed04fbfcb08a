"""The servers that are compared: how each is started, and how it is asked."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from _child import ROOT, child, serving
from _load import Ask

__all__ = [
    "PLAYERS",
    "BentoML",
    "Deployc",
    "LitServe",
    "PlainRay",
    "Played",
    "Player",
    "installed",
    "with_path",
]

RIVALS = ROOT / "bench" / "rivals"
LIT_WAIT = 0.05
"""LitServe's ``batch_timeout`` as a share of the SLO."""


@dataclass(frozen=True, slots=True)
class Played:
    """A model, with the figures that servers are set by and the load is made of."""

    name: str
    artifact: Path
    body: bytes
    image: bool
    want: str
    slo_ms: float
    capacity: float = 0.0
    """Items per second of the pipeline in a bare loop."""
    max_batch: int = 1
    """The size of that loop's batches."""

    @property
    def held(self) -> int:
        """Requests that can be answered within the SLO, by Little's law."""
        return max(2 * self.max_batch, round(self.capacity * self.slo_ms / 1000))

    def value(self) -> Any:  # noqa: ANN401 - JSON
        """The item, for servers that take JSON: an image is base64 there."""
        if self.image:
            return base64.b64encode(self.body).decode("ascii")
        return json.loads(self.body)

    def settings(self) -> dict[str, Any]:
        """For ``bench/rivals/pipeline.py``."""
        figures = {"max_batch": self.max_batch, "held": self.held}
        return {"name": self.name, "artifact": str(self.artifact), "slo_ms": self.slo_ms, **figures}


class Player(ABC):
    """One server.

    Args:
        env: what its processes need to find the sleeping engine.
        packages: the folder that rivals were installed into.
    """

    name: ClassVar[str]
    package: ClassVar[str] = ""
    """The distribution to look for in ``packages``; "" for what this project installs."""

    def __init__(self, env: dict[str, str], packages: Path) -> None:
        self.env = env
        self.packages = packages

    @property
    def version(self) -> str | None:
        """Of its package; "" where it has none, None where that is not installed."""
        return installed(self.package, self.packages) if self.package else ""

    @abstractmethod
    def serve(self, models: Sequence[Played], folder: Path) -> AbstractContextManager[str]:
        """Start it with these models; yields its address."""

    @abstractmethod
    def ask(self, url: str, model: Played) -> Ask:
        """One request for one item."""


class Deployc(Player):
    """This project, by its command."""

    name = "deployc"

    def serve(self, models: Sequence[Played], folder: Path) -> AbstractContextManager[str]:
        return serving([_application(model) for model in models], folder, env=self.env)

    def ask(self, url: str, model: Played) -> Ask:
        address = f"http://{urlsplit(url).netloc}/{model.name}/models/{model.name}/predict"
        return _plain(address, model)


class PlainRay(Player):
    """Ray Serve with ``serve.batch``; its knobs are tuned while it runs."""

    name = "Ray `serve.batch`"

    def serve(self, models: Sequence[Played], folder: Path) -> AbstractContextManager[str]:
        return _rival("plain_ray.py", models, self.env)

    def ask(self, url: str, model: Played) -> Ask:
        return _plain(f"{url}/{model.name}/", model)

    @staticmethod
    def tune(url: str, model: Played, knobs: dict[str, Any]) -> Ask:
        """The request that sets its knobs."""
        body = json.dumps(knobs).encode()
        return Ask(f"{url}/{model.name}/tune", body, "application/json", "tuned")


class LitServe(Player):
    """LitServe."""

    name = "LitServe"
    package = "litserve"

    def serve(self, models: Sequence[Played], folder: Path) -> AbstractContextManager[str]:
        env = with_path(self.env, self.packages) | {"BENCH_WAIT": str(LIT_WAIT)}
        return _rival("lit_server.py", models, env)

    def ask(self, url: str, model: Played) -> Ask:
        return _wrapped(f"{url}/{model.name}", {"item": model.value()}, model)


class BentoML(Player):
    """BentoML."""

    name = "BentoML"
    package = "bentoml"

    def serve(self, models: Sequence[Played], folder: Path) -> AbstractContextManager[str]:
        env = with_path(self.env, self.packages) | {"BENTOML_HOME": str(folder / "bentoml")}
        return _rival("bento_server.py", models, env)

    def ask(self, url: str, model: Played) -> Ask:
        return _wrapped(f"{url}/{model.name}", {"items": [model.value()]}, model)


PLAYERS: tuple[type[Player], ...] = (Deployc, PlainRay, LitServe, BentoML)


def _application(model: Played) -> dict[str, Any]:
    entry: dict[str, Any] = {"artifact": str(model.artifact), "name": model.name}
    if model.slo_ms:
        entry["slo_ms"] = model.slo_ms
    return {
        "name": model.name,
        "route_prefix": f"/{model.name}",
        "import_path": "serve.app:build",
        "args": {"models": [entry]},
    }


def _plain(url: str, model: Played) -> Ask:
    kind = "image/jpeg" if model.image else "application/json"
    return Ask(url, model.body, kind, model.want)


def _wrapped(url: str, value: dict[str, Any], model: Played) -> Ask:
    return Ask(url, json.dumps(value).encode(), "application/json", model.want)


def _rival(
    program: str, models: Sequence[Played], env: dict[str, str]
) -> AbstractContextManager[str]:
    told = json.dumps([model.settings() for model in models])
    every = with_path(env, RIVALS) | {"BENCH_MODELS": told}
    command = [sys.executable, str(RIVALS / program), str(_free_port())]
    return child(command, r"serving at (\S+)", every)


def installed(package: str, folder: Path) -> str | None:
    """The version of a distribution in a folder; None where it is not there."""
    found = importlib.metadata.distributions(name=package, path=[str(folder)])
    return next((each.version for each in found), None)


def with_path(env: dict[str, str], folder: Path) -> dict[str, str]:
    """That environment, with the folder first on Python's path."""
    before = env.get("PYTHONPATH", "")
    return {**env, "PYTHONPATH": os.pathsep.join([str(folder), before])}


def _free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
