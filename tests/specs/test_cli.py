"""The command line: exit status, what is printed where, and nothing heavy imported."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from specs.cli import EXTRAS, Commands, main, summary
from specs.commands import validate
from specs.errors import Problem
from specs.loader import LoadedSpec

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "ray")

FAKES = """
import click
from specs.errors import DeploycError, Problem, SpecError

@click.command()
def fails():
    '''Fail on purpose.

    At length.
    '''
    raise DeploycError("found a, expected b", hint="do c")

@click.command()
def refuses():
    raise SpecError.of(Problem("a.yaml", 1, 2, "x", "missing", "'x' is missing", "add x"))

@click.command()
def stops():
    raise KeyboardInterrupt

@click.command()
def lacks():
    import torch.no_such_module_at_all

@click.command()
def breaks():
    import no_such_module_of_ours
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run one of the commands above."""
    (tmp_path / "fake_commands.py").write_text(FAKES)
    (tmp_path / "lost_commands.py").write_text("import ray.no_such_module_at_all\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    group = Commands("deployc")
    names = ("fails", "refuses", "stops", "lacks", "breaks")
    group.points = {name: _point(f"fake_commands:{name}") for name in names}
    group.points["lost"] = _point("lost_commands:lost")
    return partial(CliRunner().invoke, group)


def _point(value: str) -> EntryPoint:
    return EntryPoint(value.partition(":")[2], value, "deployc.commands")


def test_an_error_of_ours_is_a_message_and_a_hint_on_stderr(fakes: Callable[..., Result]) -> None:
    result = fakes(["fails"])
    assert result.exit_code == 1
    assert result.stderr == "error: found a, expected b\nhint: do c\n"
    assert result.stdout == ""


def test_a_spec_error_prints_each_problem(fakes: Callable[..., Result]) -> None:
    result = fakes(["refuses"])
    assert result.exit_code == 1
    assert result.stderr == "error: a.yaml:1:2: x: 'x' is missing [missing]\n  hint: add x\n"


def test_ctrl_c_ends_with_130_and_no_traceback(fakes: Callable[..., Result]) -> None:
    result = fakes(["stops"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(("command", "extra"), [("lacks", "build"), ("lost", "serve")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    fakes: Callable[..., Result], command: str, extra: str
) -> None:
    result = fakes([command])
    assert result.exit_code == 1
    assert "which is not installed\n" in result.stderr
    assert f'hint: pip install "deployc[{extra}]"' in result.stderr


def test_a_module_that_no_extra_brings_is_a_fault_of_ours(fakes: Callable[..., Result]) -> None:
    assert isinstance(fakes(["breaks"]).exception, ModuleNotFoundError)


def test_an_unknown_command_is_wrong_usage_and_names_the_nearest() -> None:
    result = CliRunner().invoke(main, ["valdate"])
    assert result.exit_code == 2
    assert "no command 'valdate': did you mean 'validate'?" in result.stderr


def test_help_lists_every_command_with_its_first_line() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in project["entry-points"]["deployc.commands"]:
        assert f"  {name}  " in result.stdout
    assert "Check specs, without torch and without a network." in result.stdout


def test_a_summary_is_read_without_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unimportable").mkdir()
    (tmp_path / "unimportable" / "__init__.py").write_text("raise RuntimeError\n")
    (tmp_path / "unimportable" / "cli.py").write_text(f"raise RuntimeError\n{FAKES}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert summary(_point("unimportable.cli:fails")) == "Fail on purpose."
    assert summary(_point("unimportable.cli:gone")) == ""
    assert summary(_point("unimportable.gone:gone")) == ""
    assert summary(_point("no_such_package.cli:gone")) == ""


def test_the_version_is_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert CliRunner().invoke(main, ["--version"]).stdout == f"deployc {version}\n"


def test_extras_are_those_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {"ray[serve]": "ray", "tensorrt-cu13": "tensorrt"}
    for extra in ("build", "serve", "openvino", "tensorrt"):
        for requirement in extras["optional-dependencies"][extra]:
            name = requirement.split(">=")[0].strip()
            module = str(names.get(name, name))
            if module in EXTRAS:
                assert EXTRAS[module] == extra
    assert set(EXTRAS.values()) == {"build", "serve", "openvino", "tensorrt"}


Load = Callable[..., LoadedSpec]


def test_valid_specs_exit_with_0(load: Load, tmp_path: Path) -> None:
    load()
    result = CliRunner().invoke(validate, [str(tmp_path)])
    assert result.exit_code == 0
    assert result.stdout == "1 spec(s): 1 valid, 0 invalid, 0 problem(s)\n"


def test_text_lists_each_problem_and_a_summary(
    tmp_path: Path, spec_text: Callable[..., str]
) -> None:
    (tmp_path / "good.yaml").write_text(spec_text())
    (tmp_path / "bad.yaml").write_text(spec_text(naem="1", foo="2"))
    result = CliRunner().invoke(validate, [str(tmp_path)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'bad.yaml'}:8:1: naem: unknown field 'naem' [unknown_field]"
    assert lines[1] == "  hint: did you mean 'name'?"
    assert lines[-1] == "2 spec(s): 1 valid, 1 invalid, 2 problem(s)"


def test_json_is_a_list_of_problems(tmp_path: Path, spec_text: Callable[..., str]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(spec_text(naem="1"))
    result = CliRunner().invoke(validate, ["--format", "json", str(path)])
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)
    assert Problem(**problem) == Problem(
        str(path), 8, 1, "naem", "unknown_field", "unknown field 'naem'", "did you mean 'name'?"
    )
    path.write_text(spec_text())
    assert json.loads(CliRunner().invoke(validate, ["--format", "json", str(path)]).stdout) == []


def test_github_gets_annotations_with_everything_escaped(
    tmp_path: Path, spec_text: Callable[..., str]
) -> None:
    path = tmp_path / "a,b:c%.yaml"
    path.write_text(spec_text(name="50%,"))
    result = CliRunner().invoke(validate, ["--format", "github", str(path)])
    file = str(path).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    message = "name: found '50%25,', expected 1 to 64 letters, digits, _, . and -"
    place = f"file={file},line=2,col=7,title=deployc wrong_form"
    assert result.stdout.splitlines()[0] == f"::error {place}::{message}"
    path.write_text(spec_text(naem="1"))
    result = CliRunner().invoke(validate, ["--format", "github", str(path)])
    assert "naem: unknown field 'naem'%0Ahint: did you mean 'name'?" in result.stdout


def test_a_file_without_places_is_annotated_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"#" * 2_000_000)
    result = CliRunner().invoke(validate, ["--format", "github", str(path)])
    assert result.stdout.startswith(f"::error file={path},title=deployc file_size::")


@pytest.mark.parametrize("arguments", [[], ["no/such/path"], ["."], ["--format", "xml", "."]])
def test_wrong_usage_exits_with_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(validate, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_schema_prints_json() -> None:
    result = CliRunner().invoke(main, ["schema"])
    assert json.loads(result.stdout)["title"] == "deployc spec"


@pytest.mark.parametrize(
    "code",
    [
        "import specs",
        "import specs.loader, specs.jsonschema; specs.jsonschema.json_schema()",
        "import sys; from specs.cli import main; main(['--help'], standalone_mode=False)",
        "from specs.cli import main; main(['validate', 'specs'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    check = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1] == ""


def test_the_installed_command_validates_the_shipped_specs() -> None:
    command = [Path(sys.executable).with_name("deployc"), "validate", ROOT / "specs"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert " 0 invalid" in result.stdout


def test_a_reader_that_leaves_early_is_no_error(
    tmp_path: Path, spec_text: Callable[..., str]
) -> None:
    bad = spec_text(**{f"field_{index}": "1" for index in range(2000)})
    (tmp_path / "spec.yaml").write_text(bad)
    command = f"{sys.executable} -m specs.cli validate {tmp_path} | head -1"
    result = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert result.stderr == ""
    assert "unknown field" in result.stdout
