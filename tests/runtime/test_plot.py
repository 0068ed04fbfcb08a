from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime import plot as module
from runtime._drawing import name_of
from runtime._plot_boxes import COLORS, LEAST
from runtime._plot_vector import BARS, NEGATIVE
from runtime.plot import plot
from specs.answers import answer_schema
from specs.errors import DeploycError, InputError
from specs.values import Value

BLUE = (9, 105, 218)


def classes(*values: float, kind: str = "probability") -> dict[str, Any]:
    entries = [{"index": i, kind: value, "label": f"name {i}"} for i, value in enumerate(values)]
    return {"classes": entries}


def digit() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


def bar_lengths(path: Path) -> int:
    """Width of the best class's bar in pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return int((pixels == BLUE).all(axis=2).sum(axis=1).max())


@pytest.mark.parametrize("item", [digit(), None, np.zeros((8, 8)), np.zeros((9, 500, 3), np.uint8)])
def test_classes_are_bars_beside_the_picture(item: Any, tmp_path: Path) -> None:
    out = tmp_path / "plot.png"
    plot(item, classes(0.5, 0.3, 0.1, 0.05, 0.03, 0.02), out)
    assert bar_lengths(out) == pytest.approx(module.BARS / 2, abs=3)


def test_a_small_picture_is_enlarged_by_whole_pixels(tmp_path: Path) -> None:
    plot(digit(), classes(1.0), tmp_path / "plot.png")
    start, side = module.MARGIN, module.HEIGHT
    area = Image.open(tmp_path / "plot.png").crop((start, start, start + side, start + side))
    expected = Image.open(io.BytesIO(digit())).convert("RGB").resize((side, side), 0)
    assert np.array_equal(np.asarray(area), np.asarray(expected))


@pytest.mark.parametrize("values", [(3.0, -1.0), (-1.0, -2.0), (0.0, 0.0), (float("nan"), 1.0)])
def test_scores_of_any_sign_can_be_drawn(values: tuple[float, ...], tmp_path: Path) -> None:
    plot(None, classes(*values, kind="score"), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_the_english_name_is_taken_else_one_that_the_font_can_draw() -> None:
    assert name_of({"index": 1, "label": {"zh": "猫", "en": "cat"}}) == "cat"
    assert name_of({"index": 1, "label": {"zh": "猫", "de": "Katze"}}) == "Katze"
    assert name_of({"index": 1, "label": {"zh": "猫"}}) == "class 1"
    assert name_of({"index": 1}) == "class 1"


def test_a_picture_that_came_out_stands_beside_the_one_that_went_in(tmp_path: Path) -> None:
    result = np.full((24, 24, 3), 200, np.uint8)
    plot(None, {"image": result}, tmp_path / "alone.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "alone.png")), result)
    plot(digit(), {"image": result}, tmp_path / "both.png")
    assert Image.open(tmp_path / "both.png").width == 2 * 24 + 3 * module.MARGIN


def found(*boxes: tuple[float, float, float, float]) -> dict[str, Any]:
    entries = [
        {"index": index, "label": f"name {index}", "score": 0.9 - index / 10, "box": list(box)}
        for index, box in enumerate(boxes)
    ]
    return {"detections": entries}


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB"))


def where(path: Path, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels of one colour."""
    rows, columns = np.nonzero((pixels(path) == color).all(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


@pytest.mark.parametrize("side", [320, 640])
def test_a_detection_is_framed_on_the_picture_in_the_colour_of_its_class(
    side: int, tmp_path: Path
) -> None:
    picture = np.full((side, side, 3), 128, np.uint8)
    box = (side / 4, side / 2, side * 3 / 4, side * 7 / 8)
    plot(picture, found(box, (0, 0, 9, 9)), tmp_path / "plot.png")
    assert pixels(tmp_path / "plot.png").shape == (LEAST, LEAST, 3)
    left, top, right, bottom = where(tmp_path / "plot.png", COLORS[0])
    tag = 26
    assert (left, right, bottom) == (LEAST / 4, LEAST * 3 / 4, LEAST * 7 / 8)
    assert top == LEAST / 2 - tag
    assert where(tmp_path / "plot.png", COLORS[1])[0] == 0


def test_the_name_of_a_detection_is_never_cut_off_by_the_edge(tmp_path: Path) -> None:
    picture = np.zeros((640, 640, 3), np.uint8)
    plot(picture, found((600, 0, 700, 20)), tmp_path / "plot.png")
    left, top, right, _ = where(tmp_path / "plot.png", COLORS[0])
    assert (top, right) == (0, 639)
    assert left < 560


@pytest.mark.parametrize("size", [(9000, 30), (1, 1), (30, 9000)])
def test_a_picture_of_any_size_and_boxes_outside_of_it_can_be_drawn(
    size: tuple[int, int], tmp_path: Path
) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    answer = found((-50, -50, 20_000, 20_000), (5, 5, 5, 5), (float("nan"), 0, 1, 1))
    plot(picture, answer, tmp_path / "plot.png")
    assert max(pixels(tmp_path / "plot.png").shape) <= 1600


@pytest.mark.parametrize("answer", [found(), found((10, 20, 30, 40))])
def test_detections_are_drawn_without_the_picture_too(
    answer: dict[str, Any], tmp_path: Path
) -> None:
    plot(None, answer, tmp_path / "plot.png")
    assert pixels(tmp_path / "plot.png").size


@pytest.mark.parametrize(
    ("units", "form", "words"),
    [
        ("fraction", "xyxy", "left, top, right, bottom in fractions of the input"),
        ("image", "cxcywh", "centre x, centre y, width, height in pixels of the image"),
    ],
)
def test_boxes_that_are_elsewhere_are_not_drawn(
    units: Any, form: Any, words: str, tmp_path: Path
) -> None:
    schema = answer_schema(Value("detections", boxes=form, units=units), ())
    with pytest.raises(DeploycError, match=words) as caught:
        plot(None, found((0, 0, 1, 1)), tmp_path / "plot.png", schema)
    assert "end postprocess with - scale_boxes_back" in caught.value.hint
    schema = answer_schema(Value("detections", boxes="xyxy", units="image"), ())
    plot(None, found((0, 0, 1, 1)), tmp_path / "plot.png", schema)


def test_nothing_found_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (640, 700, 3), np.uint8)
    plot(picture, found(), tmp_path / "plot.png")
    assert np.array_equal(pixels(tmp_path / "plot.png"), picture)


def test_a_short_vector_is_bars_up_and_down(tmp_path: Path) -> None:
    plot(None, {"outputs": {"y": np.array([[1.0, -2.0, 0.5]])}}, tmp_path / "plot.png")
    _, top, _, zero = where(tmp_path / "plot.png", BLUE)
    _, below, _, bottom = where(tmp_path / "plot.png", NEGATIVE)
    assert (bottom - below) == pytest.approx(2 * (zero - top), abs=3)


def test_numbers_that_are_not_finite_leave_the_others_their_size(tmp_path: Path) -> None:
    vector = np.array([np.inf, np.nan, 1.0, -1.0])
    plot(None, {"outputs": {"y": vector}}, tmp_path / "plot.png")
    _, top, _, bottom = where(tmp_path / "plot.png", NEGATIVE)
    assert bottom - top > 100


@pytest.mark.parametrize("count", [BARS + 1, 384, 5000])
def test_a_long_vector_is_a_strip_of_colours(count: int, tmp_path: Path) -> None:
    vector = np.zeros(count, np.float32)
    vector[0], vector[1] = -3, 3
    plot(None, {"outputs": {"embedding": vector}}, tmp_path / "plot.png")
    left, top, right, bottom = where(tmp_path / "plot.png", NEGATIVE)
    assert (right - left, bottom - top) == (11, 11)
    assert where(tmp_path / "plot.png", BLUE) == (left + 12, top, right + 12, bottom)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 7])
def test_a_vector_of_any_numbers_can_be_drawn(value: float, tmp_path: Path) -> None:
    for count in (1, 3, 100):
        plot(None, {"outputs": {"y": np.full(count, value)}}, tmp_path / "plot.png")
        assert pixels(tmp_path / "plot.png").size


@pytest.mark.parametrize(
    "outputs",
    [{"y": np.zeros((3, 3))}, {"y": np.zeros(3), "z": np.zeros(3)}, {"y": np.zeros(0)}],
)
def test_tensors_that_are_no_lone_vector_are_nothing_to_draw(
    outputs: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(
        DeploycError, match="nothing to draw: the answer is the tensors y"
    ) as caught:
        plot(None, {"outputs": outputs}, tmp_path / "plot.png")
    assert caught.value.code == "nothing_to_draw"


def test_an_item_or_a_file_name_that_is_no_picture_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture"):
        plot(b"text", classes(1.0), tmp_path / "plot.png")
    with pytest.raises(DeploycError, match="cannot be written") as caught:
        plot(None, classes(1.0), tmp_path / "plot.xyz")
    assert caught.value.code == "plot_failed"
