"""``deployc build`` as it is run: exit codes, streams, signals, concurrency."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import runtime
from runtime.artifact import check_files, read_manifest

Make = Callable[..., dict[str, Any]]

MAIN = "import sys; from specs.cli import main; sys.exit(main())"


def _command(*arguments: str, before: str = "") -> list[str]:
    return [sys.executable, "-c", before + MAIN, "build", *arguments]


def _build(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    command = _command(*arguments, before=before)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``net.yaml``, its model, and a cache of its own."""
    monkeypatch.setenv("DEPLOYC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(spec()))
    return tmp_path


def _drafts(folder: Path) -> list[str]:
    """What a build has not put into place: drafts of the artifact and of stages."""
    places = [folder / "build", *(folder / "cache" / "stages").glob("*")]
    names = [path.name for place in places if place.is_dir() for path in place.iterdir()]
    return [name for name in names if name.startswith(".") and not name.endswith(".lock")]


def _change(folder: Path, **parts: Any) -> None:
    file = folder / "net.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **parts}))


def test_a_build_writes_to_build_and_the_name_and_exits_0(folder: Path) -> None:
    done = _build(folder, "net.yaml")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "built build/net")
    assert "parity over 5 runs, largest difference" in done.stdout
    stages = [line.split()[1] for line in done.stderr.splitlines()]
    assert stages[0] == "weights"
    assert stages[-1] == "write"
    assert "\x1b" not in done.stdout + done.stderr
    again = _build(folder, "net.yaml")
    assert again.stdout.startswith("unchanged build/net")
    assert again.stderr.count("cached") == len(stages) - 1  # the weights are found again


def test_json_is_alone_on_stdout_though_the_model_prints(folder: Path) -> None:
    file = folder / "net.py"
    file.write_text(
        "import os\nprint('loading')\nos.system('echo from a child')\n" + file.read_text()
    )
    done = _build(folder, "net.yaml", "--json", "--weights", "random:3", "-o", "out")
    found = json.loads(done.stdout)
    assert (found["artifact"], found["written"]) == ("out", True)
    assert found["warnings"] == ["weights are RANDOM (seed 3): the answers mean nothing"]
    assert [stage["stage"] for stage in found["stages"]][:2] == ["weights", "processing"]
    assert found["variants"][0]["name"] == "onnxruntime-cpu-fp32"
    assert "loading" in done.stderr
    assert "from a child" in done.stderr


def test_random_weights_are_announced_on_both_streams(folder: Path) -> None:
    done = _build(folder, "net.yaml", "--weights", "random:3")
    assert "! weights are RANDOM (seed 3)" in done.stderr
    assert "! weights are RANDOM (seed 3)" in done.stdout


def test_quiet_prints_the_result_alone(folder: Path) -> None:
    assert _build(folder, "net.yaml", "-q").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lost.yaml"], "error: lost.yaml"),
        (["net.yaml", "--weights", "lost.pth"], "there is no weights file"),
        (["net.yaml", "--weights", ""], "--weights ''"),
        (["net.yaml", "--weights", "random:x"], "expected a file, or random:SEED"),
        (["net.yaml", "--target", "tensorrt"], "the spec has no target 'tensorrt'"),
        (["net.yaml", "-o", "net.py"], "is a file; it is not overwritten"),
        (["net.yaml", "-o", "/dev/null/x"], "/dev/null"),
    ],
)
def test_whatever_is_at_fault_is_one_message_and_exit_1(
    folder: Path, arguments: list[str], told: str
) -> None:
    done = _build(folder, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["net.yaml", "--targets", "x"], ["a.yaml", "b.yaml"]])
def test_wrong_usage_exits_2(folder: Path, arguments: list[str]) -> None:
    done = _build(folder, *arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("package", ["torch", "onnx", "requests", "safetensors"])
def test_a_missing_package_gives_the_line_to_install_it(folder: Path, package: str) -> None:
    done = _build(folder, "net.yaml", before=f"import sys; sys.modules[{package!r}] = None\n")
    assert done.returncode == 1
    assert f"error: this command needs {package}" in done.stderr
    assert 'hint: pip install "deployc[build]"' in done.stderr


# --- signals

SLOW = "\nimport sys, time\nprint('sleeping', file=sys.stderr, flush=True)\ntime.sleep(60)\n"


def _start(folder: Path, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command("net.yaml", before=before), cwd=folder, stderr=subprocess.PIPE, text=True
    )


def _wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the build ended without '{text}'")


def test_an_interrupt_in_the_middle_of_a_build_ends_it_at_once_and_leaves_nothing(
    folder: Path,
) -> None:
    _build(folder, "net.yaml")
    before = (folder / "build" / "net" / "manifest.json").read_bytes()
    with (folder / "net.py").open("a") as file:
        file.write(SLOW)
    process = _start(folder)
    _wait_for(process, "sleeping")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert "Traceback" not in told
    assert _drafts(folder) == []
    assert (folder / "build" / "net" / "manifest.json").read_bytes() == before


KILLED = """
import compiler.publish, sys, time
fill = compiler.publish._fill
def stop(draft, files, text):
    fill(draft, dict(list(files.items())[:2]), text)
    print('half way', file=sys.stderr, flush=True)
    time.sleep(60)
compiler.publish._fill = stop
"""


def test_a_build_killed_while_it_writes_leaves_the_old_artifact_and_the_next_clears_up(
    folder: Path,
) -> None:
    _build(folder, "net.yaml")
    _change(folder, description="another")
    process = _start(folder, KILLED)
    _wait_for(process, "half way")
    process.kill()
    process.communicate()
    artifact = folder / "build" / "net"
    check_files(artifact, read_manifest(artifact))
    assert read_manifest(artifact).description == ""
    assert len(_drafts(folder)) == 1
    assert _build(folder, "net.yaml").returncode == 0
    assert read_manifest(artifact).description == "another"
    assert _drafts(folder) == []


def test_a_build_killed_in_a_stage_does_not_keep_the_next_from_building(folder: Path) -> None:
    text = (folder / "net.py").read_text()
    (folder / "net.py").write_text(text + SLOW)
    process = _start(folder)
    _wait_for(process, "sleeping")
    process.kill()
    process.communicate()
    assert not (folder / "build").exists()
    (folder / "net.py").write_text(text)
    assert _build(folder, "net.yaml").returncode == 0
    runtime.load(folder / "build" / "net").close()


def test_two_builds_of_one_spec_into_one_place_both_end_well(folder: Path) -> None:
    both = [
        subprocess.Popen(_command("net.yaml"), cwd=folder, stderr=subprocess.PIPE) for _ in "ab"
    ]
    told = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    runtime.load(folder / "build" / "net").close()
    assert _drafts(folder) == []


# --- engines


@pytest.mark.skipif(
    any(
        Path(place, "libcuda.so.1").exists()
        for place in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64")
    ),
    reason="this machine has CUDA's driver",
)
def test_a_device_that_is_not_there_is_an_error_naming_the_library_never_a_fallback(
    folder: Path,
) -> None:
    _change(folder, targets=[{"engine": "onnxruntime", "device": "cuda"}])
    done = _build(folder, "net.yaml")
    assert done.returncode == 1
    assert "error: CUDAExecutionProvider does not load: " in done.stderr
    assert ".so" in done.stderr.split("does not load: ")[1].split(" is missing")[0]
    assert "hint: " in done.stderr
    assert not (folder / "build").exists()
