"""A predictor without an artifact, for the parts of serving that need no engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from runtime.tensors import Tensors
from specs.axes import AxisRange
from specs.errors import InputError
from specs.manifest import Graph, Manifest, Variant, WeightsOrigin
from specs.schema import Limits, Serving, TensorSpec

ManifestMaker = Callable[..., Manifest]


def _manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "schema_version": 1,
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
                name="fake-cpu-fp32", engine="fake", device="cpu", precision="fp32", file="model"
            ),
        ),
        "limits": Limits(bytes=10_000),
        "serving": Serving(),
    }
    return Manifest(**{**values, **changes})


@dataclass
class FakePredictor:
    """Doubles tensors [2]; of an image's bytes it takes the length. 13 breaks the engine."""

    manifest: Manifest
    delay_s: float = 0.0
    batches: list[int] = field(default_factory=list[int])
    threads: set[str] = field(default_factory=set[str])
    closed: bool = False

    @property
    def variant(self) -> Variant:
        return self.manifest.variants[0]

    @property
    def max_batch(self) -> int:
        return self.manifest.batch.max

    def preprocess(self, item: Any) -> Tensors:
        if isinstance(item, bytes):
            if not item.startswith(b"IMG"):
                raise InputError("no image starts like this", hint="", code="not_an_image")
            return {"x": np.full(2, len(item), np.float32)}
        array = np.asarray(item)
        if self.manifest.takes == "tensors" and array.shape != (2,):
            raise InputError(f"found shape {array.shape}, expected (2,)", code="wrong_shape")
        return {"x": array.astype(np.float32)}

    def run(self, items: Sequence[Tensors]) -> list[Tensors]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(items))
        time.sleep(self.delay_s)
        if any((item["x"] == 13).any() for item in items):
            raise RuntimeError("the engine choked")
        return [{"y": item["x"] * 2} for item in items]

    def postprocess(self, outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        if self.manifest.answer == "image":
            return [{"image": np.full((2, 3, 3), 7, np.uint8)} for _ in outputs]
        return [{"outputs": {"y": output["y"]}} for output in outputs]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def make_manifest() -> ManifestMaker:
    """Makes a manifest of one input x [batch, 2]; keywords change its fields."""
    return _manifest


@pytest.fixture
def make_predictor() -> Callable[..., FakePredictor]:
    """Makes a predictor; ``delay_s`` is the engine's time, other keywords go to the manifest."""

    def make(delay_s: float = 0.0, **changes: Any) -> FakePredictor:
        return FakePredictor(_manifest(**changes), delay_s)

    return make
