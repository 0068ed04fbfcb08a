"""The numbered steps of CONTRIBUTING.md, followed in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FENCE = re.compile(r"^ *```(?P<kind>\w+)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"^\d\. .*?(?=^\d\. |\Z)", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w/]+\.py)`")
BUILD = "import sys; from specs.cli import main; sys.argv[0] = 'deployc'; main()"


def sections(text: str) -> dict[str, str]:
    """Sections by title."""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: part for part in parts}


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of the four packages, of the tests' fixtures and of the settings."""
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("specs", "compiler", "runtime", "serve"):
        shutil.copytree(root / package, tmp_path / package, ignore=ignore)
    for name in ("tests/conftest.py", "tests/specs/ops/conftest.py", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, tmp_path / name)
    return tmp_path


def follow(section: str, project: Path) -> tuple[list[Path], str]:
    """Write the files that the steps give; returns them and the last YAML block."""
    written: list[Path] = []
    spec = ""
    for step in STEP.findall(section):
        for match in FENCE.finditer(step):
            text = textwrap.dedent(match["text"])
            if match["kind"] == "yaml":
                spec = text
                continue
            file = project / FILE.findall(step)[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            assert not file.exists(), f"{file} is there already: the steps must add files only"
            file.write_text(text, "utf-8")
            written.append(file)
    return written, spec


def python(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run python on the copy."""
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONSAFEPATH": ""}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def build(project: Path, spec: str) -> str:
    """Build and return what the command printed."""
    file = project / "specs" / "models" / "added.yaml"
    file.write_text(spec, "utf-8")
    done = python(project, "-c", BUILD, "build", str(file), "-o", str(project / "built"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_files_add_a_processing_op(root: Path, project: Path) -> None:
    text = sections((root / "CONTRIBUTING.md").read_text("utf-8"))
    written, _ = follow(text["Add a processing op: two files"], project)
    assert len(written) == 2
    done = python(project, "-m", "pytest", "-q", str(written[1]))
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    known = python(project, "-c", "from specs.ops import OPS; print([op.name for op in OPS])")
    assert "'invert'" in known.stdout


def test_two_files_add_a_model_source(root: Path, project: Path) -> None:
    text = sections((root / "CONTRIBUTING.md").read_text("utf-8"))
    written, spec = follow(text["Add a model source: two files"], project)
    assert len(written) == 2
    assert "parity over" in build(project, spec)


def test_two_files_add_an_engine(root: Path, project: Path) -> None:
    text = sections((root / "CONTRIBUTING.md").read_text("utf-8"))
    written, spec = follow(text["Add an engine: two files"], project)
    assert len(written) == 2
    assert "ort_offline-cpu-fp32" in build(project, spec)
    engine_file = project / "built" / "variants" / "ort_offline-cpu-fp32" / "optimised.onnx"
    assert engine_file.is_file()
    item = project / "x.json"
    item.write_text("[3, 40]", "utf-8")
    answered = python(project, "-c", BUILD, "predict", str(project / "built"), str(item))
    assert answered.returncode == 0, answered.stderr
    assert "3.80" in answered.stdout
