from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime import plot as module
from runtime.plot import plot
from specs.errors import DeploycError, InputError

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
    name = module._name  # pyright: ignore[reportPrivateUsage]
    assert name({"index": 1, "label": {"zh": "猫", "en": "cat"}}) == "cat"
    assert name({"index": 1, "label": {"zh": "猫", "de": "Katze"}}) == "Katze"
    assert name({"index": 1, "label": {"zh": "猫"}}) == "class 1"
    assert name({"index": 1}) == "class 1"


def test_a_picture_that_came_out_stands_beside_the_one_that_went_in(tmp_path: Path) -> None:
    result = np.full((24, 24, 3), 200, np.uint8)
    plot(None, {"image": result}, tmp_path / "alone.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "alone.png")), result)
    plot(digit(), {"image": result}, tmp_path / "both.png")
    assert Image.open(tmp_path / "both.png").width == 2 * 24 + 3 * module.MARGIN


def test_tensors_are_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DeploycError, match="nothing to draw") as caught:
        plot(None, {"outputs": {"y": np.zeros(3)}}, tmp_path / "plot.png")
    assert caught.value.code == "nothing_to_draw"


def test_an_item_or_a_file_name_that_is_no_picture_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture"):
        plot(b"text", classes(1.0), tmp_path / "plot.png")
    with pytest.raises(DeploycError, match="cannot be written") as caught:
        plot(None, classes(1.0), tmp_path / "plot.xyz")
    assert caught.value.code == "plot_failed"
