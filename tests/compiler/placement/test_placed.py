from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from compiler.placement.golden_images import golden_images
from compiler.verify import verify_variant
from runtime.artifact import read_manifest
from specs.errors import InputError, ProcessingError
from specs.manifest import Manifest, Variant
from tests.processing_specs import cropped

NET = """
import torch
from torch import nn


class Colors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))
"""
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "colors",
    "model": {"python": {"file": "colors.py", "object": "Colors"}},
    "weights": {"random": {"seed": 0}},
    "inputs": {"input": {"shape": ["batch", 3, 32, 32]}},
    "outputs": {"output": {"shape": ["batch", 3]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    "preprocess": cropped(40, 32),
    "postprocess": ["softmax", {"top_k": {"k": 2, "labels": "labels.txt"}}],
    "limits": {"side": 2000},
}
BuildSpec = Callable[..., Any]


@pytest.fixture
def colors(tmp_path: Path) -> dict[str, Any]:
    """A spec of a tiny model that takes pictures, whose files lie in ``tmp_path``."""
    (tmp_path / "colors.py").write_text(NET, "utf-8")
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n", "utf-8")
    return dict(SPEC)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, build_file: BuildSpec) -> tuple[Path, Manifest]:
    """The model on two engines in Python, and on both with its processing in the graph."""
    import yaml

    folder = tmp_path_factory.mktemp("colors")
    (folder / "colors.py").write_text(NET, "utf-8")
    (folder / "labels.txt").write_text("red\ngreen\nblue\n", "utf-8")
    targets: list[dict[str, Any]] = [
        {"engine": engine, "placement": place, "name": f"{engine}-{place}"}
        for place in ("python", "graph")
        for engine in ("onnxruntime", "openvino")
    ]
    file = folder / "colors.yaml"
    file.write_text(yaml.safe_dump(SPEC | {"targets": targets}), "utf-8")
    build_file(file, folder / "artifact")
    return folder / "artifact", read_manifest(folder / "artifact")


def variant_of(manifest: Manifest, name: str) -> Variant:
    return next(variant for variant in manifest.variants if variant.name == name)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_answers_the_same_wherever_the_steps_run(
    both: tuple[Path, Manifest], engine: str
) -> None:
    folder, _ = both
    items = list(golden_images().values())
    with (
        runtime.load(folder, f"{engine}-python") as plain,
        runtime.load(folder, f"{engine}-graph") as fused,
    ):
        for found, wanted in zip(fused.predict(items), plain.predict(items), strict=True):
            for one, other in zip(found["classes"], wanted["classes"], strict=True):
                assert one["label"] == other["label"]
                assert one["probability"] == pytest.approx(other["probability"], abs=0.01)


def test_such_a_variant_takes_pixels_and_says_so(both: tuple[Path, Manifest]) -> None:
    folder, manifest = both
    variant = variant_of(manifest, "openvino-graph")
    assert variant.placement == "graph"
    assert variant.inputs["image"].dtype == "uint8"
    assert variant.axes["image_height"].max == 2000
    with runtime.load(folder, variant.name) as predictor:
        item = predictor.preprocess(golden_images()["photo.jpg"])
        assert {n: (a.dtype, a.shape) for n, a in item.items()} == {
            "image": (np.uint8, (375, 500, 3))
        }
        assert predictor.inputs == variant.inputs


def test_images_of_several_sizes_are_answered_in_their_order(both: tuple[Path, Manifest]) -> None:
    images = golden_images()
    items = [images[n] for n in ("photo.jpg", "odd.jpg", "photo.jpg", "tall.jpg", "odd.jpg")]
    with runtime.load(both[0], "onnxruntime-graph") as predictor:
        answers = predictor.predict(items)
        alone = [predictor.predict([item])[0] for item in items]
    for found, wanted in zip(answers, alone, strict=True):
        pairs = zip(found["classes"], wanted["classes"], strict=True)
        for one, other in pairs:
            assert one["index"] == other["index"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_the_gate_of_every_graph_stands_in_the_manifest(both: tuple[Path, Manifest]) -> None:
    gates = {(gate.execution, gate.where): gate for gate in both[1].gates}
    assert set(gates) == {
        ("python", ""),
        ("graph", "onnxruntime-graph"),
        ("graph", "openvino-graph"),
    }
    for gate in gates.values():
        assert gate.chain is not None
        assert gate.chain.worst <= gate.bound * 1.01
        assert gate.items > 20


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_verify_runs_such_a_variant_on_pictures(both: tuple[Path, Manifest], engine: str) -> None:
    folder, manifest = both
    found = verify_variant(folder, manifest, variant_of(manifest, f"{engine}-graph"))
    assert found.state == "passed"
    assert any("pictures 500x375" in case.case for case in found.cases)


def test_a_strip_that_would_grow_beyond_the_limit_is_refused_before_the_engine_sees_it(
    both: tuple[Path, Manifest],
) -> None:
    strip = np.zeros((2, 2000, 3), np.uint8)
    with runtime.load(both[0], "onnxruntime-graph") as predictor:
        predictor.preprocess(strip)  # 40 x 40,000 pixels are still allowed
        with pytest.raises(InputError) as caught:
            predictor.preprocess(np.zeros((1, 3000, 3), np.uint8))
    assert caught.value.code in {"too_large", "wrong_shape"}


def test_auto_keeps_the_faster_one_and_tells_both_times(
    colors: dict[str, Any], build_spec: BuildSpec
) -> None:
    (variant,) = build_spec(colors | {"placement": "auto"}).manifest.variants
    (note,) = variant.notes
    graph, python = map(float, re.findall(r"([0-9.]+) ms", note))
    if graph != python:  # both are rounded in the note
        assert (variant.placement == "graph") == (graph < python)


def test_narrow_limits_make_the_golden_pictures_smaller(
    colors: dict[str, Any], build_spec: BuildSpec
) -> None:
    limits = {"side": 300, "pixels": 50_000, "bytes": 40_000}
    (variant,) = build_spec(colors | {"placement": "graph", "limits": limits}).manifest.variants
    assert variant.placement == "graph"
    names = " ".join(case.case for case in variant.parity)
    assert "pictures 223x223" in names  # the root of 50,000
    assert "pictures 258x193" in names


def test_a_gate_that_could_compare_nothing_fails_the_build(
    colors: dict[str, Any], build_spec: BuildSpec
) -> None:
    with pytest.raises(ProcessingError, match="refuses every item of the gate") as caught:
        build_spec(colors | {"limits": {"bytes": 10}})
    assert (caught.value.code, caught.value.hint) == ("gate_empty", "widen `limits` in the spec")


def test_an_engine_that_runs_no_graph_says_so(
    colors: dict[str, Any], build_spec: BuildSpec
) -> None:
    targets = [{"engine": "torch", "placement": "graph"}]
    with pytest.raises(ProcessingError) as caught:
        build_spec(colors | {"targets": targets})
    assert caught.value.code == "placement"
    assert "built from the model's source" in caught.value.message


def test_an_old_opset_says_so_and_auto_stays_in_python(
    colors: dict[str, Any], build_spec: BuildSpec
) -> None:
    old = colors | {"export": {"exporter": "torchscript", "opset": 17}}
    with pytest.raises(ProcessingError, match="the graph has opset 17, the steps need 18"):
        build_spec(old | {"placement": "graph"})
    (variant,) = build_spec(old | {"placement": "auto"}).manifest.variants
    assert variant.placement == "python"
    assert variant.notes == (
        "processing stays in Python: the graph has opset 17, the steps need 18 or more",
    )


def test_a_graph_that_differs_from_the_reference_fails_the_build(
    colors: dict[str, Any],
    build_spec: BuildSpec,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from specs.ops import Fused, Graph, Symbols
    from specs.ops.normalize import Normalize
    from specs.values import Value

    right = Normalize.fuse

    def wrong(self: Normalize, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        fused = right(self, graph, x, value)
        assert fused is not None
        assert isinstance(fused.result, str)
        return Fused(graph.add("Add", fused.result, graph.constant(0.1)))

    monkeypatch.setattr(Normalize, "fuse", wrong)
    monkeypatch.setenv(
        "DEPLOYC_CACHE", str(tmp_path / "cache")
    )  # the right graph lies in the other
    with pytest.raises(ProcessingError, match="'normalize' in the graph") as caught:
        build_spec(colors | {"placement": "graph"})
    assert caught.value.code == "processing_differs"
    assert caught.value.hint == "use placement: python for this target"
    (variant,) = build_spec(colors | {"placement": "auto"}).manifest.variants
    assert variant.placement == "python"
