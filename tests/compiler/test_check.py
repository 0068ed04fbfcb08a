"""``deployc build --check``, and what ``build`` tells a continuous-integration service."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from compiler.check import check
from compiler.engines.ort import OrtBuilder
from compiler.outcomes import check_data, check_lines, error_data, outcomes_of
from compiler.progress import Reporter
from specs.errors import DeploycError, Problem, SpecError
from specs.loader import load_spec
from specs.reports import Outcome

CPU = {"engine": "onnxruntime"}
CUDA = {"engine": "onnxruntime", "device": "cuda"}
PROOFS = ("engine", "parity", "accuracy and audit")
ON_CUDA = [f"onnxruntime-cuda-fp32: {step}" for step in (*PROOFS, "profile")]
ON_CPU = [f"onnxruntime-cpu-fp32: {step}" for step in ("operators", *PROOFS)]
SHARED = ["schema", "weights", "processing", "export and contract", "reference"]
MAIN = "import sys; from specs.cli import main; sys.exit(main())"

WriteSpec = Callable[..., Path]


@pytest.fixture
def write_spec(tmp_path: Path, root: Path) -> WriteSpec:
    """Write the linear regression's spec with other parts, beside its graph."""
    shutil.copytree(root / "specs" / "models", tmp_path / "models")
    whole = yaml.safe_load((root / "specs" / "linear_regression.yaml").read_text("utf-8"))

    def write(**parts: Any) -> Path:
        file = tmp_path / "line.yaml"
        file.write_text(yaml.safe_dump({**whole, **parts}, sort_keys=False))
        return file

    return write


def _always(value: object) -> Callable[..., object]:
    """A function that gives this, whatever it gets."""

    def give(*_: object) -> object:
        return value

    return give


def _check(file: Path, **options: Any) -> list[Outcome]:
    return check(load_spec(file), reporter=Reporter(quiet=True), **options)


def _states(outcomes: list[Outcome]) -> dict[str, str]:
    return {each.name: each.state.replace("cached", "passed") for each in outcomes}


def test_a_cpu_target_is_checked_to_the_end_and_no_artifact_is_written(
    write_spec: WriteSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_spec(targets=[CPU])
    before = sorted(tmp_path.rglob("*"))
    found = _check(file)
    assert _states(found) == dict.fromkeys([*SHARED, *ON_CPU], "passed")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_needs_a_gpu_is_not_run_and_never_passed(write_spec: WriteSpec) -> None:
    found = _check(write_spec(targets=[CUDA]))
    states = _states(found)
    assert {name for name, state in states.items() if state == "not_run"} >= set(ON_CUDA)
    assert {states[name] for name in SHARED} == {"passed"}
    assert states["portable graph: parity on the cpu"] == "passed"
    reasons = {each.name: each.reason for each in found if each.state == "not_run"}
    assert "needs a GPU" in reasons[ON_CUDA[0]]
    assert all(reasons.values())


def test_operators_that_only_a_build_can_tell_are_not_run(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtBuilder, "unsupported", _always(None))
    found = {each.name: each for each in _check(write_spec(targets=[CUDA]))}
    operators = found["onnxruntime-cuda-fp32: operators"]
    assert (operators.state, "only a build can tell" in operators.reason) == ("not_run", True)


def test_an_operator_without_a_kernel_fails_and_the_other_steps_are_still_tried(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtBuilder, "unsupported", _always(("Gemm", "Odd")))
    found = _check(write_spec(targets=[CPU, CUDA]))
    failed = [each for each in found if each.state == "failed"]
    assert [each.name for each in failed] == [ON_CPU[0], "onnxruntime-cuda-fp32: operators"]
    (problem,) = failed[1].problems
    assert problem.code == "op_unsupported"
    assert problem.message == "onnxruntime on cuda has no kernel for Gemm, Odd"
    assert _states(found)["onnxruntime-cpu-fp32: parity"] == "passed"


def test_after_a_failed_export_nothing_that_needs_the_graph_is_told_as_passed(
    write_spec: WriteSpec,
) -> None:
    found = _check(write_spec(targets=[CPU, CUDA], export={"opset": 26}))
    states = _states(found)
    assert states["export and contract"] == "failed"
    later = list(states)[list(states).index("export and contract") + 1 :]
    assert {states[name] for name in later} == {"not_run"}
    assert all("export and contract failed" in each.reason for each in found[-3:])
    (problem,) = found[3].problems
    assert (problem.code, problem.file.endswith("line.yaml")) == ("contract", True)


def test_a_target_that_fails_leaves_the_others_checked(write_spec: WriteSpec) -> None:
    broken = {**CPU, "precision": "fp16", "name": "half"}
    verify = {"tolerance": {"fp16": {"atol": 0.0, "rtol": 0.0}}}
    found = _check(write_spec(targets=[broken, CPU], verify=verify))
    states = _states(found)
    assert "failed" in {state for name, state in states.items() if name.startswith("half: ")}
    assert {states[name] for name in ON_CPU} == {"passed"}
    first = next(i for i, each in enumerate(found) if each.state == "failed")
    after = [each for each in found[first + 1 :] if each.name.startswith("half: ")]
    assert {each.state for each in after} <= {"not_run", "passed"}


def test_a_missing_engine_fails_its_target(
    write_spec: WriteSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise DeploycError("not installed", hint="pip install it", code="engine_missing")

    monkeypatch.setattr(OrtBuilder, "build", gone)
    monkeypatch.setattr(OrtBuilder, "fingerprint", _always({"test": "gone"}))
    found = {each.name: each for each in _check(write_spec(targets=[CPU]))}
    assert found[ON_CPU[1]].state == "failed"
    assert found[ON_CPU[1]].problems[0].hint == "pip install it"
    assert found[ON_CPU[2]].reason == "engine failed"


def test_auto_is_chosen_on_the_cpu_and_left_open_on_the_gpu(write_spec: WriteSpec) -> None:
    here = {**CPU, "precision": "auto", "name": "here"}
    there = {**CUDA, "precision": "auto", "name": "there"}
    states = _states(_check(write_spec(targets=[here, there])))
    assert states["here: choice on the cpu"] == "passed"
    assert states["there: onnxruntime on cuda"] == "not_run"
    assert "there: choice on the cpu" not in states


def test_only_the_targets_that_are_named_are_checked(write_spec: WriteSpec) -> None:
    file = write_spec(targets=[CPU, CUDA])
    found = _states(_check(file, targets=["onnxruntime-cpu-fp32"]))
    assert not any("cuda" in name for name in found)
    with pytest.raises(SpecError, match="has no target 'x'"):
        _check(file, targets=["x"])


def test_the_lines_of_a_check_end_with_the_sum() -> None:
    problem = Problem("a.yaml", 0, 0, "", "parity", "they differ:\n  much", "")
    outcomes = [
        Outcome("weights", "cached"),
        Outcome("export", "passed"),
        Outcome("parity", "failed", problems=(problem,)),
        Outcome("engine", "not_run", reason="no GPU"),
    ]
    assert check_lines(Path("a.yaml"), outcomes) == [
        "passed   weights",
        "passed   export",
        "FAILED   parity: they differ: much",
        "not run  engine: no GPU",
        "a.yaml: 2 passed, 1 failed, 1 not run",
    ]
    data = check_data(Path("a.yaml"), outcomes)
    assert (data["ok"], check_data(Path("a.yaml"), outcomes[:2])["ok"]) == (False, True)
    assert [step["state"] for step in data["steps"]] == ["cached", "passed", "failed", "not_run"]
    assert data["steps"][2]["problems"][0]["code"] == "parity"


# --- outcomes of a build


def test_the_stage_that_ended_a_build_is_the_one_that_failed() -> None:
    reporter = Reporter(quiet=True)
    error = DeploycError("no", hint="do", code="parity")
    with reporter.step("weights") as step:
        step.cached = True
    with pytest.raises(DeploycError), reporter.step("outer"), reporter.step("inner"):
        raise error
    found = outcomes_of(reporter, error, Path("a.yaml"))
    assert [(each.name, each.state) for each in found] == [
        ("weights", "cached"),
        ("inner", "failed"),
    ]
    assert found[1].problems == (Problem("a.yaml", 0, 0, "", "parity", "no", "do"),)


def test_an_error_before_any_stage_or_after_one_is_laid_to_the_spec() -> None:
    reporter = Reporter(quiet=True)
    error = DeploycError("no", code="x")
    assert outcomes_of(reporter, error, Path("a.yaml"))[0].name == "spec"
    with pytest.raises(DeploycError), reporter.step("tried"):
        raise error
    with reporter.step("next"):
        pass
    assert [each.name for each in outcomes_of(reporter, error, Path("a"))] == ["next", "spec"]
    assert outcomes_of(reporter, None, Path("a"))[-1].state == "passed"


def test_an_error_as_json_has_the_problems_of_a_spec() -> None:
    problem = Problem("a.yaml", 1, 2, "x", "missing", "'x' is missing", "add x")
    found = error_data(SpecError.of(problem))["error"]
    assert (found["code"], found["problems"][0]["line"]) == ("spec_invalid", 1)
    plain = error_data(DeploycError("a", hint="b", code="c"))
    assert plain == {"error": {"code": "c", "message": "a", "hint": "b"}}


# --- the command


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, "build", "line.yaml", "-q", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _cases(file: Path) -> dict[str, list[str]]:
    root = ET.fromstring(file.read_text("utf-8"))  # noqa: S314 - our own text
    return {case.attrib["name"]: [each.tag for each in case] for case in root.iter("testcase")}


def test_check_exits_0_with_steps_not_run_and_writes_the_reports(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    write_spec(targets=[CPU, CUDA])
    done = _run(tmp_path, "--check", "--junit", "out/j.xml", "--sarif", "out/s.sarif")
    assert done.returncode == 0, done.stderr
    assert "not run  onnxruntime-cuda-fp32: engine: it needs a GPU" in done.stdout
    cases = _cases(tmp_path / "out" / "j.xml")
    assert cases["onnxruntime-cuda-fp32: parity"] == ["skipped"]
    assert not any("failure" in tags for tags in cases.values())
    (run,) = json.loads((tmp_path / "out" / "s.sarif").read_text())["runs"]
    assert run["results"] == []
    assert not (tmp_path / "build").exists()


def test_check_exits_1_where_a_step_failed_and_tells_it_everywhere(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    write_spec(export={"opset": 26})
    done = _run(tmp_path, "--check", "--json", "--junit", "j.xml", "--sarif", "s.sarif")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["ok"], found["steps"][3]["problems"][0]["code"]) == (False, "contract")
    assert done.stderr.startswith("error: export and contract: line.yaml: the exported graph")
    assert "opset: asked 26, found" in done.stderr
    assert _cases(tmp_path / "j.xml")["export and contract"] == ["failure"]
    (run,) = json.loads((tmp_path / "s.sarif").read_text())["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "line.yaml", "uriBaseId": "%SRCROOT%"}


def test_check_tells_an_invalid_spec_with_its_line(write_spec: WriteSpec, tmp_path: Path) -> None:
    write_spec(export={"opset": 99})
    done = _run(tmp_path, "--check", "--sarif", "s.sarif")
    assert (done.returncode, done.stdout.splitlines()[0][:14]) == (1, "FAILED   schem")
    (run,) = json.loads((tmp_path / "s.sarif").read_text())["runs"]
    assert run["results"][0]["ruleId"] == "out_of_range"
    assert run["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] > 1


def test_check_with_locked_tells_the_lock_as_a_step(write_spec: WriteSpec, tmp_path: Path) -> None:
    write_spec()
    done = _run(tmp_path, "--check", "--locked")
    assert (done.returncode, done.stdout.splitlines()[0][:13]) == (1, "FAILED   lock")


def test_check_takes_no_output(write_spec: WriteSpec, tmp_path: Path) -> None:
    write_spec()
    done = _run(tmp_path, "--check", "-o", "x")
    assert (done.returncode, "--check writes no artifact" in done.stderr) == (2, True)


def test_a_failing_build_prints_its_error_as_json_and_in_the_reports(
    write_spec: WriteSpec, tmp_path: Path
) -> None:
    write_spec(export={"opset": 26})
    done = _run(tmp_path, "--json", "--junit", "j.xml", "--sarif", "s.sarif")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "contract"
    assert error["message"] in done.stderr
    assert _cases(tmp_path / "j.xml")["export"] == ["failure"]
    (run,) = json.loads((tmp_path / "s.sarif").read_text())["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["contract"]


def test_a_build_reports_its_stages(write_spec: WriteSpec, tmp_path: Path) -> None:
    write_spec()
    assert _run(tmp_path, "--junit", "j.xml").returncode == 0
    cases = _cases(tmp_path / "j.xml")
    names = list(cases)
    assert (names[0], names[-1]) == ("weights", "write")
