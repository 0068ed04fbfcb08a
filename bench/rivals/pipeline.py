"""What every rival runs: the artifact's own processing and engine, a batch at a time."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import runtime
from runtime.answers import to_json

__all__ = ["MODELS", "Model", "Pipeline", "announce", "models"]

MODELS = "BENCH_MODELS"
"""Environment variable: the models, as JSON."""
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Model:
    """What is served, and the figures that servers are set by."""

    name: str
    artifact: str
    slo_ms: float
    max_batch: int
    """The size at which the engine reaches its capacity within the SLO."""
    held: int
    """Requests that can be answered within the SLO: capacity times SLO."""


def models() -> list[Model]:
    """The models that this process serves."""
    return [Model(**each) for each in json.loads(os.environ[MODELS])]


class Pipeline:
    """One loaded artifact, warm at every size up to ``max_batch``."""

    def __init__(self, model: Model) -> None:
        self._predictor = runtime.load(model.artifact)
        self._image = self._predictor.manifest.takes == "image"
        self._warm(model.max_batch)

    def answer(self, bodies: list[bytes]) -> list[Any]:
        """Answers, ready for JSON.

        Args:
            bodies: image files, or JSON lists of numbers.
        """
        items = [body if self._image else _numbers(json.loads(body)) for body in bodies]
        return [to_json(answer) for answer in self._predictor.predict(items)]

    def answer_json(self, values: list[Any]) -> list[Any]:
        """As ``answer``, for what JSON can say: image files in base64, or lists of numbers."""
        items = [base64.b64decode(v) if self._image else _numbers(v) for v in values]
        return [to_json(answer) for answer in self._predictor.predict(items)]

    def _warm(self, most: int) -> None:
        blank = Image.new("RGB", (64, 64))
        item = self._predictor.preprocess(np.asarray(blank) if self._image else self._zeros())
        for size in sorted({*(2**n for n in range(most.bit_length())), most}):
            self._predictor.run([item] * size)

    def _zeros(self) -> NDArray[np.float32]:
        (tensor,) = self._predictor.inputs.values()
        return np.zeros([int(size) for size in tensor.shape[1:]], np.float32)


def _numbers(value: Any) -> Any:  # noqa: ANN401 - JSON in, an array out
    return np.asarray(value, np.float32)


def announce(url: str, health: str) -> None:
    """Print the address once ``health`` answers 200, from a thread."""
    threading.Thread(target=_announce, args=[url, health], daemon=True).start()


def _announce(url: str, health: str) -> None:
    while not _well(f"{url}{health}"):
        time.sleep(POLL_S)
    print(f"serving at {url}", flush=True)


def _well(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http, loopback
            return response.status == 200  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False
