"""``deployc predict`` and ``deployc inspect``."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from PIL import Image

from specs.cli import main

Artifact = Callable[[str], Path]


def _run(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def _json(*arguments: str | Path) -> list[Any]:
    done = _run("predict", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return [entry["answer"] for entry in json.loads(done.stdout)]


@pytest.fixture
def three(root: Path) -> Path:
    """A picture of a three."""
    return root / "specs" / "samples" / "digits" / "digit_3.png"


# --- pictures


def test_a_picture_is_answered_with_its_classes_best_first(
    digits_artifact: Path, three: Path
) -> None:
    done = _run("predict", digits_artifact, three)
    lines = done.stdout.splitlines()
    assert lines[0] == str(three)
    assert lines[1].split()[1:] == ["3", "three"]
    assert len(lines) == 4
    assert done.stderr == ""


def test_several_files_are_answered_in_their_order(digits_artifact: Path, three: Path) -> None:
    one = three.with_name("digit_1.png")
    best = [answer["classes"][0]["index"] for answer in _json(digits_artifact, three, one, three)]
    assert best == [3, 1, 3]


def test_pixels_may_come_as_arrays_and_several_in_one_file(
    digits_artifact: Path, three: Path, tmp_path: Path
) -> None:
    pixels = np.asarray(Image.open(three).convert("RGB"))
    np.save(tmp_path / "one.npy", pixels)
    np.save(tmp_path / "two.npy", np.stack([pixels, pixels]))
    (tmp_path / "one.json").write_text(json.dumps(pixels.tolist()))
    expected = _json(digits_artifact, three)[0]
    assert _json(digits_artifact, tmp_path / "one.npy") == [expected]
    assert _json(digits_artifact, tmp_path / "one.json") == [expected]
    assert _json(digits_artifact, tmp_path / "two.npy") == [expected, expected]


def test_an_answer_is_drawn_on_its_picture(
    digits_artifact: Path, three: Path, tmp_path: Path
) -> None:
    done = _run("predict", digits_artifact, three, "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0
    with Image.open(tmp_path / "plot.png") as drawing:
        assert drawing.format == "PNG"


def test_a_picture_that_comes_out_is_written(srcnn_artifact: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 20), (200, 10, 10)).save(tmp_path / "in.png")
    out = tmp_path / "out.png"
    done = _run("predict", srcnn_artifact, tmp_path / "in.png", "--out", out)
    assert "a picture of 48 x 60 pixels" in done.stdout
    with Image.open(out) as picture:
        assert (picture.size, picture.mode) == ((48, 60), "RGB")
    plot = tmp_path / "plot.png"
    assert _run("predict", srcnn_artifact, tmp_path / "in.png", "--plot", plot).exit_code == 0
    assert plot.exists()


def test_an_answer_without_a_picture_is_written_as_json(
    digits_artifact: Path, three: Path, tmp_path: Path
) -> None:
    _run("predict", digits_artifact, three, "--out", tmp_path / "answer.json")
    assert json.loads((tmp_path / "answer.json").read_text())["classes"][0]["index"] == 3


# --- tensors


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ([1, 2, 3], 1),
        ([[1, 2, 3]], 1),
        ([[1, 2, 3], [1, 2, 3]], 2),
        ({"x": [1, 2, 3]}, 1),
        ({"x": [[1, 2, 3], [1, 2, 3]]}, 2),
    ],
)
def test_tensors_come_as_json_one_item_or_several_by_their_rank(
    artifact: Artifact, tmp_path: Path, value: object, count: int
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert _json(artifact("twice"), tmp_path / "x.json") == [{"outputs": {"y": [2, 4, 6]}}] * count


def test_tensors_come_as_npy_and_npz_too(artifact: Artifact, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3]]))
    np.savez(tmp_path / "x.npz", x=np.array([1.0, 2, 3]))
    for name in ("x.npy", "x.npz"):
        assert _json(artifact("twice"), tmp_path / name) == [{"outputs": {"y": [2, 4, 6]}}]


def test_several_inputs_come_by_name_and_in_batches(artifact: Artifact, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((2, 3)), b=np.array([[1, 2], [3, 4]]))
    found = _json(artifact("two"), tmp_path / "x.npz")
    assert [answer["outputs"]["double"] for answer in found] == [[2, 4], [6, 8]]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.json", b'{"z": [1, 2, 3]}', "expected the inputs x, found z"),
        ("x.json", b'{"x": [1, 2, 3], "z": 1}', "expected the inputs x, found x, z"),
        ("x.json", b"[1, 2]", "'x' has shape [2], expected [3]"),
        ("x.json", b"[[[1, 2, 3]]]", "'x' has shape [1, 1, 3]"),
        ("x.json", b"[1, [2], 3]", "its lists are not equally long"),
        ("x.json", b'["a", "b", "c"]', "expected an array of numbers"),
        ("x.json", b"null", "expected an array of numbers"),
        ("x.json", b"[1, NaN, 3]", "holds NaN or infinity"),
        ("x.json", b"[]", "'x' has shape [0]"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.json", b"{", "this is not JSON: Expecting property name"),
        ("x.json", b"\xff", "this is not JSON: 'utf-8' codec"),
        ("x.npy", b"no array", "this is not a .npy file"),
        ("x.npy", b"", "there are no items, 0 bytes"),
        ("x.npz", b"no zip", "this is not a .npz file"),
        ("x.npz", b"PK\x03\x04 cut", "BadZipFile"),
        ("x.png", b"\x89PNG", "'image/png' is not what this model takes"),
    ],
)
def test_a_file_that_cannot_be_taken_is_one_error_with_its_name_and_exit_1(
    artifact: Artifact, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = _run("predict", artifact("twice"), tmp_path / name)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path / name}")
    assert told in done.stderr


def test_a_file_of_python_objects_is_refused_without_running_it(
    artifact: Artifact, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object))
    done = _run("predict", artifact("twice"), tmp_path / "x.npy")
    assert done.exit_code == 1
    assert "'x' is ndarray of dtype object, expected an array of numbers" in done.stderr


def test_a_file_of_no_items_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((0, 3)))
    done = _run("predict", artifact("twice"), tmp_path / "x.npy")
    assert done.exit_code == 1
    assert "the list of items is empty" in done.stderr


def test_whole_numbers_are_not_cut_off_silently(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, 2, 3], "b": [1.5, 2]}')
    done = _run("predict", artifact("two"), tmp_path / "x.json")
    assert done.exit_code == 1
    assert "values that int64 cannot hold" in done.stderr


# --- wrong use


@pytest.mark.parametrize("option", ["--plot", "--out"])
def test_one_drawing_or_output_for_several_answers_is_wrong_usage(
    digits_artifact: Path, three: Path, tmp_path: Path, option: str
) -> None:
    done = _run("predict", digits_artifact, three, three, option, tmp_path / "x.png")
    assert done.exit_code == 2
    assert f"{option} takes one answer, there are 2 files" in done.stderr


@pytest.mark.parametrize("option", ["--plot", "--out"])
def test_one_drawing_or_output_for_a_file_of_several_items_is_wrong_usage(
    artifact: Artifact, tmp_path: Path, option: str
) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    done = _run("predict", artifact("twice"), tmp_path / "x.npy", option, tmp_path / "out")
    assert done.exit_code == 2
    assert f"{option} takes one answer, the file holds 2 items" in done.stderr


def test_a_lone_vector_is_drawn(artifact: Artifact, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    done = _run("predict", artifact("twice"), tmp_path / "x.npy", "--plot", tmp_path / "x.png")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--plot", "--out"])
def test_a_place_that_cannot_be_written_is_one_error(
    digits_artifact: Path, three: Path, option: str
) -> None:
    done = _run("predict", digits_artifact, three, option, "/dev/null/x.png")
    assert done.exit_code == 1
    assert "/dev/null/x.png" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lost", "x.npy"], "lost holds no artifact"),
        (["{artifact}", "lost.npy"], "lost.npy: cannot be read: No such file or directory"),
        (["{artifact}", "lost.npy", "--variant", "x"], "has no variant 'x'"),
    ],
)
def test_whatever_is_not_there_is_one_error(
    artifact: Artifact, arguments: list[str], told: str
) -> None:
    done = _run("predict", *(text.format(artifact=artifact("twice")) for text in arguments))
    assert (done.exit_code, done.stderr.count("error: ")) == (1, 1)
    assert told in done.stderr


# --- inspect


def test_inspect_shows_inputs_outputs_nodes_variants_and_files(digits_artifact: Path) -> None:
    done = _run("inspect", digits_artifact)
    assert done.exit_code == 0
    for text in (
        "input: float32 [batch, 1, 8, 8]",
        "logits: float32 [batch, 10]",
        "1 to 32, opt 8",
        "58,314 parameters",
        "Conv ",
        "onnxruntime-cpu-fp32",
        "top1 10/10 (reference 10/10)",
        "model.onnx",
        "opset 18",
    ):
        assert text in done.stdout
    assert "\x1b" not in done.stdout


def test_inspect_as_json_is_the_manifest_with_the_artifacts_digest(digits_artifact: Path) -> None:
    found = json.loads(_run("inspect", digits_artifact, "--json").stdout)
    manifest = json.loads((digits_artifact / "manifest.json").read_text())
    assert len(found.pop("digest")) == 64
    assert found.pop("here") == {"onnxruntime-cpu-fp32": "runs"}
    assert found == manifest


def test_random_weights_are_announced_by_predict_and_inspect(
    copied: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied("twice")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["weights"] = {"origin": "random", "seed": 3}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.save(tmp_path / "x.npy", np.ones(3))
    told = "weights are RANDOM (seed 3)"
    assert told in _run("inspect", folder).stdout
    done = _run("predict", folder, tmp_path / "x.npy", "--json")
    assert told in done.stderr
    json.load(io.StringIO(done.stdout))


def test_inspect_checks_the_files(copied: Callable[[str], Path]) -> None:
    folder = copied("twice")
    (folder / "model.onnx").write_bytes(b"other")
    done = _run("inspect", folder)
    assert done.exit_code == 1
    assert "its hash differs from the manifest's" in done.stderr
