"""``deployc profile`` and ``deployc report`` as they are run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compiler.profile.cli import profile, report
from compiler.profile.store import carried, store
from runtime.artifact import check_files, read_manifest
from runtime.profile import read_profile
from specs.digests import file_sha256
from specs.errors import ArtifactError, DeploycError, EngineError
from specs.manifest import Manifest
from specs.profile import Profile, identity, profile_path

VARIANT = "onnxruntime-cpu-fp32"
QUICK = ("--batches", "1,4", "--seconds", "0.02")
MakeProfile = Callable[..., Profile]


@pytest.fixture
def artifact(linear_artifact: Path, tmp_path: Path) -> Path:
    """A copy of a small artifact."""
    shutil.copytree(linear_artifact, tmp_path / "net")
    return tmp_path / "net"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(profile, list(map(str, arguments)), standalone_mode=False)


def _digests(folder: Path) -> dict[str, str]:
    return {str(path): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def _manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest


def test_the_table_is_printed_and_stored_with_the_report_and_drawn(
    artifact: Path, tmp_path: Path
) -> None:
    drawing = tmp_path / "drawings" / "plot.png"
    drawing.parent.mkdir()
    done = _run(artifact, *QUICK, "--slo", "1000", "--plot", drawing)
    assert done.exception is None
    assert [line.split()[:2] for line in done.stdout.splitlines() if "fixed" in line][-2:] == [
        ["1", "fixed"],
        ["4", "fixed"],
    ]
    assert "for the SLO of 1000 ms: batch 4" in done.stdout
    manifest = _manifest_of(artifact)
    assert {profile_path(VARIANT), "report.html"} <= manifest.files.keys()
    found = read_profile(artifact, VARIANT)
    assert found is not None
    assert (found.advice.slo_ms, found.advice.slo) == (1000, 4)
    assert [point.batch for point in found.points] == [1, 4, 1, 4]
    assert sorted(path.name for path in artifact.parent.iterdir()) == ["drawings", "net"]
    assert drawing.read_bytes().startswith(b"\x89PNG")


def test_progress_goes_to_stderr_and_json_to_stdout(artifact: Path) -> None:
    done = _run(artifact, "--batches", "1", "--seconds", "0.02", "--json")
    told = json.loads(done.stdout)
    assert told["profiles"][0]["variant"] == VARIANT
    assert told["not_measured"] == []
    assert done.stderr.count(VARIANT) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--batches", "64"), "batches_range"), (("--variant", "none"), "variant_unknown")],
)
def test_what_the_artifact_has_not_is_refused_before_anything_runs(
    artifact: Path, arguments: tuple[str, ...], code: str
) -> None:
    done = _run(artifact, *arguments)
    assert isinstance(done.exception, DeploycError)
    assert done.exception.code == code
    assert done.stderr == ""


def test_an_artifact_that_was_changed_is_not_measured(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes(b"")
    done = _run(artifact, *QUICK)
    assert isinstance(done.exception, ArtifactError)
    assert done.exception.code == "artifact_changed"


def test_where_nothing_can_be_measured_the_artifact_stays_and_the_cause_is_raised(
    artifact: Path,
) -> None:
    before = _digests(artifact)
    done = _run(artifact, *QUICK, "--timeout", "0.01")
    assert isinstance(done.exception, EngineError)
    assert done.exception.code == "point_timeout"
    assert _digests(artifact) == before


def test_an_interrupt_leaves_the_artifact_as_it_was(artifact: Path) -> None:
    before = _digests(artifact)
    script = "from compiler.profile.cli import profile; profile()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(artifact), "--seconds", "0.5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert VARIANT in process.stderr.readline()  # a point is done, the next one runs
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in words
    assert _digests(artifact) == before
    assert [path.name for path in artifact.parent.iterdir()] == ["net"]


def test_without_what_draws_the_profile_is_stored_and_one_line_says_so(artifact: Path) -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from compiler.profile.cli import profile; profile()"
    )
    before = file_sha256(artifact / "report.html")
    command = [sys.executable, "-c", script, str(artifact), "--batches", "1", "--seconds", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = done.stderr.splitlines()[-1]
    assert "report.html was not drawn again, which needs matplotlib" in line
    assert "pip install 'deployc[build]'" in line
    assert profile_path(VARIANT) in _manifest_of(artifact).files
    assert _manifest_of(artifact).files["report.html"].sha256 == before


def test_a_report_is_drawn_into_the_artifact_or_beside_it(artifact: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(report, list(map(str, arguments)), standalone_mode=False)

    beside = tmp_path / "page.html"
    before = _digests(artifact)
    assert run(artifact, "-o", beside).stdout.strip() == str(beside)
    assert _digests(artifact) == before
    assert run(artifact).exception is None
    assert (artifact / "report.html").read_text("utf-8") == beside.read_text("utf-8")
    _manifest_of(artifact)
    once = _digests(artifact)
    run(artifact)
    assert _digests(artifact) == once


@pytest.fixture
def measured(artifact: Path, made: MakeProfile) -> Profile:
    """A profile, made up, that holds for the artifact, and lies in it."""
    manifest = read_manifest(artifact)
    found = made({1: 1.0}, identity=identity(manifest, manifest.variants[0]))
    store(artifact, [found], report=False)
    return found


def test_a_profile_is_not_stored_in_an_artifact_that_was_built_anew_meanwhile(
    artifact: Path, made: MakeProfile
) -> None:
    before = _digests(artifact)
    with pytest.raises(ArtifactError) as caught:
        store(artifact, [made({1: 1.0})], report=False)
    assert caught.value.code == "profile_stale"
    assert _digests(artifact) == before


def test_a_profile_is_carried_over_where_the_variant_is_the_same(
    artifact: Path, measured: Profile, linear_artifact: Path
) -> None:
    fresh = read_manifest(linear_artifact)
    assert measured.identity
    found = carried(artifact, fresh)
    assert found == {profile_path(VARIANT): artifact / profile_path(VARIANT)}


@pytest.mark.parametrize("change", ["options", "file", "gone", "torn", "old", "nothing"])
def test_a_profile_is_left_behind_where_anything_is_not_the_same(
    artifact: Path, measured: Profile, linear_artifact: Path, change: str
) -> None:
    fresh = read_manifest(linear_artifact)
    variant = fresh.variants[0]
    file = artifact / profile_path(measured.variant)
    if change == "options":
        variant = variant.model_copy(update={"options": {"intra_op_threads": 1}})
    if change == "file":
        variant = variant.model_copy(update={"file": "processing.py"})
    if change == "gone":
        file.unlink()
    if change == "torn":
        file.write_text(file.read_text() + " ")
    if change == "old":
        (artifact / "manifest.json").write_text('{"schema_version": 0}')
    if change == "nothing":
        shutil.rmtree(artifact)
    assert carried(artifact, fresh.model_copy(update={"variants": (variant,)})) == {}


def test_a_build_after_a_profile_changes_nothing(
    tmp_path: Path, build_file: Callable[..., Any], root: Path, made: MakeProfile
) -> None:
    spec, folder = root / "specs" / "linear_regression.yaml", tmp_path / "net"
    manifest = build_file(spec, folder).manifest
    found = made({1: 1.0, 2: 1.5}, identity=identity(manifest, manifest.variants[0]))
    store(folder, [found], report=True)
    before = _digests(folder)
    assert not build_file(spec, folder).written
    assert _digests(folder) == before
    assert "For throughput: batch 2" in (folder / "report.html").read_text("utf-8")
