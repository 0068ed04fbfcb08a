"""The wheel: what users install is what was tested, and holds what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

PACKAGES = ("specs", "compiler", "runtime", "serve")


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(root)], check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed far from the source tree."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_four_packages_typed_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for package in PACKAGES:
        assert f"{package}/py.typed" in names


def test_the_wheel_holds_the_licence_the_notice_and_the_embedded_model(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for end in ("/LICENSE", "/NOTICE", "specs/digits.yaml", "specs/weights/digits.safetensors"):
        assert any(name.endswith(end) for name in names), end


def test_the_installed_wheel_builds_and_answers_without_the_source_tree(
    installed: Path, tmp_path: Path
) -> None:
    spec = str(installed / "specs" / "digits.yaml")
    picture = str(installed / "specs" / "samples" / "digits" / "digit_5.png")
    deployc = str(installed / "bin" / "deployc")
    python(installed, tmp_path, deployc, "build", spec, "-o", "digits")
    assert "five" in python(installed, tmp_path, deployc, "predict", "digits", picture)
    where = "import compiler, runtime, serve, specs; print(specs.__file__)"
    assert python(installed, tmp_path, "-c", where).startswith(str(installed))


def python(installed: Path, folder: Path, *arguments: str) -> str:
    """Run python with the installed wheel before everything else; its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_of_pyproject_is_installed(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["entry-points"]["deployc.commands"]
    assert {p.name: p.value for p in entry_points(group="deployc.commands")} == wanted
    assert version("deployc") == project["version"]


def test_the_constraints_pin_versions_and_name_no_address(root: Path) -> None:
    lines = (root / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    assert not any("://" in line or "@" in line for line in lines)
