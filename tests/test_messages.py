"""What the command says where something is in its way: one message, true, with what to do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from specs.cli import main
from specs.errors import SpecError
from specs.loader import load_spec
from specs.manifest import SCHEMA_VERSION

FULL = Path("/dev/full")
PNG = "specs/samples/digits/digit_3.png"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _started(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, with its real stdout."""
    command = [sys.executable, "-m", "specs.cli", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **options)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["predict", "{artifact}", "{png}"], ["inspect", "{artifact}"], ["--help"]]
)
def test_a_full_disk_under_stdout_is_one_message_and_exit_1(
    digits_artifact: Path, root: Path, arguments: list[str]
) -> None:
    given = [text.format(artifact=digits_artifact, png=root / PNG) for text in arguments]
    with FULL.open("w") as out:
        done = _started(*given, stdout=out)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the output cannot be written: No space left on device",
        "hint: make room, or send it elsewhere",
    ]


def test_a_picture_beyond_the_limits_is_one_error_without_a_librarys_warning(
    digits_artifact: Path, tmp_path: Path
) -> None:
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    (tmp_path / "huge.png").write_bytes(file.getvalue())
    done = _started("predict", digits_artifact, tmp_path / "huge.png", stdout=subprocess.PIPE)
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"error: {tmp_path / 'huge.png'}: the image has 12000x12000 pixels")
    assert [line.partition(":")[0] for line in rest] == ["hint"]


SPOTS = """\
import sys
from pathlib import Path
from specs.errors import SpecError
from specs.loader import load_spec
try:
    load_spec(Path(sys.argv[1]))
except SpecError as error:
    print(*[f"{p.path} {p.code}" for p in error.problems], sep="\\n")
"""


def test_problems_of_one_place_are_told_in_the_same_order_in_every_run(
    tmp_path: Path, root: Path
) -> None:
    text = (root / "specs" / "digits.yaml").read_text("utf-8")
    file = tmp_path / "spec.yaml"
    head = "version: 1\nname: digits\n"
    for key in ("model", "inputs", "outputs", "weights"):
        text = text.replace(f"\n{key}:", f"\nx_{key}:")
    file.write_text(head + text.partition("name: digits\n")[2], "utf-8")
    told = set[str]()
    for seed in range(4):
        env = {**os.environ, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", SPOTS, str(file)]
        told.add(subprocess.check_output(command, text=True, env=env))
    assert len(told) == 1
    assert told.pop().count("missing") >= 2


@pytest.fixture
def copied(digits_artifact: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the artifact whose manifest has some fields changed."""

    def make(**fields: Any) -> Path:
        folder = tmp_path / "copy"
        folder.mkdir()
        for path in digits_artifact.iterdir():
            (folder / path.name).symlink_to(path)
        (folder / "manifest.json").unlink()
        manifest = json.loads((digits_artifact / "manifest.json").read_text("utf-8"))
        (folder / "manifest.json").write_text(json.dumps({**manifest, **fields}), "utf-8")
        return folder

    return make


COMMANDS = {
    "inspect": [],
    "verify": [],
    "simulate": ["--rate", "5"],
    "report": ["-o", "page.html"],
    "predict": [PNG],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_artifact_of_another_schema_version_is_refused_by_every_command(
    copied: Callable[..., Path], command: str
) -> None:
    done = _run(command, copied(schema_version=999), *COMMANDS[command])
    assert done.exit_code == 1
    assert f"schema version 999, this deployc reads {SCHEMA_VERSION}" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_spec_in_an_artifacts_place_is_told_with_the_build(root: Path, command: str) -> None:
    spec = root / "specs" / "digits.yaml"
    done = _run(command, spec, *COMMANDS[command])
    assert done.exit_code == 1
    assert f"{spec} is a file, an artifact is a folder" in done.stderr
    assert f"hint: run `deployc build {spec}`" in done.stderr


def test_simulate_checks_the_files_hashes(copied: Callable[..., Path]) -> None:
    folder = copied()
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").write_text("other\n", "utf-8")
    done = _run("simulate", folder, "--rate", "5")
    assert (done.exit_code, "its hash differs" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["t.csv", "--rate", "5"], "give a trace or --rate, not both"),
        ([], "give a trace, or --rate"),
        (["--rate", "5", "--goal", "0.99"], "--goal 99 means that share"),
    ],
)
def test_simulate_says_what_is_too_much_and_what_a_share_is(
    digits_artifact: Path, arguments: list[str], told: str
) -> None:
    done = _run("simulate", digits_artifact, *arguments)
    assert (done.exit_code, told in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "{artifact}", "-o", "/nonexistent/x.html"], "name a file, in a folder that is"),
        (
            ["predict", "{artifact}", "{png}", "--plot", "/nonexistent/x.png"],
            "name a file in a folder",
        ),
        (
            ["predict", "{artifact}", "{png}", "--out", "/nonexistent/x.json"],
            "name a file in a folder",
        ),
        (["predict", "{artifact}", "{png}", "--plot", "{folder}/x.zzz"], "name a .png file"),
        (
            ["predict", "{artifact}", "{png}", "--out", "{folder}/x.png"],
            "name a .json file, or draw",
        ),
    ],
)
def test_a_place_that_cannot_be_written_has_the_hint_that_helps(
    digits_artifact: Path, root: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    places = {"artifact": digits_artifact, "folder": tmp_path, "png": root / PNG}
    done = _run(*(text.format(**places) for text in arguments))
    assert done.exit_code == 1
    assert f"hint: {told}" in done.stderr


def test_a_picture_is_told_to_be_written_where_it_was(srcnn_artifact: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 20)).save(tmp_path / "in.png")
    out = tmp_path / "out.png"
    done = _run("predict", srcnn_artifact, tmp_path / "in.png", "--out", out)
    assert f"a picture of 48 x 60 pixels; written to {out}" in done.stdout
    refused = _run("predict", srcnn_artifact, tmp_path / "in.png", "--out", tmp_path / "out.json")
    assert "written as PNG, not .json" in refused.stderr


@pytest.fixture
def problem(root: Path, tmp_path: Path) -> Callable[..., str]:
    """The only problem of digits.yaml with a `python` step, or with other labels."""

    def found(source: str, function: str = "f", labels: str = "labels/digits.txt") -> str:
        for part in ("models", "labels", "samples"):
            (tmp_path / part).symlink_to(root / "specs" / part)
        (tmp_path / "own.py").write_text(source, "utf-8")
        step = f"  - python: {{file: own.py, function: {function}}}\n  - normalize"
        text = (root / "specs" / "digits.yaml").read_text("utf-8").replace("  - normalize", step)
        (tmp_path / "spec.yaml").write_text(text.replace("labels/digits.txt", labels), "utf-8")
        try:
            load_spec(tmp_path / "spec.yaml")
        except SpecError as error:
            (only,) = error.problems
            return str(only)
        return ""

    return found


GOOD = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def f(x) return x", "python.file: 'own.py' is not Python: line 1: expected ':'"),
        ("def g(x):\n    return x\n", "python.function: 'own.py' has no function 'f'"),
        ("", "python.function: 'own.py' has no function 'f'"),
        ("x = '\0'", "python.file: 'own.py' is not Python"),
        (GOOD, ""),
        ("from numpy import abs as f", ""),
        ("f = lambda x: x", ""),
        ("from mine import *", ""),
        ("globals()['f'] = 3", ""),
        ("import lost\nif 1:\n    f = lost.f\n", ""),
    ],
)
def test_validate_reads_the_specs_own_code_and_names_its_file(
    problem: Callable[..., str], source: str, told: str
) -> None:
    found = problem(source)
    assert told in found
    assert bool(told) == bool(found)


def test_a_misspelt_function_is_told_with_the_nearest(problem: Callable[..., str]) -> None:
    assert "did you mean 'brighter'?" in problem("def brighter(x): ...", "brigther")


def test_a_folder_in_a_files_place_is_called_a_folder(problem: Callable[..., str]) -> None:
    found = problem(GOOD, labels="labels")
    assert "'labels' is a folder, expected a file [file_missing]" in found
    assert "did you mean" not in found
