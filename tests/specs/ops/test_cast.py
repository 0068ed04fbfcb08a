from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from specs import schema
from specs.ops import cast
from specs.ops.cast import Cast
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", [0, 0, 2, 255, 255, 0]),
        ("int64", [-(2**63), -1, 2, 300, 2**63 - 1, 0]),
        ("bool", [True, True, True, True, True, True]),
    ],
)
def test_fractions_are_cut_off_and_the_range_is_kept(
    run_step: RunStep, dtype: Any, expected: list[int]
) -> None:
    x = np.array([-1e30, -1.5, 2.9, 300, np.inf, np.nan], np.float32)
    result = run_step(Cast(dtype=dtype), Value("tensor", "float32", (6,)), x)
    assert result.dtype == np.dtype(dtype)
    assert result.tolist() == expected


def test_a_bare_word_is_the_type(image: Value) -> None:
    value = Cast.model_validate({"cast": "float16"}).flow(image)
    assert (value.dtype, value.low, value.high) == ("float16", 0, 255)


def test_bounds_that_the_type_cannot_hold_are_forgotten(image: Value) -> None:
    assert Cast(dtype="int8").flow(image).high is None
    assert Cast(dtype="int32").flow(image).high == 255


def test_it_knows_the_types_that_tensors_have() -> None:
    assert get_args(cast.Dtype) == get_args(schema.Dtype)


def test_bytes_cannot_be_cast() -> None:
    with pytest.raises(FlowError) as caught:
        Cast(dtype="uint8").flow(Value("encoded"))
    assert "decode_image" in caught.value.hint


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("wanted", ["uint8", "int8", "int32", "int64", "bool", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_execution_gives_the_same(executions: RunStep, wanted: Any, dtype: str) -> None:
    x = np.array([-1e30, -1.5, -0.5, 0, 2.9, 127.5, 255.5, 300, 3e9, 1e30, np.nan], dtype)
    x = x if wanted != "float16" else x[1:7]
    found = executions(Cast(dtype=wanted), Value("tensor", dtype, (11,)), x)
    assert np.array_equal(found["python"], found["reference"])
    assert np.array_equal(found["graph"], found["reference"])
    assert found["graph"].dtype == found["python"].dtype == np.dtype(wanted)
