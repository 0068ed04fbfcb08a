"""Dynamic axes: ranges by name, and torch's own notation, which means the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from specs.axes import AxisRange, name_axes
from specs.errors import Problem
from specs.loader import LoadedSpec

Problems = Callable[..., list[Problem]]
Load = Callable[..., LoadedSpec]

FIXED = {"inputs": "{input: {shape: [4, 3, 8, 8]}}", "outputs": "{output: {shape: [4, 10]}}"}


@pytest.mark.parametrize(
    "axes",
    [
        "{batch: {min: 1, opt: 4, max: 32}}",
        "{input: {0: batch}, output: {0: batch}, batch: {min: 1, opt: 4, max: 32}}",
        "{input: {0: batch}, output: [0], batch: {opt: 4, max: 32}}",
        "{input: [0], output: [0]}",
        "{input: {-4: batch}, output: {-2: batch}, batch: {opt: 4, max: 32}}",
    ],
)
def test_both_notations_mean_the_same(load: Load, axes: str) -> None:
    sections = {} if axes.startswith("{batch") else FIXED
    spec = load(dynamic_axes=axes, **sections).spec
    assert spec.inputs["input"].shape == ("batch", 3, 8, 8)
    assert spec.outputs["output"].shape == ("batch", 10)
    assert spec.dynamic_axes == {"batch": AxisRange(min=1, opt=4, max=32)}


def test_torchs_notation_takes_its_range_from_the_size(load: Load) -> None:
    axes = "{input: {0: batch, 2: height, 3: width}, output: {0: batch}}"
    spec = load(dynamic_axes=axes, **FIXED).spec
    assert spec.batch == AxisRange(min=1, opt=4, max=32)
    assert spec.dynamic_axes["height"] == AxisRange(min=4, opt=8, max=16)


def test_a_batch_above_16_may_double(load: Load) -> None:
    sections = {name: text.replace("4", "64") for name, text in FIXED.items()}
    spec = load(dynamic_axes="{input: [0], output: [0]}", **sections).spec
    assert spec.batch == AxisRange(min=1, opt=64, max=128)


def test_opt_is_max_where_it_is_left_out(load: Load) -> None:
    assert load(dynamic_axes="{batch: {max: 5}}").spec.batch == AxisRange(min=1, opt=5, max=5)


def test_a_fixed_batch_is_a_range_of_one_size(load: Load) -> None:
    assert load(dynamic_axes=None, **FIXED).spec.batch == AxisRange(min=4, opt=4, max=4)


@pytest.mark.parametrize(
    ("axes", "path", "code", "hint"),
    [
        ("{inptu: {0: batch}}", "dynamic_axes.inptu", "axis_tensor", "did you mean 'input'?"),
        ("{input: {9: batch}}", "dynamic_axes.input", "axis_unknown", ""),
        ("{input: {-9: batch}}", "dynamic_axes.input", "axis_unknown", ""),
        ("{batch: {min: 0, max: 3}}", "dynamic_axes.batch.min", "out_of_range", ""),
        ("{batch: {min: 4, max: 3}}", "dynamic_axes.batch", "axis_range", ""),
        ("{batch: 3}", "dynamic_axes.batch", "wrong_type", ""),
        ("{batch: {max: 2.0}}", "dynamic_axes.batch.max", "wrong_type", ""),
        ("{batch: {max: 2, mni: 1}}", "dynamic_axes.batch.mni", "unknown_field", "'min'"),
        ("{9a: {max: 2}, batch: {max: 2}}", "dynamic_axes.9a", "bad_name", ""),
    ],
)
def test_a_wrong_axis_is_one_problem(
    problems: Problems, axes: str, path: str, code: str, hint: str
) -> None:
    (problem,) = problems(dynamic_axes=axes)
    assert (problem.path, problem.code) == (path, code)
    assert hint in problem.hint


@pytest.mark.parametrize("inputs", ["3", "[1]", "{input: 3}", "{input: {shape: x}}", None])
def test_torchs_notation_leaves_broken_inputs_to_the_schema(
    problems: Problems, inputs: str | None
) -> None:
    found = problems(dynamic_axes="{output: {0: batch}}", inputs=inputs, outputs=FIXED["outputs"])
    assert {problem.path.split(".")[0] for problem in found} == {"inputs"}


@given(
    st.dictionaries(
        st.sampled_from(["inputs", "outputs", "dynamic_axes"]),
        st.recursive(
            st.none() | st.integers(-5, 5) | st.booleans() | st.sampled_from(["a", "b", "shape"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["a", "b", "shape", 0, 1, -1]), inner, max_size=3)
            ),
            max_leaves=12,
        ),
    )
)
@example({"inputs": {0: None, "a": None}, "dynamic_axes": {"b": [0]}})
def test_no_raw_spec_is_too_broken_to_be_looked_at(raw: dict[str, object]) -> None:
    try:
        name_axes(raw)
    except Exception as error:  # noqa: BLE001 - the kind is what is tested
        assert type(error).__name__ == "PydanticCustomError"  # noqa: PT017 - or nothing at all
