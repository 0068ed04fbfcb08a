"""A whole build: what is run again when something changes, and what an artifact holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from compiler.build import build
from compiler.progress import Reporter
from runtime.artifact import check_files, read_manifest
from specs.errors import DeploycError, SpecError
from specs.loader import load_spec

Make = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]

ENGINE = "onnxruntime-cpu-fp32: engine"
PARITY = "onnxruntime-cpu-fp32: parity"
AUDIT = "onnxruntime-cpu-fp32: audit"
STAGES = ["weights", "processing", "export", "reference", ENGINE, PARITY, AUDIT, "report", "write"]


@pytest.fixture(autouse=True)
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for each test."""
    monkeypatch.setenv("DEPLOYC_CACHE", str(tmp_path / "cache"))


def _run(build_spec: Build, data: dict[str, Any]) -> set[str]:
    """The stages that were run, not taken from the cache."""
    reporter = Reporter(quiet=True)
    build_spec(data, reporter=reporter)
    gated = bool(data.get("preprocess") or data.get("postprocess"))
    shown = [name for name in (*STAGES[:4], "gate", *STAGES[4:]) if gated or name != "gate"]
    assert [step.name for step in reporter.steps] == shown
    return {step.name for step in reporter.steps if not step.cached} - {"weights"}


# --- what is run again


def test_a_first_build_runs_every_stage_and_a_second_none(spec: Make, build_spec: Build) -> None:
    assert _run(build_spec, spec()) == set(STAGES[1:])
    assert _run(build_spec, spec()) == set()


def _weights(folder: Path, value: float) -> dict[str, Any]:
    tensors = {"linear.weight": torch.full((3, 4), value), "linear.bias": torch.zeros(3)}
    torch.save(tensors, folder / "net.pth")
    return {"weights": {"path": "net.pth"}}


def _samples(folder: Path, value: float) -> dict[str, Any]:
    np.save(folder / "sample.npy", np.full(4, value, np.float32))
    return {"verify": {"samples": "*.npy"}}


def _source(folder: Path, value: float) -> dict[str, Any]:
    file = folder / "net.py"
    text = re.sub(r"\* [0-9.]+", "", file.read_text())
    file.write_text(text.replace("self.linear(x)", f"self.linear(x) * {value}", 1))
    return {}


def _sibling(folder: Path, value: float) -> dict[str, Any]:
    (folder / "block.py").write_text(f"VALUE = {value}\n")
    return {}


def _description(_folder: Path, value: float) -> dict[str, Any]:
    return {"description": f"number {value}"}


def _opset(_folder: Path, value: float) -> dict[str, Any]:
    return {"export": {"exporter": "torchscript", "opset": 16 + int(value)}}


def _tolerance(_folder: Path, value: float) -> dict[str, Any]:
    return {"verify": {"atol": value}}


def _processing(_folder: Path, value: float) -> dict[str, Any]:
    return {"preprocess": [{"cast": "float32"}, {"scale": value}]}


def _batch(_folder: Path, value: float) -> dict[str, Any]:
    return {"dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 6 + int(value)}}}


def _threads(_folder: Path, value: float) -> dict[str, Any]:
    return {"targets": [{"engine": "onnxruntime", "options": {"intra_op_threads": int(value)}}]}


WRITE = {"report", "write"}
EXPORTED = {"export", "reference", ENGINE, PARITY, AUDIT, *WRITE}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (_weights, EXPORTED),
        (_source, EXPORTED),
        (_opset, EXPORTED),
        (_batch, EXPORTED - {ENGINE} | {"processing", ENGINE}),
        (_samples, {"reference", PARITY, *WRITE}),
        (_tolerance, {"reference", PARITY, *WRITE}),
        (_processing, {"processing", "reference", "gate", PARITY, *WRITE}),
        (_threads, {ENGINE, PARITY, AUDIT, *WRITE}),
        (_description, WRITE),
    ],
)
def test_a_change_runs_the_stages_that_read_it_and_no_others(
    spec: Make,
    build_spec: Build,
    tmp_path: Path,
    change: Callable[[Path, float], dict[str, Any]],
    again: set[str],
) -> None:
    data = spec()
    _run(build_spec, data | change(tmp_path, 1.0))
    found = _run(build_spec, data | change(tmp_path, 2.0))
    assert found - {"processing"} == again - {"processing"}
    assert "processing" in again or "processing" not in found


def test_a_changed_sibling_is_exported_again_though_the_graph_may_stay(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    data = spec()
    _sibling(tmp_path, 1)
    _run(build_spec, data)
    _sibling(tmp_path, 2)
    assert "export" in _run(build_spec, data)


def test_external_weights_that_change_are_another_graph_for_the_engine(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    data = spec(export={"exporter": "dynamo", "external_data": True})
    _run(build_spec, data | _weights(tmp_path, 1.0))
    assert ENGINE in _run(build_spec, data | _weights(tmp_path, 2.0))


def test_a_stage_that_was_tampered_with_is_run_again(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    _run(build_spec, spec())
    graph = next((tmp_path / "cache" / "stages" / "export").glob("*/model.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1])
    assert _run(build_spec, spec()) == {"export"}


PROBE = (
    "import sys; from pathlib import Path; import click.testing;"
    "from compiler.cli import build_command as b;"
    "r = click.testing.CliRunner().invoke(b, sys.argv[1:]);"
    "print(r.output); assert not r.exit_code;"
    "print(sorted({'torch', 'torchvision', 'onnx', 'onnxscript'} & set(sys.modules)))"
)


def test_a_second_build_imports_neither_torch_nor_onnx(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    build_spec(spec())
    command = [sys.executable, "-c", PROBE, str(tmp_path / "net.yaml"), "-o"]
    done = subprocess.run(
        [*command, str(tmp_path / "artifact")], capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("[]")


# --- what an artifact is


def test_two_folders_and_two_cold_caches_give_the_same_bytes_and_no_path_of_the_machine(
    conv_spec: Make, tmp_path: Path
) -> None:
    text = yaml.safe_dump(conv_spec(export={"exporter": "dynamo"}))
    artifacts: list[Path] = []
    for name in ("one", "another/deeper"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "net.py", folder)
        (folder / "net.yaml").write_text(text)
        environment = {**os.environ, "DEPLOYC_CACHE": str(folder / "cache")}
        command = ["deployc", "build", "net.yaml", "-q", "-o", "artifact"]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment["PATH"] = path
        subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True)
        artifacts.append(folder / "artifact")
    names = [sorted(str(p.relative_to(a)) for p in a.rglob("*") if p.is_file()) for a in artifacts]
    assert names[0] == names[1]
    for name in names[0]:
        content = (artifacts[0] / name).read_bytes()
        assert content == (artifacts[1] / name).read_bytes()
        assert str(tmp_path).encode() not in content
        assert f"{Path.home()}/".encode() not in content


def test_the_artifact_holds_what_its_manifest_names_and_nothing_else(
    spec: Make, build_spec: Build
) -> None:
    result = build_spec(spec())
    found = {
        path.relative_to(result.folder).as_posix()
        for path in result.folder.rglob("*")
        if path.is_file()
    }
    assert found == {*result.manifest.files, "manifest.json"}
    check_files(result.folder, read_manifest(result.folder))


def test_the_resolved_spec_in_the_artifact_is_the_spec(spec: Make, build_spec: Build) -> None:
    result = build_spec(spec())
    inside = yaml.safe_load((result.folder / "spec.yaml").read_text())
    assert inside["model"] == {"python": {"file": "net.py", "object": "Net"}}
    from specs.schema import Spec

    assert Spec.model_validate(inside) == Spec.model_validate(spec())


def test_the_toolchain_is_in_the_manifest(spec: Make, build_spec: Build) -> None:
    toolchain = build_spec(spec()).manifest.toolchain
    assert {"python", "deployc", "torch", "onnx", "numpy"} <= set(toolchain)
    assert any(name.startswith("onnxruntime") for name in toolchain)


# --- targets


def test_a_target_is_chosen_by_the_name_of_its_variant(spec: Make, build_spec: Build) -> None:
    targets = [{"engine": "onnxruntime"}, {"engine": "onnxruntime", "device": "cuda"}]
    result = build_spec(spec(targets=targets), targets=["onnxruntime-cpu-fp32"])
    assert [variant.name for variant in result.manifest.variants] == ["onnxruntime-cpu-fp32"]


def test_an_unknown_target_is_told_with_the_nearest(spec: Make, refused: Refused) -> None:
    error = refused(spec(), targets=["onnxruntime-gpu-fp32"])
    assert isinstance(error, SpecError)
    assert (error.code, error.hint) == ("target_unknown", "did you mean 'onnxruntime-cpu-fp32'?")


# --- the disk


@pytest.mark.parametrize("place", ["/dev/null/x", "net.py/x"])
def test_a_place_that_cannot_be_written_is_one_clear_error(
    spec: Make, tmp_path: Path, place: str
) -> None:
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(spec()))
    with pytest.raises(DeploycError) as caught:
        build(load_spec(tmp_path / "net.yaml"), tmp_path / place, reporter=Reporter(quiet=True))
    assert caught.value.code == "disk"
    assert caught.value.message.endswith((": File exists", ": Not a directory"))
    assert "-o" in caught.value.hint


def test_a_cache_that_cannot_be_written_is_one_clear_error(
    spec: Make, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYC_CACHE", "/dev/null/cache")
    error = refused(spec())
    assert error.code == "disk"
    assert "DEPLOYC_CACHE" in error.hint


def test_a_full_disk_is_one_clear_error(
    spec: Make, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere/model.onnx")

    monkeypatch.setattr(shutil, "copyfile", full)
    error = refused(spec())
    assert error.message == "/somewhere/model.onnx: No space left on device"


def test_a_place_that_is_taken_is_refused_before_any_work(
    spec: Make, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "artifact").write_text("mine")
    assert refused(spec()).code == "artifact_in_the_way"
    assert not (tmp_path / "cache" / "stages").exists()


def test_a_failing_build_leaves_the_old_artifact_byte_for_byte(
    spec: Make, build_spec: Build, refused: Refused
) -> None:
    folder = build_spec(spec()).folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    data = spec(outputs={"z": {"shape": ["batch", 5]}})
    refused(data)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    assert json.loads(before[folder / "manifest.json"])["name"] == "net"
