"""The words of quantisation and calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from specs.errors import Problem
from specs.precision import Calibration, Quantize

Problems = Callable[..., list[Problem]]
JUDGED = "{samples: spec.yaml, tolerance: {int8: {atol: 1, rtol: 1}}}"


@pytest.mark.parametrize(
    ("words", "field", "code", "hint"),
    [
        ("{mode: dynamic, method: entropy}", "method", "quantize_option", "mode: static"),
        ("{percentile: 99.0}", "percentile", "quantize_option", "method: percentile"),
        ("{method: entropy, percentile: 99}", "percentile", "quantize_option", "method: perc"),
        ("{exclude: [conv, '(']}", "exclude[1]", "regex", ""),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_at_its_place(
    problems: Problems, words: str, field: str, code: str, hint: str
) -> None:
    targets = f"[{{engine: onnxruntime, precision: int8, quantize: {words}}}]"
    (problem,) = problems(targets=targets, verify=JUDGED)
    assert (problem.path, problem.code) == (f"targets[0].quantize.{field}", code)
    assert hint in problem.hint


@pytest.mark.parametrize(
    "words",
    [{}, {"mode": "dynamic"}, {"method": "percentile", "percentile": 99.9}, {"exclude": [".*"]}],
)
def test_options_that_belong_together_are_taken_and_can_be_written_out(
    words: dict[str, Any],
) -> None:
    taken = Quantize.model_validate(words)
    assert Quantize.model_validate(taken.model_dump()) == taken


def test_one_sample_may_stand_without_a_list() -> None:
    assert Calibration.model_validate({"samples": "*.png"}).samples == ("*.png",)
