"""Steps of pre- and post-processing fit each other and the model."""

# ruff: noqa: E501 - tables read best with one row on a line

from __future__ import annotations

from collections.abc import Callable

import pytest

from specs.errors import Problem
from specs.values import Value, dims_fit

Problems = Callable[..., list[Problem]]

GOOD = "[decode_image, {resize: {size: [8, 8]}}, {normalize: {scale: 255}}, {layout: CHW}]"

SCALED = "{normalize: {scale: 255, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}"


def test_a_resize_behind_normalize_can_be_meant(problems: Problems) -> None:
    steps = f"[decode_image, {SCALED}, {{resize: {{size: [8, 8]}}}}, {{layout: CHW}}]"
    assert problems(preprocess=steps) == []
    framed = steps.replace("size: [8, 8]", "letterbox: [8, 8], fill: -1")
    assert problems(preprocess=framed) == []


def test_scores_that_were_scaled_may_go_through_softmax(problems: Problems) -> None:
    assert problems(postprocess="[sigmoid, {scale: 4}, softmax]") == []


def test_steps_that_end_in_the_models_input_fit(problems: Problems) -> None:
    assert problems(preprocess=GOOD, postprocess="[softmax, {top_k: 3}]") == []


WRONG = [
    ({"preprocess": "[{layout: CHW}]"}, "preprocess[0].layout", "step_order"),
    ({"preprocess": "[softmax]"}, "preprocess[0]", "step_stage"),
    ({"preprocess": GOOD.replace("8, 8", "9, 9")}, "preprocess[3]", "preprocess_shape"),
    ({"preprocess": GOOD.replace("CHW}]", "CHW}, {cast: float16}]")}, "preprocess[4]", "preprocess_dtype"),
    ({"preprocess": "[{resize: {size: [8, 8]}}]"}, "preprocess[0].resize", "step_order"),
    ({"preprocess": "[{scale: 2}, decode_image]"}, "preprocess[1].decode_image", "step_order"),
    ({"postprocess": "[{center_crop: 3}]"}, "postprocess[0]", "step_stage"),
    ({"postprocess": "[argmax, softmax]"}, "postprocess[1].softmax", "step_order"),
    ({"postprocess": "[{top_k: 11}]"}, "postprocess[0].top_k", "step_order"),
    ({"postprocess": "[softmax, softmax]"}, "postprocess[1].softmax", "step_order"),
    ({"postprocess": "[sigmoid, softmax]"}, "postprocess[1].softmax", "step_order"),
    ({"postprocess": "[softmax, {clip: {min: 0.1}}, sigmoid]"}, "postprocess[2].sigmoid", "step_order"),
    ({"preprocess": f"[decode_image, {SCALED}, {{resize: {{letterbox: [8, 8]}}}}, {{layout: CHW}}]"}, "preprocess[2].resize", "step_order"),
    ({"preprocess": f"[decode_image, {SCALED}, {{pad: {{all: 1, fill: 114}}}}, {{layout: CHW}}]"}, "preprocess[2].pad", "step_order"),
    (
        {"preprocess": GOOD, "inputs": "{a: {shape: [batch, 3, 8, 8]}, b: {shape: [batch, 1]}}"},
        "preprocess[3]",
        "preprocess_inputs",
    ),
    (
        {"postprocess": "[softmax]", "outputs": "{a: {shape: [batch, 3]}, b: {shape: [batch, 1]}}"},
        "postprocess[0].softmax",
        "step_order",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sections", "path", "code"), WRONG)
def test_a_step_that_does_not_fit_is_told_where_it_stands(
    problems: Problems, sections: dict[str, str], path: str, code: str
) -> None:
    (problem,) = problems(**sections)
    assert (problem.path, problem.code) == (path, code)
    assert problem.line > 0


def test_both_stages_are_checked_at_once(problems: Problems) -> None:
    found = problems(preprocess="[softmax]", postprocess="[decode_image]")
    assert [problem.path for problem in found] == ["preprocess[0]", "postprocess[0]"]


@pytest.mark.parametrize(
    ("have", "want", "fits"),
    [
        ((3, 8, 8), (3, 8, 8), True),
        ((3, 8, 8), (3, "height", "width"), True),
        ((3, "height", "width"), (3, "h", "w"), True),
        ((3, "height", "width"), (3, 8, 8), False),
        ((3, 8), (3, 8, 8), False),
    ],
)
def test_a_size_fits_a_name_but_a_name_fits_no_size(
    have: tuple[int | str, ...], want: tuple[int | str, ...], *, fits: bool
) -> None:
    assert dims_fit(have, want) is fits


def test_a_value_reads_as_people_say_it() -> None:
    assert str(Value("image", "uint8", (8, 8, 3), "HWC", "RGB")) == "RGB HWC image uint8 [8, 8, 3]"
    assert str(Value("encoded")) == "the bytes of an image file"
