"""``docs/ci.md`` and its workflow: every line in them is a command that exists, rightly called.

And ``.ci``, which this project's own runs begin with.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import click
import pytest
import yaml

from compiler.diff import SAME

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / "docs" / "ci" / "github-actions.yml"
TEXT = (ROOT / "docs" / "ci.md").read_text("utf-8")
VALUES = {"matrix.spec": "digits", "MODEL": "digits"}
"""What the runner puts into the lines."""


def _jobs() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]


def _steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in _jobs().items():
        for step in job["steps"]:
            yield name, step


def _commands(script: str) -> list[str]:
    """The lines of a script that run deployc, as the runner's shell sees them."""
    for name, value in VALUES.items():
        script = re.sub(rf"\$\{{\{{ *{re.escape(name)} *\}}\}}|\${name}\b", value, script)
    return [line.strip() for line in script.splitlines() if line.strip().startswith("deployc ")]


SCRIPTS = [step.get("run", "") for _, step in _steps()]
BLOCKS: list[str] = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for script in [*SCRIPTS, *BLOCKS] for line in _commands(script)]


def _command(name: str) -> click.Command:
    """A command by the entry point that pyproject gives it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    value = project["entry-points"]["deployc.commands"][name]
    return cast("click.Command", EntryPoint(name, value, "deployc.commands").load())


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what the lines name: the specs, and both artifacts."""
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    for name in ("build/digits", "released/digits"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("line", LINES)
def test_every_line_calls_a_command_that_exists_with_options_that_it_takes(line: str) -> None:
    assert "$" not in line
    _, name, *arguments = shlex.split(line)
    context = _command(name).make_context(name, arguments)
    assert context.params


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    "line", ["deployc build specs/digits.yaml --chek", "deployc diff a b", "deployc validat specs"]
)
def test_a_line_that_is_wrong_would_be_found(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    with pytest.raises((click.UsageError, KeyError)):
        _command(name).make_context(name, arguments)


def test_the_workflow_runs_every_command_of_a_gate() -> None:
    names = {shlex.split(line)[1] for line in LINES}
    assert names >= {"validate", "lock", "build", "profile", "diff", "doctor"}
    assert len(LINES) >= 11


def test_every_action_is_of_a_known_owner_and_pinned_to_a_major_version() -> None:
    used = {step["uses"] for _, step in _steps() if "uses" in step}
    assert used
    assert all(re.fullmatch(r"(actions|github)/[a-z/-]+@v\d+", name) for name in used)


def test_the_workflow_may_write_nothing_but_what_code_scanning_needs() -> None:
    whole = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    assert whole["permissions"] == {"contents": "read"}
    for name, job in _jobs().items():
        wanted = {"contents": "read", "security-events": "write"}
        uploads = any("upload-sarif" in step.get("uses", "") for n, step in _steps() if n == name)
        assert job.get("permissions") == (wanted if uploads else None), name
        assert job["timeout-minutes"] <= 60


def test_every_report_that_is_uploaded_is_written_by_a_line_of_its_job() -> None:
    for name in _jobs():
        steps = [step for job, step in _steps() if job == name]
        written = " ".join(step.get("run", "") for step in steps)
        for step in steps:
            if "upload-sarif" in step.get("uses", ""):
                assert f"--sarif {step['with']['sarif_file']}" in written


def test_specs_of_the_workflow_are_those_of_the_project() -> None:
    for spec in _jobs()["check"]["strategy"]["matrix"]["spec"]:
        assert (ROOT / "specs" / f"{spec}.yaml").is_file()
    assert (ROOT / "specs" / f"{_jobs()['gate']['env']['MODEL']}.yaml").is_file()


def test_the_page_names_everything_that_diff_can_hold_equal() -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith("| `--same")]
    assert set(re.findall(r"`(\w+)`", row)) == set(SAME)


def see_to_a_browser(folder: Path, user: int, **variables: str) -> tuple[int, str]:
    """Run ``.ci/chromium`` where there are only its tools and an ``apt-get`` without a network."""
    for tool in ("bash", "env", "mktemp", "rm", "tail", "timeout"):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    for tool, code in (("id", f"echo {user}"), ("apt-get", "echo 'E: no network'; exit 100")):
        (folder / tool).write_text(f"#!/usr/bin/env bash\n{code}\n", "utf-8")
        (folder / tool).chmod(0o755)
    done = subprocess.run(
        [ROOT / ".ci" / "chromium"],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_browser_that_cannot_be_installed_is_told_in_one_line_and_fails_nothing(
    tmp_path: Path,
) -> None:
    code, said = see_to_a_browser(tmp_path, user=0)
    assert code == 0
    assert said.splitlines()[1:] == [
        "chromium was not installed, the tests of the page are skipped: E: no network"
    ]


def test_no_browser_is_installed_where_there_is_one(tmp_path: Path) -> None:
    assert see_to_a_browser(tmp_path, user=0, DEPLOYC_CHROMIUM=sys.executable) == (0, "")


def test_no_browser_is_installed_by_anyone_but_root(tmp_path: Path) -> None:
    assert see_to_a_browser(tmp_path, user=1000) == (0, "")
