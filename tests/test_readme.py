"""The README's commands, run in a copy of the project as a newcomer would run them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
READY_WITHIN = 240
"""Seconds until `make serve` answers: Ray starts slowly on two loaded cores."""
STOPPED_WITHIN = 90


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(root: Path) -> list[str]:
    """Every line of every shell block."""
    text = (root / "README.md").read_text("utf-8")
    return [line for block in blocks(text, "sh") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds, with this environment as its .venv, on a port of its own."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.splitlines()):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    (folder / ".venv").symlink_to(BIN.parent)
    return folder


@pytest.fixture(scope="module")
def environment(cache_folder: Path) -> dict[str, str]:
    """The caller's environment with the commands of .venv, and a mark on all that it starts."""
    marked = {"DEPLOYC_CACHE": str(cache_folder), "DEPLOYC_TEST_MARK": uuid.uuid4().hex}
    return {**os.environ, **marked, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def run(command: str, copy: Path, environment: dict[str, str]) -> str:
    """Run one line in the copy; its output."""
    done = subprocess.run(  # noqa: S602 - the README's own line
        command,
        shell=True,
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_has_the_two_commands_of_a_newcomer(root: Path) -> None:
    assert {"make serve", "make test"} <= set(commands(root))


def test_make_test_runs_the_checks(copy: Path, environment: dict[str, str]) -> None:
    # The recipe alone: this very test is part of what it runs.
    assert "tests/run_checks.py" in run("make -n -o .venv/.installed test", copy, environment)


def test_every_deployc_command_of_the_readme_runs(copy: Path, environment: dict[str, str]) -> None:
    lines = [line for line in commands(copy) if line.startswith("deployc ")]
    assert len(lines) >= 5
    for line in lines:
        run(line, copy, environment)
    assert (copy / "answer.png").stat().st_size > 1000


def test_every_python_block_of_the_readme_runs(copy: Path, environment: dict[str, str]) -> None:
    run("deployc build specs/digits.yaml", copy, environment)
    (block,) = blocks((copy / "README.md").read_text("utf-8"), "python")
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "three"


@pytest.mark.ray
@pytest.mark.slow
def test_make_serve_answers_and_ctrl_c_leaves_nothing_behind(
    copy: Path, environment: dict[str, str]
) -> None:
    port = free_port()
    config = copy / "deploy.yaml"
    config.write_text(config.read_text("utf-8").replace("port: 8000", f"port: {port}"), "utf-8")
    with serving(copy, environment) as log:
        wait_for(log, f"http://127.0.0.1:{port}", READY_WITHIN)
        (curl,) = [line for line in commands(copy) if line.startswith("curl ")]
        answer = run(curl.replace(":8000", f":{port}"), copy, environment)
        assert '"seven"' in answer
        assert "three" in log.read_text("utf-8")
    assert leftovers(environment["DEPLOYC_TEST_MARK"]) == []


@contextmanager
def serving(copy: Path, environment: dict[str, str]) -> Generator[Path, None, None]:
    """`make serve`, ended as a terminal's Ctrl-C ends it: by SIGINT to the whole group."""
    log = copy / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["make", "-o", ".venv/.installed", "serve"],
            cwd=copy,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(STOPPED_WITHIN)


def wait_for(log: Path, text: str, seconds: float) -> None:
    """Wait until the log says that the server is ready at ``text``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if re.search(rf"serving at {re.escape(text)}", log.read_text("utf-8")):
            return
        time.sleep(0.5)
    pytest.fail(f"not ready within {seconds} s:\n{log.read_text('utf-8')}")


def leftovers(mark: str) -> list[str]:
    """Command lines of processes that still carry the mark, after a moment's grace."""
    end = time.monotonic() + 10
    while (found := list(marked(mark))) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def marked(mark: str) -> Iterator[str]:
    """Command lines of the processes that have ``mark`` in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended meanwhile, or is not ours to read
