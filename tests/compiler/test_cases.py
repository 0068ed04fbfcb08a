"""Golden cases: which items, at which sizes, in which batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.cases import (
    batch_of,
    corner_batches,
    example_inputs,
    golden_cases,
)
from compiler.processing import PROCESSING, generate
from compiler.samples import read_item, sample_files
from runtime.processing import Processing, load_processing
from runtime.tensors import Tensors
from specs.axes import AxisRange
from specs.digests import text_sha256
from specs.errors import DeploycError, InputError, SourceError
from specs.schema import Spec

Make = Callable[..., dict[str, Any]]


def _spec(**parts: Any) -> Spec:
    return Spec.model_validate(
        {
            "version": 1,
            "name": "net",
            "model": {"onnx": "net.onnx"},
            "inputs": {"x": {"shape": ["batch", 4]}},
            "outputs": {"y": {"shape": ["batch", 3]}},
            "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}},
            **parts,
        }
    )


def _processing(spec: Spec, folder: Path) -> Processing:
    text = generate(spec, {}).files[PROCESSING]
    (folder / PROCESSING).write_text(text, "utf-8")
    return load_processing(folder / PROCESSING, text_sha256(text))


WIDE = {
    "inputs": {"x": {"shape": ["batch", "width"]}},
    "outputs": {"y": {"shape": ["batch", "width"]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}, "width": {"min": 2, "max": 9}},
}


def test_the_batches_are_1_2_opt_max_and_an_odd_one_between() -> None:
    assert corner_batches(AxisRange(min=1, opt=8, max=32)) == (1, 2, 8, 21, 32)


def test_a_batch_whose_opt_is_its_max_still_has_an_odd_size() -> None:
    assert corner_batches(AxisRange(min=1, opt=32, max=32)) == (1, 2, 17, 32)


@given(st.lists(st.integers(1, 64), min_size=3, max_size=3).map(sorted))
def test_batches_lie_in_the_range_with_both_ends_and_odd_where_there_is_room(
    sizes: list[int],
) -> None:
    batch = AxisRange(min=sizes[0], opt=sizes[1], max=sizes[2])
    found = corner_batches(batch)
    assert {batch.min, batch.opt, batch.max} <= set(found)
    assert all(batch.min <= size <= batch.max for size in found)
    if batch.max - batch.min >= 4:
        assert any(size % 2 and batch.min < size < batch.max for size in found)


def test_a_batch_repeats_the_items_in_order_from_where_it_starts() -> None:
    inputs: Tensors = {"x": np.arange(3)}
    assert batch_of(inputs, 5, 1)["x"].tolist() == [1, 2, 0, 1, 2]


def test_the_example_to_trace_with_has_two_items_where_the_batch_is_dynamic() -> None:
    assert example_inputs(_spec())["x"].shape == (2, 4)
    fixed = {"inputs": {"x": {"shape": [1, 4]}}, "outputs": {"y": {"shape": [1, 3]}}}
    assert example_inputs(_spec(**fixed, dynamic_axes={}))["x"].shape == (1, 4)


def test_random_items_are_the_same_for_one_seed_and_fit_the_dtype(tmp_path: Path) -> None:
    inputs = {
        "a": {"shape": ["batch", 4], "dtype": "int64"},
        "b": {"shape": ["batch", 4], "dtype": "bool"},
        "c": {"shape": ["batch", 4], "dtype": "float16"},
    }
    spec = _spec(inputs=inputs)
    case = next(iter(golden_cases(spec, [], _processing(spec, tmp_path))))
    again = next(iter(golden_cases(spec, [], _processing(spec, tmp_path))))
    assert {name: str(array.dtype) for name, array in case.inputs.items()} == {
        "a": "int64",
        "b": "bool",
        "c": "float16",
    }
    assert all((case.inputs[name] == again.inputs[name]).all() for name in inputs)
    other = _spec(inputs=inputs, verify={"seed": 5})
    changed = next(iter(golden_cases(other, [], _processing(other, tmp_path))))
    assert not (case.inputs["c"] == changed.inputs["c"]).all()


def test_every_other_axis_is_run_at_its_ends_and_an_odd_size_between(tmp_path: Path) -> None:
    spec = _spec(**WIDE)
    cases = list(golden_cases(spec, [], _processing(spec, tmp_path)))
    assert [case.name for case in cases] == ["random", "width=2", "width=5", "width=9"]
    assert cases[1].inputs["x"].shape[1] == 2


def _samples(folder: Path, *widths: int) -> list[Path]:
    files = [folder / f"{index}.npy" for index in range(len(widths))]
    for file, width in zip(files, widths, strict=True):
        np.save(file, np.arange(width, dtype=np.float32))
    return files


def test_samples_of_different_shapes_are_a_case_each(tmp_path: Path) -> None:
    spec = _spec(**WIDE)
    files = _samples(tmp_path, 3, 5, 3)
    cases = list(golden_cases(spec, files, _processing(spec, tmp_path)))
    assert [case.name for case in cases[:2]] == ["samples width=3", "samples width=5"]


def test_a_lone_sample_gets_its_mirror_image_as_a_neighbour(tmp_path: Path) -> None:
    spec = _spec()
    case = next(iter(golden_cases(spec, _samples(tmp_path, 4), _processing(spec, tmp_path))))
    assert case.inputs["x"].tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_a_sample_outside_an_axis_is_refused_with_its_name(tmp_path: Path) -> None:
    spec = _spec(**WIDE)
    with pytest.raises(SourceError) as caught:
        list(golden_cases(spec, _samples(tmp_path, 10), _processing(spec, tmp_path)))
    assert caught.value.code == "sample_unusable"
    assert "0.npy" in caught.value.message
    assert "width (2..9)" in caught.value.message


def test_a_sample_of_another_shape_is_refused_with_its_name(tmp_path: Path) -> None:
    spec = _spec()
    with pytest.raises(SourceError, match=r"verify\.samples: 0\.npy: 'x' has shape \[3\]"):
        list(golden_cases(spec, _samples(tmp_path, 3), _processing(spec, tmp_path)))


def test_patterns_may_be_absolute_and_a_pattern_without_files_is_an_error(tmp_path: Path) -> None:
    files = _samples(tmp_path, 4, 4)
    spec = _spec(verify={"samples": [str(tmp_path / "*.npy")]})
    assert sample_files(spec, Path("/")) == files
    lost = _spec(verify={"samples": ["*.png"]})
    with pytest.raises(SourceError, match=r"no file matches \*\.png"):
        sample_files(lost, tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_a_sample_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.npy"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.npy is no \.npy file"):
        read_item(file)


def test_samples_of_a_python_object_are_refused_without_running_it(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], object))
    with pytest.raises(DeploycError):
        read_item(tmp_path / "object.npy")
