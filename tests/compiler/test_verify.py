"""``deployc verify``: an artifact against its golden tensors, and layer by layer."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from compiler.golden import read_golden, write_golden
from runtime.golden import Golden
from specs.cli import main

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.second = torch.nn.Conv2d(4, 4, 3)
        self.head = torch.nn.Linear(64, 3)

    def forward(self, x):
        return self.head(torch.flatten(self.second(torch.relu(self.conv(x))), 1))
"""
FP32 = {"engine": "onnxruntime"}
FP16 = {"engine": "onnxruntime", "precision": "fp16"}
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "net",
    "model": {"python": {"file": "net.py", "object": "Net"}},
    "inputs": {"x": {"shape": ["batch", 1, 8, 8]}},
    "outputs": {"y": {"shape": ["batch", 3]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    "export": {"exporter": "torchscript"},
    "targets": [FP32, FP16],
    # No CPU computes in fp16; the graph in fp16 is what these tests are about.
    "verify": {"min_precision_share": 0},
}
HALF = "onnxruntime-cpu-fp16"
BuildFile = Callable[..., Any]


def _run(*arguments: str | Path) -> click.testing.Result:
    given = [str(argument) for argument in arguments]
    done = click.testing.CliRunner().invoke(main, ["verify", *given])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, build_file: BuildFile) -> Path:
    """The folder of spec, model and artifact, built once."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "net.py").write_text(NET, "utf-8")
    (folder / "net.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False), "utf-8")
    build_file(folder / "net.yaml", folder / "artifact")
    return folder


@pytest.fixture
def artifact(built: Path, tmp_path: Path) -> Path:
    """A copy of the artifact, to be damaged at will."""
    return Path(shutil.copytree(built / "artifact", tmp_path / "artifact"))


def _manifest(artifact: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and let it name the files' hashes as they are now."""
    file = artifact / "manifest.json"
    data = json.loads(file.read_text("utf-8"))
    change(data)
    for name, entry in data["files"].items():
        content = (artifact / name).read_bytes()
        entry.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    file.write_text(json.dumps(data), "utf-8")


def _seal(artifact: Path) -> None:
    _manifest(artifact, lambda data: data)


def _spoil(artifact: Path, value: float) -> None:
    """Plant a wrong weight in the second convolution of the fp16 graph."""
    file = next((artifact / "variants" / HALF).glob("*.onnx"))
    proto = onnx.load(str(file))
    tensor = next(t for t in proto.graph.initializer if tuple(t.dims) == (4, 4, 3, 3))
    array = numpy_helper.to_array(tensor).copy()
    array[:, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, str(file))
    _seal(artifact)


def _spoil_golden(artifact: Path, value: float) -> None:
    goldens = list(read_golden(artifact / "golden"))
    for golden in goldens:
        golden.outputs["y"][4, 2] = value  # at most 4 at once: only the second shift has it
    write_golden([Golden(each.case, each.outputs) for each in goldens], artifact / "golden")
    _seal(artifact)


# --- outputs


def test_an_artifact_as_it_was_built_passes_on_every_variant(built: Path) -> None:
    done = _run(built / "artifact")
    assert done.exit_code == 0, done.output
    assert "onnxruntime-cpu-fp32: passed" in done.stdout
    assert f"{HALF}: passed" in done.stdout
    assert "random, batch 4" in done.stdout


def test_one_variant_can_be_verified_alone(built: Path) -> None:
    done = _run(built / "artifact", "--variant", HALF)
    assert "onnxruntime-cpu-fp32" not in done.stdout
    assert _run(built / "artifact", "--variant", "onnxruntime-cpu-fp61").exit_code == 1


def test_a_file_that_was_changed_ends_with_its_name(artifact: Path) -> None:
    with (artifact / "golden" / "case0.npz").open("ab") as file:
        file.write(b"more")
    done = _run(artifact)
    assert done.exit_code == 1
    assert "case0.npz is not the file that was built" in done.stderr
    assert "case0.npz is not the file" in _run(artifact, "--layers").stderr


@pytest.mark.parametrize("value", [100.0, float("nan")])
def test_other_golden_outputs_fail_with_the_place_and_both_values(
    artifact: Path, value: float
) -> None:
    _spoil_golden(artifact, value)
    done = _run(artifact)
    assert done.exit_code == 1
    assert "onnxruntime-cpu-fp32: failed" in done.stdout
    assert "does not answer as it did when it was built" in done.stderr
    assert f"the reference has {value:g}" in done.stderr


def test_a_tolerance_that_is_not_held_fails(artifact: Path) -> None:
    def tighten(data: dict[str, Any]) -> None:
        data["variants"][1]["tolerance"] = {"atol": 1e-7, "rtol": 0.0}

    _manifest(artifact, tighten)
    done = _run(artifact, "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert [each["state"] for each in told["variants"]] == ["passed", "failed"]
    assert not told["passed"]
    assert told["variants"][1]["cases"][0]["max_excess"] > 1


def test_without_a_tolerance_the_difference_is_measured_and_not_passed(artifact: Path) -> None:
    def drop(data: dict[str, Any]) -> None:
        data["variants"][1]["tolerance"] = None

    _manifest(artifact, drop)
    done = _run(artifact)
    assert done.exit_code == 0
    assert f"{HALF}: measured" in done.stdout
    assert "no tolerance" in done.stdout
    _spoil_golden(artifact, float("nan"))
    assert f"{HALF}: failed" in _run(artifact).stdout  # a number for a NaN is never right


def test_a_variant_that_cannot_run_here_is_told_as_not_run(artifact: Path) -> None:
    def elsewhere(data: dict[str, Any]) -> None:
        data["variants"][0]["device"] = "cuda"

    _manifest(artifact, elsewhere)
    done = _run(artifact)
    if "onnxruntime-cpu-fp32: passed" in done.stdout:
        pytest.skip("this machine has a GPU")
    assert done.exit_code == 0
    assert "onnxruntime-cpu-fp32: not run: CUDAExecutionProvider" in done.stdout
    assert "hint: " in done.stdout


def test_where_no_variant_can_run_nothing_was_verified(artifact: Path) -> None:
    def unknown(data: dict[str, Any]) -> None:
        for variant in data["variants"]:
            variant["engine"] = "abacus"

    _manifest(artifact, unknown)
    done = _run(artifact)
    assert done.exit_code == 1
    assert "nothing was verified" in done.stderr


def test_the_result_is_written_as_json_with_the_artifacts_digest(
    built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    assert _run(built / "artifact", "--out", out).exit_code == 0
    told = json.loads(out.read_text("utf-8"))
    digest = hashlib.sha256((built / "artifact" / "manifest.json").read_bytes()).hexdigest()
    assert (told["passed"], told["digest"]) == (True, digest)
    missing = _run(built / "artifact", "--out", tmp_path / "missing" / "result.json")
    assert missing.exit_code == 1
    assert "cannot be written" in missing.stderr


def test_options_of_layers_without_it_are_wrong_usage(built: Path) -> None:
    assert _run(built / "artifact", "--plot", "p.png").exit_code == 2
    assert _run(built / "artifact", "--spec", built / "net.yaml").exit_code == 2
    assert _run(built / "artifact", "--layers", "--weights", "random:1").exit_code == 2


def test_a_folder_without_an_artifact_is_told(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert done.exit_code == 1
    assert "holds no artifact" in done.stderr


# --- layers


def test_layers_of_a_converted_graph_are_compared_with_the_fp32_graphs(
    built: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "drift.png"
    done = _run(built / "artifact", "--layers", "--plot", plot)
    assert done.exit_code == 0, done.output
    assert "onnxruntime-cpu-fp32: not run: it runs the fp32 graph itself" in done.stdout
    assert "4 layers" in done.stdout or "5 layers" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_planted_wrong_layer_is_marked_and_ends_with_status_1(artifact: Path) -> None:
    _spoil(artifact, 0.5)
    done = _run(artifact, "--layers")
    assert done.exit_code == 1
    (line,) = (line for line in done.stdout.splitlines() if "<- first" in line)
    assert "(Conv)" in line
    assert "beyond tolerance though what it takes is not" in done.stderr
    told = json.loads(_run(artifact, "--layers", "--json").stdout)
    drift = told["variants"][1]["drift"]
    assert told["variants"][1]["state"] == "failed"
    names = [layer["name"] for layer in drift["layers"]]
    assert all(layer["excess"] < 1 for layer in drift["layers"][: names.index(drift["first"])])


def test_an_engine_with_a_file_of_its_own_is_compared_by_the_graph_that_it_took(
    artifact: Path,
) -> None:
    def opaque(data: dict[str, Any]) -> None:
        data["variants"][1].update(engine="openvino", file=f"variants/{HALF}/model.xml")

    (artifact / "variants" / HALF / "model.xml").write_text("<net/>")
    entry = {"sha256": "", "bytes": 0}
    name = f"variants/{HALF}/model.xml"
    _manifest(artifact, lambda data: (opaque(data), data["files"].update({name: entry})))
    done = _run(artifact, "--layers")
    assert done.exit_code == 0, done.output
    assert f"{name} lacks tensors: variants/{HALF}/" in done.stdout
    assert "which it was made from, is compared" in done.stdout


def test_a_layer_of_infinities_is_told_without_a_traceback(artifact: Path) -> None:
    _spoil(artifact, np.inf)
    done = _run(artifact, "--layers")
    assert done.exit_code == 1
    assert "NaN/inf" in done.stdout


def test_with_the_spec_the_fp32_graph_is_compared_with_its_model(built: Path) -> None:
    done = _run(built / "artifact", "--layers", "--spec", built / "net.yaml")
    assert done.exit_code == 0, done.output
    assert "against PyTorch" in done.stdout
    assert "second (Conv2d)" in done.stdout


def test_another_spec_or_other_weights_than_were_built_are_refused(
    built: Path, tmp_path: Path
) -> None:
    shutil.copy(built / "net.py", tmp_path)
    other = tmp_path / "net.yaml"
    other.write_text(yaml.safe_dump({**SPEC, "description": "another"}), "utf-8")
    done = _run(built / "artifact", "--layers", "--spec", other)
    assert done.exit_code == 1
    assert "is not the spec that the artifact was built from" in done.stderr
    options = ("--spec", built / "net.yaml", "--weights", "random:7")
    done = _run(built / "artifact", "--layers", *options)
    assert done.exit_code == 1
    assert "the artifact was built with the weights" in done.stderr


def test_where_no_layer_can_be_compared_the_status_is_1(built: Path) -> None:
    done = _run(built / "artifact", "--layers", "--variant", "onnxruntime-cpu-fp32")
    assert done.exit_code == 1
    assert "no layer was compared" in done.stderr
    assert "--spec" in done.stderr
