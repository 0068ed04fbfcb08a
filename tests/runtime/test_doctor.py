"""``deployc doctor``: what works is tried, what does not is told with what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from runtime import _doctor_child as child
from runtime import doctor
from runtime.doctor import Finding, check_artifact, check_spec, conflicts, extras, find_engines
from runtime.doctor_cli import doctor as command
from runtime.engines.ort import OrtEngine
from specs.digests import file_sha256
from specs.engines import Device
from specs.errors import EngineError

WORKS = Finding("onnxruntime on cpu", {"onnxruntime": "1.0"})
LACKS = Finding("onnxruntime on cuda", {}, "provider_missing", "no libcuda", "install the driver")
ENGINES: dict[tuple[str, Device], Finding] = {
    ("onnxruntime", "cpu"): WORKS,
    ("onnxruntime", "cuda"): LACKS,
}


class OrtOnCpu(OrtEngine):
    """ONNX Runtime as if it knew the CPU alone: trying a GPU takes seconds."""

    devices = ("cpu",)


@pytest.fixture
def only_ort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the installation have one engine, so that the others are not waited for."""
    monkeypatch.setattr(doctor, "engine_languages", lambda: {"onnxruntime": OrtOnCpu})


def _child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the process that tries an engine run this instead."""
    monkeypatch.setattr(doctor, "CHILD", (sys.executable, "-c", code))


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


# --- engines


@pytest.mark.usefixtures("only_ort")
def test_an_engine_that_works_is_found_by_a_real_session_and_tells_its_version() -> None:
    import onnxruntime as ort

    (found,) = find_engines().values()
    assert (found.ok, found.name) == (True, "onnxruntime on cpu")
    assert found.versions["onnxruntime"] == ort.__version__
    assert found.seconds > 0


@pytest.mark.usefixtures("only_ort")
@pytest.mark.parametrize(
    ("code", "found", "told"),
    [
        (
            "import os; os.write(2, b'core of it'); os.kill(os.getpid(), 11)",
            "probe_crashed",
            "the process was ended by SIGSEGV: core of it",
        ),
        ("import sys; sys.exit(3)", "probe_crashed", "the process ended with status 3"),
        ("print('hello')", "probe_crashed", "the process ended with status 0"),
        ("import time; time.sleep(60)", "probe_timeout", "no answer within 1 s"),
    ],
)
def test_a_library_that_crashes_or_hangs_is_a_finding(
    code: str, found: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(monkeypatch, code)
    (finding,) = find_engines(limit=1).values()
    assert (finding.ok, finding.code, finding.message) == (False, found, told)
    assert OrtEngine.install in finding.hint


@pytest.mark.usefixtures("only_ort")
def test_an_error_without_a_hint_gets_the_engine_s_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = {"error": {"code": "engine_missing", "message": "gone", "hint": ""}}
    _child(monkeypatch, f"print({json.dumps(error)!r})")
    (finding,) = find_engines().values()
    assert (finding.code, finding.hint) == ("engine_missing", OrtEngine.install)


PROBE = """
import sys
from runtime import _doctor_child
from runtime.engines.ort import OrtEngine
from specs.errors import EngineError

def probe(device):
    print("loading", device, flush=True)
    {}

OrtEngine.probe = probe
sys.argv = ["child", "engine", "onnxruntime", "cpu"]
_doctor_child.main()
"""


@pytest.mark.parametrize(
    ("does", "answer"),
    [
        ("return {'onnxruntime': '1'}", {"versions": {"onnxruntime": "1"}}),
        (
            "raise EngineError('no', hint='do', code='engine_missing')",
            {"error": {"code": "engine_missing", "message": "no", "hint": "do"}},
        ),
        (
            "raise ImportError('libx.so')",
            {"error": {"code": "broken", "message": "ImportError: libx.so", "hint": ""}},
        ),
    ],
)
def test_the_child_answers_alone_on_stdout_whatever_the_library_does(
    does: str, answer: dict[str, Any]
) -> None:
    command = [sys.executable, "-c", PROBE.replace("{}", does)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == answer
    assert done.stderr == "loading cpu\n"


@pytest.mark.cuda
@pytest.mark.skipif(not Path("/proc/driver/nvidia").exists(), reason="no NVIDIA driver here")
def test_the_gpus_are_told_with_driver_and_memory() -> None:
    found = doctor.find_gpus()
    assert found.ok, found.message
    assert found.versions.keys() >= {"driver", "cuda", "gpu 0"}


def test_a_machine_without_nvidia_s_driver_says_which_library_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child, "NVML", "libno-such-driver.so.1")
    with pytest.raises(EngineError, match=r"libno-such-driver\.so\.1 is missing") as caught:
        child.gpus()
    assert caught.value.code == "driver_missing"


# --- packages


def test_packages_of_the_extras_are_told_with_their_versions() -> None:
    from importlib.metadata import version

    found = extras()
    assert found["build"]["onnx"] == version("onnx")
    assert "dev" not in found
    assert all("[" not in name for packages in found.values() for name in packages)


def test_two_packages_of_onnx_runtime_are_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime"], "x": ["x"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: given)
    (told,) = conflicts()
    assert told.startswith("onnxruntime and onnxruntime-gpu overwrite each other's files")
    assert "pip uninstall onnxruntime onnxruntime-gpu" in told


def test_one_package_of_onnx_runtime_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime-gpu"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: given)
    assert conflicts() == []


def test_instructions_are_read_from_the_processor_s_flags() -> None:
    text = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    assert all(f" {flag}" in text for flag in doctor.this_place().flags)


# --- specs


WriteSpec = Callable[..., Path]


@pytest.fixture
def write_spec(tmp_path: Path, root: Path) -> WriteSpec:
    """Write the linear regression's spec with these targets."""
    shutil.copytree(root / "specs" / "models", tmp_path / "models")
    whole = yaml.safe_load((root / "specs" / "linear_regression.yaml").read_text("utf-8"))

    def write(*targets: dict[str, str]) -> Path:
        file = tmp_path / "line.yaml"
        file.write_text(yaml.safe_dump({**whole, "targets": list(targets)}, sort_keys=False))
        return file

    return write


def test_a_spec_whose_targets_all_work_can_be_built(write_spec: WriteSpec) -> None:
    verdict = check_spec(write_spec({"engine": "onnxruntime"}), ENGINES)
    assert (verdict.ok, [row.name for row in verdict.rows]) == (True, ["onnxruntime-cpu-fp32"])


def test_one_target_that_lacks_something_is_enough_to_refuse(write_spec: WriteSpec) -> None:
    file = write_spec({"engine": "onnxruntime"}, {"engine": "onnxruntime", "device": "cuda"})
    verdict = check_spec(file, ENGINES)
    assert [row.ok for row in verdict.rows] == [True, False]
    assert (verdict.ok, verdict.rows[1].hint) == (False, "install the driver")


def test_auto_needs_one_engine_that_works(write_spec: WriteSpec) -> None:
    file = write_spec({"engine": "auto"})
    assert check_spec(file, ENGINES).ok
    none = check_spec(file, {("onnxruntime", "cuda"): LACKS})
    assert (none.ok, "no libcuda" in none.rows[0].message) == (False, True)
    assert not check_spec(file, {}).ok


def test_a_build_tool_that_lacks_is_told_with_its_extra(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> object:
        return None if name in ("torch", "requests") else object()

    monkeypatch.setattr("importlib.util.find_spec", find)
    verdict = check_spec(root / "specs" / "digits.yaml", ENGINES)
    assert [row.name for row in verdict.rows if not row.ok] == ["build: torch"]
    assert verdict.rows[0].hint == 'pip install "deployc[build]"'
    url = check_spec(root / "specs" / "mobilenet_v2.yaml", ENGINES)
    assert [row.name for row in url.rows if not row.ok] == ["build: torch", "build: requests"]
    assert check_spec(root / "specs" / "linear_regression.yaml", ENGINES).ok


def test_an_invalid_spec_is_a_finding(tmp_path: Path) -> None:
    verdict = check_spec(tmp_path / "lost.yaml", ENGINES)
    assert (verdict.ok, verdict.rows[0].code) == (False, "spec_invalid")
    assert "cannot be read" in verdict.rows[0].message


# --- artifacts


def _variants(artifact: Path, folder: Path, on_missing: str, *files: str) -> Path:
    """A copy of an artifact with a variant for each of these files."""
    shutil.copytree(artifact, folder)
    (folder / "torn.onnx").write_bytes(b"no graph")
    manifest = json.loads((folder / "manifest.json").read_text())
    (first,) = manifest["variants"]
    entry = {"sha256": file_sha256(folder / "torn.onnx"), "bytes": 8}
    manifest["files"]["torn.onnx"] = entry
    manifest["variants"] = [{**first, "name": file, "file": file} for file in files]
    manifest["on_missing"] = on_missing
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_an_artifact_is_loaded_and_run(linear_artifact: Path) -> None:
    verdict = check_artifact(linear_artifact)
    assert (verdict.ok, verdict.chosen) == (True, "onnxruntime-cpu-fp32")
    assert verdict.rows[0].versions["providers"] == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("on_missing", "files", "chosen"),
    [
        ("refuse", ("model.onnx", "torn.onnx"), "model.onnx"),
        ("refuse", ("torn.onnx", "model.onnx"), ""),
        ("next", ("torn.onnx", "model.onnx"), "model.onnx"),
        ("next", ("torn.onnx",), ""),
    ],
)
def test_the_first_variant_decides_unless_the_spec_says_next(
    linear_artifact: Path, tmp_path: Path, on_missing: str, files: tuple[str, ...], chosen: str
) -> None:
    folder = _variants(linear_artifact, tmp_path / "a", on_missing, *files)
    verdict = check_artifact(folder)
    assert (verdict.ok, verdict.chosen) == (bool(chosen), chosen)
    assert [row.ok for row in verdict.rows] == [file == "model.onnx" for file in files]


def test_a_changed_artifact_is_a_finding(linear_artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(linear_artifact, tmp_path / "a")
    (tmp_path / "a" / "model.onnx").write_bytes(b"")
    verdict = check_artifact(tmp_path / "a")
    assert [(row.name, row.code) for row in verdict.rows] == [("the artifact", "artifact_changed")]
    assert not verdict.ok


# --- the command


@pytest.mark.usefixtures("only_ort")
def test_the_command_tells_machine_engines_and_verdicts(
    linear_artifact: Path, write_spec: WriteSpec, tmp_path: Path
) -> None:
    spec = write_spec({"engine": "onnxruntime"})
    done = _run(spec, linear_artifact)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("machine: ")
    assert "onnxruntime on cpu  works  onnxruntime" in done.stdout
    assert f"{spec} can be built and run here" in done.stdout
    assert f"{linear_artifact} runs here, as onnxruntime-cpu-fp32" in done.stdout
    lost = _run(spec, tmp_path / "lost.yaml")
    assert lost.exit_code == 1
    assert "cannot be built here" in lost.stdout


@pytest.mark.usefixtures("only_ort")
def test_the_command_as_json_holds_everything(tmp_path: Path) -> None:
    done = _run("--json", tmp_path / "lost.yaml")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["checked"][0]["ok"]) == (1, False)
    assert found["engines"][0]["ok"] is True
    assert found.keys() >= {"machine", "instructions", "gpus", "packages", "conflicts"}


@pytest.mark.usefixtures("only_ort")
def test_an_installation_in_which_no_engine_works_exits_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _child(monkeypatch, "import sys; sys.exit(3)")
    done = _run()
    assert done.exit_code == 1
    assert "onnxruntime on cpu  LACKS  the process ended with status 3" in done.stdout


def test_a_limit_that_is_none_is_wrong_usage() -> None:
    assert _run("--timeout", "0").exit_code == 2
