from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.processing import Processing, load_processing
from specs.digests import text_sha256
from specs.errors import ArtifactError, InputError
from specs.loader import LoadedSpec
from specs.ops.python import Gives, Python, call_step, load_step, step_file
from specs.values import FlowError, Value

Load = Callable[..., LoadedSpec]
IMAGE = Value("image", "uint8", ("height", "width", 3), "HWC", "RGB", 0, 255)
RAMP = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)

SOURCE = """
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Count:
    calls: int = 0


COUNT = Count()


def invert(x: np.ndarray) -> np.ndarray:
    COUNT.calls += 1
    if x[0, 0, 0] == 13:
        raise LookupError("unlucky")
    return x.max(initial=255) - x


def half(x):
    return x[::2, ::2]


def floats(x):
    return x / 2


def nothing(x):
    pass


def best_two(x):
    return {"ids": np.argsort(-x, 1)[:, :2], "n": np.full(len(x), COUNT.calls)}


def one_name(x):
    return {"ids": x}


LIST = [1]
"""


@pytest.fixture(autouse=True)
def own_file(tmp_path: Path) -> None:
    """The file that specs here name, beside the spec."""
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "mine.py").write_text(SOURCE, encoding="utf-8")


@pytest.fixture
def processing(load: Load, tmp_path: Path) -> Callable[..., Processing]:
    """The processing of the small spec with some sections replaced, from an artifact's folder."""
    from compiler.processing import generate

    def made(**sections: str) -> Processing:
        generated = generate(load(**sections).spec, {})
        folder = tmp_path / "artifact"
        folder.mkdir(exist_ok=True)
        for name, path in generated.copies.items():
            shutil.copyfile(tmp_path / path, folder / name)
        (folder / "processing.py").write_text(generated.text, encoding="utf-8")
        return load_processing(folder / "processing.py", text_sha256(generated.text))

    return made


def _pre(function: str, gives: str = "") -> str:
    step = f"{{python: {{file: steps/mine.py, function: {function}{gives}}}}}"
    return f"[decode_image, {step}, {{cast: float32}}, {{layout: CHW}}]"


INPUT = "{input: {shape: [batch, 3, height, width]}}"
AXES = "{batch: {max: 4}, height: {max: 99}, width: {max: 99}}"


def test_the_function_runs_between_the_other_steps(processing: Callable[..., Processing]) -> None:
    found = processing(preprocess=_pre("invert"), inputs=INPUT, dynamic_axes=AXES)
    result = found.preprocess(RAMP)["input"]
    assert (result == 255 - RAMP.transpose(2, 0, 1)).all()


def test_what_it_raises_becomes_bad_input_that_names_it(
    processing: Callable[..., Processing],
) -> None:
    found = processing(preprocess=_pre("invert"), inputs=INPUT, dynamic_axes=AXES)
    with pytest.raises(InputError) as caught:
        found.preprocess(np.full((2, 2, 3), 13, np.uint8))
    assert caught.value.code == "python_step"
    assert caught.value.message == "invert in steps/mine.py failed: LookupError: unlucky"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("half", "half in steps/mine.py returned uint8 [4, 4, 3]"),
        ("floats", "floats in steps/mine.py returned float64 [8, 8, 3]"),
        ("nothing", "nothing in steps/mine.py returned NoneType"),
    ],
)
def test_another_result_than_the_spec_says_is_refused(
    processing: Callable[..., Processing], function: str, message: str
) -> None:
    found = processing(preprocess=_pre(function), inputs=INPUT, dynamic_axes=AXES)
    with pytest.raises(InputError) as caught:
        found.preprocess(RAMP)
    assert (caught.value.code, caught.value.message) == ("python_step", message)
    assert "['height', 'width', 3], or change the spec's gives" in caught.value.hint


def test_what_it_gives_may_be_of_another_size(processing: Callable[..., Processing]) -> None:
    steps = _pre("half", ", gives: {shape: [4, 4, 3]}")
    inputs = "{input: {shape: [batch, 3, 4, 4]}}"
    found = processing(preprocess=steps, inputs=inputs)
    assert (found.preprocess(RAMP)["input"] == RAMP[::2, ::2].transpose(2, 0, 1)).all()


def test_pixels_are_not_followed_through_a_function_that_moves_them(
    processing: Callable[..., Processing],
) -> None:
    found = processing(
        preprocess=_pre("half", ", gives: {shape: [4, 4, 3]}"),
        inputs="{input: {shape: [batch, 3, 4, 4]}}",
        outputs="{output: {shape: [batch, 5, 4, 4]}}",
        postprocess="[{mask_to_image: image}]",
    )
    with pytest.raises(InputError) as caught:
        found.preprocess(RAMP)
    assert "half in steps/mine.py changes the image's size" in caught.value.message


def test_behind_the_model_it_gives_arrays_by_name(processing: Callable[..., Processing]) -> None:
    parts = "ids: {dtype: int64, shape: [batch, 2]}, n: {dtype: int64, shape: [batch]}"
    gives = f"{{kind: tensors, parts: {{{parts}}}}}"
    step = f"{{python: {{file: steps/mine.py, function: best_two, gives: {gives}}}}}"
    found = processing(postprocess=f"[softmax, {step}]")
    outputs = np.eye(10, dtype=np.float32)[[3, 0]]
    answers = found.postprocess({"output": outputs})
    assert [answer["outputs"]["ids"].tolist() for answer in answers] == [[3, 0], [0, 1]]


def test_two_steps_of_one_file_share_what_it_keeps(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SOURCE + "# shared\n", encoding="utf-8")
    beside = str(tmp_path / "processing.py")
    load_step(beside, "s.py", "invert")(RAMP)
    counted = load_step(beside, "s.py", "best_two")(np.zeros((1, 3)))
    assert counted["n"].tolist() == [1]


def test_no_bytecode_is_written_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / "s.py").write_text(SOURCE + f"# {tmp_path}\n", encoding="utf-8")
    assert load_step(str(folder / "processing.py"), "s.py", "half")(RAMP).shape == (4, 4, 3)
    assert [path.name for path in folder.iterdir()] == ["s.py"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def g(x): ...", "has no function half"),
        ("half = 3", "has no function half"),
        ("def half(x) return x", "SyntaxError"),
        ("import numpie", "numpie"),
    ],
)
def test_a_file_that_cannot_be_run_is_told_when_the_artifact_is_opened(
    load: Load, tmp_path: Path, source: str, message: str
) -> None:
    from compiler.processing import generate

    step = "{python: {file: steps/mine.py, function: half}}"
    generated = generate(load(postprocess=f"[{step}]").spec, {})
    (name,) = generated.copies
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / name).write_text(source, encoding="utf-8")
    (folder / "processing.py").write_text(generated.text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=message):
        load_processing(folder / "processing.py", text_sha256(generated.text))


def test_files_of_one_name_keep_apart() -> None:
    assert step_file("a/mine.py") != step_file("b/mine.py")
    assert step_file("my step.py").startswith("step_my_step_")


def test_a_name_means_one_size_everywhere() -> None:
    gives = {"a": ("int64", ("n",)), "b": ("int64", ("n",))}
    same = {"a": np.arange(3), "b": np.arange(3)}
    assert call_step(lambda _: same, 0, {}, gives, "f in s.py") is same
    with pytest.raises(ValueError, match=r"returned 'b' as int64 \[4\]"):
        call_step(lambda _: same | {"b": np.arange(4)}, 0, {}, gives, "f in s.py")
    with pytest.raises(ValueError, match="returned dict"):
        call_step(lambda _: {"a": 1}, 0, {}, gives, "f in s.py")


def test_what_is_not_said_stays_as_it_came() -> None:
    op = Python(file="s.py", function="f")
    assert op.flow(IMAGE) == IMAGE.but(low=None, high=None)
    gives = Gives(kind="tensor", dtype="float32", shape=("n", 4), low=0)
    value = Python(file="s.py", function="f", gives=gives).flow(IMAGE)
    assert value == Value("tensor", "float32", ("n", 4), low=0)


@pytest.mark.parametrize(
    ("step", "gives", "level"),
    [
        (1.0, {}, 1.0),
        (1 / 255, {}, 1 / 255),
        (1 / 255, {"dtype": "uint8"}, 1.0),
        (1.0, {"dtype": "float32", "low": -1.0, "high": 1.0}, 2 / 255),
        (None, {"low": 0.0, "high": 1.0}, None),
    ],
)
def test_what_a_grey_level_is_worth_is_kept_or_follows_from_what_it_gives(
    step: float | None, gives: dict[str, Any], level: float | None
) -> None:
    op = Python(file="s.py", function="f", gives=Gives.model_validate(gives))
    dtype = "uint8" if step == 1 else "float32"
    assert op.flow(IMAGE.but(step=step, dtype=dtype)).step == level


def test_candidate_boxes_can_be_given() -> None:
    parts = {
        "boxes": {"dtype": "float32", "shape": ["batch", "n", 4]},
        "scores": {"dtype": "float32", "shape": ["batch", "n", 7]},
    }
    gives: dict[str, Any] = {"kind": "boxes", "boxes": "xyxy", "units": "pixels", "parts": parts}
    op = Python.model_validate({"python": {"file": "s.py", "function": "f", "gives": gives}})
    value = op.flow(Value("tensor", "float32", ("batch", 84, "n")))
    assert (value.kind, value.boxes, value.units) == ("boxes", "xyxy", "pixels")
    assert value.shape == ("batch", "n", 7)


def test_what_is_no_array_is_refused() -> None:
    op = Python(file="s.py", function="f")
    with pytest.raises(FlowError, match="python takes arrays, found classes"):
        op.flow(Value("classes"))
    with pytest.raises(FlowError, match="what one array it gives is not said"):
        op.flow(Value("tensors", fields={"a": IMAGE, "b": IMAGE}))
    with pytest.raises(FlowError, match="an image has the shape"):
        Python(file="s.py", function="f", gives=Gives(shape=(3,))).flow(IMAGE)


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        ({"kind": "tensors"}, "tensors need parts"),
        ({"parts": {"a": {"dtype": "int64", "shape": [1]}}}, "parts are for kind"),
        ({"kind": "boxes", "parts": {"a": {"dtype": "int64", "shape": [1]}}}, "boxes and units"),
        ({"kind": "image", "boxes": "xyxy", "units": "pixels"}, "boxes and units"),
        ({"shape": []}, "at least 1"),
    ],
)
def test_what_it_gives_must_make_sense(gives: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gives.model_validate(gives)


@pytest.mark.parametrize("file", ["mine.txt", 'a".py', "a\\b.py", "{x}.py", ".py"])
def test_a_file_is_a_plain_path_of_python(file: str) -> None:
    with pytest.raises(ValueError, match="file"):
        Python(file=file, function="f")
