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
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, far from the source tree."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
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


def test_the_wheel_builds_and_answers_without_the_source_tree(
    unpacked: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    main = "import specs.cli, sys; sys.argv[0] = 'deployc'; specs.cli.main()"
    spec = str(unpacked / "specs" / "digits.yaml")
    picture = str(unpacked / "specs" / "samples" / "digits" / "digit_5.png")
    for arguments in (
        ["build", spec, "-o", "digits"],
        ["predict", "digits", picture],
    ):
        done = subprocess.run(
            [sys.executable, "-c", main, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "five" in done.stdout
    where = "import specs; print(specs.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith(str(unpacked))


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
