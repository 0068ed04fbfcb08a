"""``deployc.lock``: what it pins, that it is the same everywhere, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from compiler.lock import LOCK, check_lock, lock_entry, write_lock
from compiler.lock_cli import lock
from compiler.progress import Reporter
from compiler.weights import FoundWeights, find_weights
from specs.errors import SpecError
from specs.loader import LoadedSpec, load_spec
from specs.manifest import WeightsOrigin
from specs.schema import StateDict, Weights

Make = Callable[..., dict[str, Any]]

MAIN = "import sys; from specs.cli import main; sys.exit(main())"
NET = "import torch\nclass Net(torch.nn.Linear):\n    def __init__(self): super().__init__(4, 3)\n"
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "net",
    "model": {"python": {"file": "models/net.py", "object": "Net"}},
    "weights": {"path": "net.pth"},
    "inputs": {"x": {"shape": ["batch", 4]}},
    "outputs": {"y": {"shape": ["batch", 3]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    "export": {"exporter": "torchscript"},
    "postprocess": [{"argmax": {"labels": "labels.txt"}}],
    "verify": {"samples": "samples/*.npy"},
}
HEAD = """\
# What the specs of this folder are built from, by SHA-256.
# Written by `deployc lock`, checked by `deployc build --locked`. Commit it; do not edit it.
# `tools` is for information: it is never compared.

version = 1

[specs."net.yaml"]
language = 1

[specs."net.yaml".weights]
"path" = "net.pth"
"""


def _folder(folder: Path, **parts: Any) -> Path:
    for name, text in {
        "models/net.py": NET,
        "models/part.py": "x = 1\n",
        "labels.txt": "a\nb\nc\n",
        "samples/1.npy": "one",
        "samples/2.npy": "two",
        "net.pth": "weights",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    _spec(folder, **parts)
    return folder


def _spec(folder: Path, **parts: Any) -> None:
    whole = {key: value for key, value in {**SPEC, **parts}.items() if value is not None}
    (folder / "net.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``net.yaml`` and everything that it names."""
    return _folder(tmp_path / "specs")


def _weights(loaded: LoadedSpec) -> FoundWeights:
    return find_weights(loaded.spec, loaded.folder, None, Reporter(quiet=True))


def _lock(folder: Path) -> str:
    loaded = load_spec(folder / "net.yaml")
    write_lock(folder, {"net.yaml": lock_entry(loaded, _weights(loaded))})
    return (folder / LOCK).read_text()


def _refused(folder: Path, weights: FoundWeights | None = None) -> SpecError:
    with pytest.raises(SpecError) as caught:
        check_lock(load_spec(folder / "net.yaml"), weights)
    return caught.value


def _command(*arguments: object) -> Result:
    return CliRunner().invoke(lock, [*map(str, arguments), "-q"])


def test_a_lock_names_every_file_that_is_read_from_the_spec_on(folder: Path) -> None:
    text = _lock(folder)
    named = [line.split(" = ")[0].strip('"') for line in text.splitlines() if ' = "' in line]
    wanted = ["path", "sha256", "models/net.py", "models/part.py"]
    assert named[:7] == [*wanted, "labels.txt", "samples/1.npy", "samples/2.npy"]
    assert str(folder) not in text
    assert text.startswith(HEAD)


def test_two_folders_give_the_same_lock_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    other = _folder(tmp_path / "a" / "quite other" / "place")
    assert _lock(folder) == _lock(other)


def test_locking_twice_changes_nothing(folder: Path) -> None:
    assert _command(folder).output == f"wrote {folder / LOCK}: 1 spec(s)\n"
    assert _command(folder).output == f"unchanged {folder / LOCK}: 1 spec(s)\n"


def test_what_is_as_it_was_locked_passes(folder: Path) -> None:
    _lock(folder)
    loaded = load_spec(folder / "net.yaml")
    check_lock(loaded)
    check_lock(loaded, _weights(loaded))


@pytest.mark.parametrize(
    ("file", "where"),
    [
        ("models/net.py", "sources"),
        ("models/part.py", "sources"),
        ("labels.txt", "data"),
        ("samples/2.npy", "data"),
    ],
)
def test_a_file_that_changed_is_named_with_both_hashes(folder: Path, file: str, where: str) -> None:
    _lock(folder)
    (folder / file).write_text("d\ne\nf\n")
    error = _refused(folder)
    (problem,) = error.problems
    assert (error.code, problem.code, problem.path) == ("lock_differs", "lock_differs", where)
    assert problem.file == str(folder / file)
    assert problem.message.startswith("found sha256 ")
    assert ", locked was " in problem.message
    assert f"`deployc lock {folder / 'net.yaml'}`" in error.hint


def test_a_new_file_and_one_that_is_gone_are_told(folder: Path) -> None:
    _lock(folder)
    (folder / "models" / "new.py").write_text("")
    (folder / "samples" / "1.npy").unlink()
    found = {Path(p.file).name: p.message for p in _refused(folder).problems}
    assert found == {
        "new.py": "the file is not in the lock",
        "1.npy": "the file is in the lock, and is read no more",
    }


def test_other_weights_are_told_at_their_place_in_the_spec(folder: Path) -> None:
    _lock(folder)
    (folder / "net.pth").write_text("others")
    (problem,) = _refused(folder).problems
    assert (problem.path, problem.line) == ("weights", 7)
    assert "locked was sha256 " in problem.message


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"random": {"seed": 3}}, "found random weights of seed 3"),
        (None, "found no file of weights"),
    ],
)
def test_weights_of_another_kind_are_told(folder: Path, weights: Any, told: str) -> None:
    _lock(folder)
    _spec(folder, weights=weights)
    assert any(told in problem.message for problem in _refused(folder).problems)


def test_a_seed_is_pinned(folder: Path) -> None:
    _spec(folder, weights={"random": {"seed": 3}})
    assert '"seed" = 3' in _lock(folder)
    check_lock(load_spec(folder / "net.yaml"))
    _spec(folder, weights={"random": {"seed": 4}})
    (problem,) = _refused(folder).problems
    assert problem.message == "found random weights of seed 4, locked was random weights of seed 3"


def test_weights_by_url_are_compared_without_a_network(folder: Path) -> None:
    url = "http://weights.invalid/net.pth"
    _spec(folder, weights={"url": url, "sha256": "a" * 64})
    loaded = load_spec(folder / "net.yaml")
    origin = WeightsOrigin(origin="url", location=url, sha256="a" * 64)
    found = FoundWeights(origin, folder / "net.pth", StateDict())
    write_lock(folder, {"net.yaml": lock_entry(loaded, found)})
    assert f'"url" = "{url}"' in (folder / LOCK).read_text()
    check_lock(loaded)
    _spec(folder, weights={"url": url, "sha256": "b" * 64})
    assert "found sha256 bbbb" in _refused(folder).problems[0].message


def test_weights_in_place_of_the_spec_s_must_be_the_locked_ones(
    folder: Path, tmp_path: Path
) -> None:
    _lock(folder)
    loaded = load_spec(folder / "net.yaml")
    copy = Path(shutil.copy(folder / "net.pth", tmp_path / "copy.pth"))
    reporter = Reporter(quiet=True)
    check_lock(loaded, find_weights(loaded.spec, folder, Weights(path=str(copy)), reporter))
    copy.write_text("others")
    other = find_weights(loaded.spec, folder, Weights(path=str(copy)), reporter)
    assert "locked was sha256" in _refused(folder, other).problems[0].message


def test_a_source_that_brings_its_weights_is_locked_by_its_file(tmp_path: Path, root: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("linear_regression.yaml", "models/linear_regression.onnx"):
        shutil.copy(root / "specs" / name, tmp_path / name)
    assert _command(tmp_path).exit_code == 0
    assert '"models/linear_regression.onnx" = ' in (tmp_path / LOCK).read_text()
    assert _command("--check", tmp_path).output == "1 spec(s) as locked\n"


def test_versions_of_tools_are_kept_and_never_compared(folder: Path) -> None:
    text = _lock(folder)
    assert '"torch" = "2.' in text
    (folder / LOCK).write_text(text.replace('"torch" = "2.', '"torch" = "1.'))
    check_lock(load_spec(folder / "net.yaml"))


def test_a_lock_keeps_the_entries_of_other_specs_and_drops_those_that_are_gone(
    folder: Path,
) -> None:
    shutil.copy(folder / "net.yaml", folder / "other.yaml")
    assert _command(folder).exit_code == 0
    text = (folder / LOCK).read_text()
    _command(folder / "net.yaml")
    assert (folder / LOCK).read_text() == text
    (folder / "other.yaml").unlink()
    _command(folder / "net.yaml")
    assert 'specs."other.yaml"' not in (folder / LOCK).read_text()


def test_a_spec_without_an_entry_is_refused_and_told_how_to_lock_it(folder: Path) -> None:
    error = _refused(folder)
    assert (error.code, "there is no" in error.message) == ("lock_missing", True)
    _lock(folder)
    (folder / "net.yaml").rename(folder / "renamed.yaml")
    with pytest.raises(SpecError, match="has no entry for it") as caught:
        check_lock(load_spec(folder / "renamed.yaml"))
    assert caught.value.hint.startswith(f"run `deployc lock {folder / 'renamed.yaml'}`")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff", "cannot be read"),
        (b"version = [", "cannot be read"),
        (b"version = 2", "has version 2, this deployc reads 1"),
        (b"", "has version None"),
        (b"version = 1\n[specs.'net.yaml']\nlanguage = 'x'\n", "is no lock: specs.net.yaml"),
        (b"version = 1\nx = " + b"[" * 5000, "cannot be read"),
    ],
)
def test_a_lock_that_is_none_is_one_message(folder: Path, content: bytes, told: str) -> None:
    (folder / LOCK).write_bytes(content)
    error = _refused(folder)
    assert error.code == "lock_invalid"
    assert told in error.message
    assert "run `deployc lock`" in error.hint


def test_odd_names_of_files_come_back_as_they_were(folder: Path) -> None:
    _spec(folder, verify={"samples": "odd/*"})
    (folder / "odd").mkdir()
    for name in ('a "b".npy', "c\x7fd.npy", "é\\f.npy", "tab\t.npy"):
        (folder / "odd" / name).write_text(name)
    _lock(folder)
    check_lock(load_spec(folder / "net.yaml"))


def test_a_file_by_an_absolute_path_keeps_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far.npy").write_text("x")
    _spec(folder, verify={"samples": str(tmp_path / "far.npy")})
    assert f'"{tmp_path / "far.npy"}" = ' in _lock(folder)
    (folder / ".." / "near.npy").write_text("x")
    _spec(folder, verify={"samples": "../near.npy"})
    assert '"../near.npy" = ' in _lock(folder)


def test_the_command_checks_every_spec_and_tells_all_differences(folder: Path) -> None:
    shutil.copy(folder / "net.yaml", folder / "other.yaml")
    _command(folder)
    (folder / "labels.txt").write_text("d\ne\nf\n")
    error = _command("--check", folder).exception
    assert isinstance(error, SpecError)
    assert (error.code, len(error.problems)) == ("lock_differs", 2)
    assert _command(folder / "samples").exit_code == 2


def _build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, "build", "net.yaml", "-q", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_locked_build_refuses_what_differs_and_builds_the_rest(folder: Path) -> None:
    parts = {"weights": {"random": {"seed": 0}}, "verify": None, "postprocess": None}
    _spec(folder, **parts)
    assert "is not locked" in _build(folder, "--locked").stderr
    _command(folder)
    refused = _build(folder, "--locked", "--weights", "random:1")
    assert "found random weights of seed 1, locked was random weights of seed 0" in refused.stderr
    assert refused.returncode == 1
    done = _build(folder, "--locked")
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "models" / "part.py").write_text("x = 2\n")
    changed = _build(folder, "--locked")
    assert "models/part.py: sources: found sha256" in changed.stderr
    assert "hint: undo the change, or run `deployc lock net.yaml`" in changed.stderr


BOTH = """
import sys
from pathlib import Path
from compiler.build import build
from compiler.progress import Reporter
from specs.loader import load_spec
for exporter in ("torchscript", "dynamo"):
    build(load_spec(Path(f"{exporter}.yaml")), Path(exporter), reporter=Reporter(quiet=True))
"""


@pytest.mark.slow
def test_two_folders_two_caches_and_two_processes_give_the_same_graph_byte_for_byte(
    conv_spec: Make, net: Path, tmp_path: Path
) -> None:
    places = [tmp_path / "one", tmp_path / "the other" / "deeper"]
    started: list[subprocess.Popen[bytes]] = []
    for number, place in enumerate(places):
        place.mkdir(parents=True)
        shutil.copy(net, place / net.name)
        for exporter in ("torchscript", "dynamo"):
            spec = conv_spec(name=exporter, export={"exporter": exporter, "opset": 18})
            (place / f"{exporter}.yaml").write_text(
                yaml.safe_dump({**spec, "weights": {"random": {"seed": 1}}}, sort_keys=False)
            )
        seeds = {"PYTHONHASHSEED": str(number), "DEPLOYC_CACHE": str(place / "cache")}
        command = [sys.executable, "-c", BOTH]
        started.append(subprocess.Popen(command, cwd=place, env={**os.environ, **seeds}))
    assert [process.wait(240) for process in started] == [0, 0]
    for exporter in ("torchscript", "dynamo"):
        one, other = ((place / exporter / "model.onnx").read_bytes() for place in places)
        assert one == other
        for place in (*places, Path.home(), Path(sys.prefix)):
            assert str(place).encode() not in one
