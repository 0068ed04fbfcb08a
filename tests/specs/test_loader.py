"""Loading specs: every problem with its place, its path, what was found, and what is allowed."""

# ruff: noqa: E501 - tables read best with one row on a line

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import specs.ops
from specs.errors import Problem, SpecError
from specs.loader import LoadedSpec, field_path, load_spec, spec_files
from specs.schema import Spec
from specs.sources import SOURCES

Problems = Callable[..., list[Problem]]
Load = Callable[..., LoadedSpec]
SPECS = Path(specs.ops.__file__).parents[1]
SHIPPED = sorted(SPECS.glob("*.yaml"))

SINGLE = [
    # sections, line, column, path, code, words of the message, words of the hint
    ({"naem": "x"}, 8, 1, "naem", "unknown_field", "'naem'", "did you mean 'name'?"),
    ({"name": None}, 1, 1, "name", "missing", "'name' is missing", "The model's name"),
    ({"name": "a b"}, 2, 7, "name", "wrong_form", "found 'a b', expected 1 to 64", ""),
    ({"name": "7"}, 2, 7, "name", "wrong_type", "found 7, expected text", "in quotes"),
    ({"version": "2"}, 1, 10, "version", "not_allowed", "found 2, expected 1", ""),
    ({"version": "true"}, 1, 10, "version", "invalid", "found true, expected the number 1", ""),
    ({"model": "{torchvison: x}"}, 3, 9, "model.torchvison", "unknown_name", "'torchvison'", "did you mean 'torchvision'?"),
    ({"model": "resnet50"}, 3, 8, "model", "unknown_name", "'resnet50'", "known: exported_program, "),
    ({"model": "{onnx: a, torchvision: b}"}, 3, 1, "model", "not_one_key", "found a mapping with onnx, torchvision", "known: "),
    ({"model": "[torchvision]"}, 3, 1, "model", "not_one_key", "found a list of 1", "known: "),
    ({"model": "torchvision"}, 3, 8, "model.torchvision.model", "missing", "'model' is missing", "name"),
    ({"weights": "{random: {sed: 0}}"}, 4, 20, "weights.random.sed", "unknown_field", "'sed'", "did you mean 'seed'?"),
    ({"weights": "{random: {seed: -1}}"}, 4, 26, "weights.random.seed", "out_of_range", "found -1, expected at least 0", ""),
    ({"weights": "{random: {seed: true}}"}, 4, 26, "weights.random.seed", "wrong_type", "found true, expected a whole number", ""),
    ({"weights": "{url: ftp://x}"}, 4, 16, "weights.url", "wrong_form", "https://", ""),
    ({"weights": "{path: a, state_dict: {rename: [{to: x}]}}"}, 4, 42, "weights.state_dict.rename[0].from", "missing", "'from'", "regular"),
    ({"weights": "{path: a, state_dict: {rename: [{from: '('}]}}"}, 4, 49, "weights.state_dict.rename[0].from", "regex", "unterminated", ""),
    ({"inputs": "{}"}, 5, 1, "inputs", "wrong_length", "expected at least 1 item", ""),
    ({"inputs": "[a]"}, 5, 1, "inputs", "wrong_type", "found a list of 1, expected a mapping", ""),
    ({"inputs": "{input: [batch]}"}, 5, 10, "inputs.input", "wrong_type", "expected a mapping", ""),
    ({"inputs": "{input: {shape: [0]}}"}, 5, 26, "inputs.input.shape[0]", "out_of_range", "found 0, expected at least 1", ""),
    ({"inputs": "{input: {shape: [2.5]}}"}, 5, 26, "inputs.input.shape[0]", "wrong_type", "found 2.5, expected a whole number or text", ""),
    ({"inputs": "{input: {shape: ['1x']}}"}, 5, 26, "inputs.input.shape[0]", "wrong_form", "found '1x', expected a name", ""),
    ({"inputs": "{in put: {shape: [1]}}"}, 5, 10, "inputs['in put']", "bad_name", "found 'in put'", ""),
    ({"inputs": "{input: {shape: [1], dtype: flot32}}"}, 5, 37, "inputs.input.dtype", "not_allowed", "found 'flot32', expected 'bool', ", "did you mean 'float32'?"),
    ({"dynamic_axes": "{batch: {min: 9, opt: 8, max: 7}}"}, 7, 16, "dynamic_axes.batch", "axis_range", "min 9, opt 8, max 7", ""),
    ({"export": "{opset: '18'}"}, 8, 17, "export.opset", "wrong_type", "found '18', expected a whole number", "remove the quotes"),
    ({"limits": "{bytes: 5_000}"}, 8, 17, "limits.bytes", "wrong_type", "found '5_000', expected a whole number", "write 5000"),
    ({"export": "{optimize: yes}"}, 8, 20, "export.optimize", "wrong_type", "found 'yes', expected true or false", ""),
    ({"verify": "{atol: .inf}"}, 8, 16, "verify.atol", "out_of_range", "expected a finite number", ""),
    ({"targets": "[{engine: onnxruntime, device: gpu}]"}, 8, 41, "targets[0].device", "not_allowed", "found 'gpu', expected 'cpu' or 'cuda'", ""),
    ({"targets": "onnxruntime"}, 8, 10, "targets", "wrong_type", "expected a list", ""),
    ({"preprocess": "[{resise: {}}]"}, 8, 15, "preprocess[0].resise", "unknown_name", "'resise'", "did you mean 'resize'?"),
    ({"preprocess": "[resise]"}, 8, 14, "preprocess[0]", "unknown_name", "'resise'", "did you mean 'resize'?"),
    ({"preprocess": "[decode_image, {resize: {size: [8, 8], interpolation: bilinaer}}]"}, 8, 67, "preprocess[1].resize.interpolation", "not_allowed", "found 'bilinaer', expected ", "did you mean 'bilinear'?"),
    ({"preprocess": "[{resize: {interp: nearest}}]"}, 8, 24, "preprocess[0].resize.interp", "unknown_field", "'interp'", "did you mean 'interpolation'?"),
    ({"preprocess": "[{center_crop: big}]"}, 8, 28, "preprocess[0].center_crop", "wrong_type", "found 'big', expected a whole number or a list", ""),
    ({"preprocess": "[{center_crop: 0}]"}, 8, 28, "preprocess[0].center_crop", "out_of_range", "found 0, expected at least 1", ""),
    ({"preprocess": "[resize]"}, 8, 14, "preprocess[0]", "invalid", "exactly one of shorter_side, longer_side, size and letterbox, found none", ""),
    ({"postprocess": "[{top_k: {labels: {EN!: x}}}]"}, 8, 33, "postprocess[0].top_k.labels['EN!']", "bad_name", "a language code", ""),
    ({"postprocess": "[{top_k: {labels: 3}}]"}, 8, 32, "postprocess[0].top_k.labels", "wrong_type", "found 3, expected text or a mapping", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "line", "column", "path", "code", "message", "hint"),
    SINGLE,
    ids=[f"{case[4]} {next(iter(case[0].items()))}" for case in SINGLE],
)
def test_a_wrong_field_is_one_problem_that_says_all(  # noqa: PLR0913, PLR0917 - a table of columns
    problems: Problems,
    sections: dict[str, str | None],
    line: int,
    column: int,
    path: str,
    code: str,
    message: str,
    hint: str,
) -> None:
    (problem,) = problems(**sections)
    assert (problem.line, problem.column, problem.path) == (line, column, path)
    assert problem.code == code
    assert message in problem.message
    assert hint in problem.hint
    assert bool(hint) == bool(problem.hint)


def test_all_wrong_fields_are_told_at_once_in_the_files_order(problems: Problems) -> None:
    found = problems(inputs="{input: {shape: [-1, 2]}}", name="a b", foo="1", version="3")
    assert [problem.path for problem in found] == [
        "version",
        "name",
        "inputs.input.shape[0]",
        "foo",
    ]


def test_a_problem_reads_as_one_line_and_a_hint(problems: Problems, tmp_path: Path) -> None:
    (problem,) = problems(export="{opste: 18}")
    place = tmp_path / "spec.yaml"
    text = f"{place}:8:10: export.opste: unknown field 'opste' [unknown_field]"
    assert str(problem) == f"{text}\n  hint: did you mean 'opset'?"


def test_text_from_the_file_cannot_steer_a_terminal(problems: Problems) -> None:
    (problem,) = problems(**{r'"\e[2J\n"': "1"})
    assert str(problem).isprintable() or "\n  hint" in str(problem)
    assert "\x1b" not in str(problem)


def test_a_later_check_places_its_problem_in_the_file(load: Load, tmp_path: Path) -> None:
    loaded = load(preprocess="[decode_image, resize: {size: [8, 8]}, layout: CHW, cast: float32]")
    problem = loaded.problem_at(("preprocess", 1, "resize", "size"), "x", "found", "do")
    place = tmp_path / "spec.yaml"
    assert str(problem) == f"{place}:8:37: preprocess[1].resize.size: found [x]\n  hint: do"


def test_the_folder_is_the_specs_own_whatever_the_working_directory(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load()
    monkeypatch.chdir(tmp_path)
    loaded = load_spec(Path("spec.yaml"))
    assert (loaded.path, loaded.folder) == (Path("spec.yaml"), tmp_path)


def test_sequences_of_free_data_are_lists(load: Load) -> None:
    loaded = load(model="{torchvision: {model: x, kwargs: {a: [1, [2]], b: {c: [3]}}}}")
    assert loaded.spec.model.model_dump()["torchvision"]["kwargs"] == {
        "a": [1, [2]],
        "b": {"c": [3]},
    }


@pytest.mark.parametrize("path", ["missing.yaml", ".", "a\0b.yaml", "x" * 300 + ".yaml"])
def test_a_file_that_cannot_be_read_is_a_problem(path: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / path)
    (problem,) = caught.value.problems
    assert problem.code == "file_unreadable"
    assert problem.line == 0


FILES = [
    ({"model": "{onnx: a.onnx}", "weights": None}, "model.onnx.file", "file_missing"),
    ({"model": "{onnx: {file: a.onnx}}", "weights": None}, "model.onnx.file", "file_missing"),
    ({"model": "{python: {file: a.py, object: A}}"}, "model.python.file", "file_missing"),
    ({"postprocess": "[{top_k: {labels: a.txt}}]"}, "postprocess[0].top_k.labels", "file_missing"),
    (
        {"postprocess": "[softmax, {argmax: {labels: {en: a.txt}}}]"},
        "postprocess[1].argmax.labels.en",
        "file_missing",
    ),
    ({"verify": "{accuracy: {labels: a.csv}}"}, "verify.accuracy.labels", "file_missing"),
    ({"verify": "{samples: '*.png'}"}, "verify.samples[0]", "samples_missing"),
    ({"verify": "{samples: [spec.yaml, '*.png']}"}, "verify.samples[1]", "samples_missing"),
    ({"verify": r'{samples: "\0"}'}, "verify.samples[0]", "samples_missing"),
    ({"verify": r'{accuracy: {labels: "\0"}}'}, "verify.accuracy.labels", "file_missing"),
    ({"export": "{custom_translations: 'a.py:T'}"}, "export.custom_translations", "file_missing"),
]


@pytest.mark.parametrize(("sections", "path", "code"), FILES)
def test_a_named_file_that_is_not_there_is_a_problem_at_its_field(
    problems: Problems, sections: dict[str, str | None], path: str, code: str
) -> None:
    (problem,) = problems(**sections)
    assert (problem.code, problem.path) == (code, path)
    assert problem.line > 0


def test_the_nearest_file_is_named(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "network.onnx").touch()
    (problem,) = problems(model="{onnx: netwrok.onnx}", weights=None)
    assert problem.hint == "did you mean 'network.onnx'?"


def test_weights_may_be_fetched_later(problems: Problems) -> None:
    assert problems(weights="{path: not_yet.pth}") == []


@pytest.mark.parametrize("count", [9, 11])
def test_labels_must_be_as_many_as_classes(problems: Problems, tmp_path: Path, count: int) -> None:
    (tmp_path / "labels.txt").write_text("x\n" * count)
    (problem,) = problems(postprocess="[{top_k: {labels: labels.txt}}]")
    assert (problem.code, problem.path) == ("labels_count", "postprocess[0].top_k.labels")
    (tmp_path / "labels.txt").write_text("x\n" * 10)
    assert problems(postprocess="[{top_k: {labels: labels.txt}}]") == []


def test_a_folder_gives_its_yaml_files_to_the_bottom_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.txt", "d/e.yaml", ".git/f.yaml", "d/.g.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = spec_files([tmp_path / "b.yaml", tmp_path, tmp_path / "c.txt"])
    names = [file.relative_to(tmp_path).as_posix() for file in found]
    assert names == ["b.yaml", "a.yml", "d/e.yaml", "c.txt"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_shipped_spec_is_valid_and_named_as_its_file(path: Path) -> None:
    assert load_spec(path).spec.name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_dumped_spec_loads_as_itself(path: Path) -> None:
    spec = load_spec(path).spec
    assert Spec.model_validate_json(spec.model_dump_json(by_alias=True)) == spec
    dumped = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True, exclude_unset=True))
    assert Spec.model_validate(yaml.safe_load(dumped)) == spec


def test_a_loaded_spec_can_be_pickled(load: Load) -> None:
    loaded = load()
    assert pickle.loads(pickle.dumps(loaded)).spec == loaded.spec  # noqa: S301 - our own bytes


def test_paths_are_written_as_people_write_them() -> None:
    path = ("preprocess", 1, "resize", "inter polation")
    assert field_path(path) == "preprocess[1].resize['inter polation']"
    assert field_path(()) == ""


def test_every_op_and_source_can_be_the_nearest_name(problems: Problems) -> None:
    for source in SOURCES:
        (problem,) = problems(model=f"{{{source.name}x: a}}")
        assert problem.hint == f"did you mean '{source.name}'?"


MUTATIONS = st.sampled_from(
    ["", " ", "\n", "\t", ":", "-", "{", "}", "[", "]", "'", '"', "&a ", "*a", "!", "|", "#", "0",
     "-1", "1e400", "null", "true", "batch", "input", ".inf", "~", "é", "<<: ", "? ", "\0", "9" * 99]
)  # fmt: skip


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_spec_is_valid_or_a_spec_error(data: st.DataObject, tmp_path: Path) -> None:
    text = data.draw(st.sampled_from(SHIPPED)).read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(MUTATIONS) + text[end:]
    _load(text, tmp_path)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 300) | st.floats() | st.text(max_size=4)
    | st.sampled_from(["batch", "input", "softmax", "cpu", "onnxruntime", "a/b", "*"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["input", "batch", "shape", "min", "max", "0", "url", "resize", "labels"]),
        inner,
        max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_data_in_any_field_is_valid_or_a_spec_error(
    data: st.DataObject, tmp_path: Path
) -> None:
    whole: Any = yaml.safe_load(data.draw(st.sampled_from(SHIPPED)).read_text(encoding="utf-8"))
    node, key = whole, data.draw(st.sampled_from(sorted(whole)))
    while _keys(node[key]) and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(_keys(node)))
    node[key] = data.draw(PLAIN)
    _load(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), tmp_path)


def _keys(node: Any) -> list[Any]:
    """What leads further down from a node; nothing where it is a scalar."""
    if isinstance(node, dict):
        return sorted(cast("dict[str, Any]", node))
    return list(range(len(cast("list[Any]", node)))) if isinstance(node, list) else []


def _load(text: str, folder: Path) -> None:
    """Load it, beside the files that the shipped specs name."""
    for name in ("labels", "models", "samples"):
        if not (folder / name).exists():
            (folder / name).symlink_to(SPECS / name)
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_spec(path)
    except SpecError as error:
        assert error.problems  # noqa: PT017 - every SpecError of the loader names its problems
        for problem in error.problems:
            assert re.fullmatch(r"[a-z][a-z0-9_]+", problem.code)
            assert problem.message
