"""``bench/processing.py``: its ratios, its table, and the pipelines that it measures."""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bench_modules import bench_modules

MODULES = ("processing", "processing_pipelines", "processing_drift")


@pytest.fixture
def pipelines() -> Generator[Any, None, None]:
    """The module with the pipelines."""
    with bench_modules(["processing_pipelines"], MODULES) as found:
        yield found.processing_pipelines


@pytest.fixture
def bench() -> Generator[Any, None, None]:
    """The script itself."""
    with bench_modules(["processing"], MODULES) as found:
        yield found.processing


@pytest.fixture
def picture(pipelines: Any) -> bytes:
    """A small drawn JPEG."""
    from compiler.placement.golden_images import photo

    return pipelines.encode(photo(300, 400, 1))


def test_a_ratio_is_taken_within_a_stretch_so_that_a_slow_one_changes_nothing(bench: Any) -> None:
    times, base = [1.0, 1.0, 10.0, 10.0, 1.0], [2.0, 2.0, 20.0, 20.0, 2.0]
    assert bench.compared(times, base) == (2.0, 2.0, 2.0)


def test_samples_that_other_work_made_longer_do_not_count(bench: Any) -> None:
    disturbed = [1.0, 2.0, 2.0, 2.0] * bench.PARTS
    assert bench.compared(disturbed, [3.0] * len(disturbed)) == (3.0, 3.0, 3.0)


def test_the_spread_shows_stretches_that_disagree(bench: Any) -> None:
    middle, low, high = bench.compared([1.0] * bench.PARTS, [1.0, 2.0, 4.0, 2.0, 2.0])
    assert (middle, low, high) == (2.0, 1.0, 4.0)


def test_every_pipeline_is_timed_in_every_round(bench: Any) -> None:
    calls: list[bytes] = []
    times = bench.rounds({"a": calls.append, "b": len}, b"file", least=3, seconds=0)
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}
    assert set(calls) == {b"file"}


def test_rounds_go_on_until_the_time_is_spent(bench: Any) -> None:
    start = time.process_time()
    times = bench.rounds({"a": len}, b"", least=1, seconds=0.05)
    assert time.process_time() - start >= 0.05
    assert len(times["a"]) > 1


def test_what_did_not_run_says_why_in_the_table(bench: Any) -> None:
    rows = [bench.Row("theirs", fault="not installed"), bench.Row("ours", 2.0, (3, 2.5, 3.5), 1.5)]
    lines = bench.table("drawn", 1234, rows)
    assert "| theirs | not run: not installed | | | |" in lines
    assert "| ours | 2 | **3.00** (2.50 to 3.50) | 1.50 | 0.0, 0.000 |" in lines


def test_pictures_are_the_same_for_a_seed_and_others_for_another(
    pipelines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "SIZES", {"tiny": (30, 40)})
    assert pipelines.synthetic(0) == pipelines.synthetic(0)
    assert pipelines.synthetic(0) != pipelines.synthetic(1)


def test_pictures_are_jpegs_with_halved_chroma_of_the_size_that_their_name_says(
    pipelines: Any, picture: bytes
) -> None:
    layers: Any = vars(Image.open(io.BytesIO(picture)))["layer"]
    assert [layer[1:3] for layer in layers] == [(2, 2), (1, 1), (1, 1)]
    assert pipelines.SIZES["4000x3000"] == (3000, 4000)


def test_torchvision_and_pillow_by_hand_give_the_references_pixels(
    pipelines: Any, picture: bytes
) -> None:
    pytest.importorskip("torchvision")
    wanted = pipelines.reference(picture)
    for each in list(pipelines.by_hand())[:2]:
        found = each.run(picture)
        assert (found.shape, found.dtype) == ((3, 224, 224), np.float32)
        assert found.flags.c_contiguous
        assert pipelines.levels(found, wanted)[0] <= 1.001, each.name


def test_a_grey_level_counts_as_one_whatever_the_channels_deviation(pipelines: Any) -> None:
    zeros = np.zeros((3, 2, 2), np.float32)
    one = zeros + (1 / 255 / pipelines.STD)[:, None, None]
    assert pipelines.levels(one, zeros) == pytest.approx((1.0, 1.0), rel=1e-5)


def test_the_floor_decodes_the_file_and_nothing_shorter(pipelines: Any, picture: bytes) -> None:
    pipelines.floor(picture)()
    with pytest.raises((ValueError, OSError)):
        pipelines.floor(picture[: len(picture) // 2])()


def test_a_blocked_library_is_not_found_by_generated_code(pipelines: Any, tmp_path: Path) -> None:
    file = tmp_path / "processing.py"
    file.write_text("LIBRARIES = {}\n", "utf-8")
    assert pipelines.load(file, ("simplejpeg",)).LIBRARIES == {"simplejpeg": None}
    assert pipelines.load(file).LIBRARIES == {}


def test_the_page_has_a_table_for_each_image_and_what_scaling_does_to_answers(bench: Any) -> None:
    row = {"name": "ours", "rate": 2.0, "ratio": (3, 2.5, 3.5), "above": 1.5}
    drift = {"pictures": 9, "exact": 8, "scaled": 7, "same": 6, "worst": 5.0, "mean": 0.25}
    found = {"machine": "a machine", "versions": "numpy 1", "drift": drift}
    text = bench.page({**found, "images": {"drawn": {"bytes": 1234, "rows": [row]}}})
    assert "## drawn, 1,234 bytes" in text
    assert "Machine: a machine" in text
    assert "top-1 of 8 with exact pixels, of\n7 with scaled decoding, the same class for 6." in text
    assert "at most\n5.0 of 255, 0.25 in the mean." in text


def test_samples_are_enlarged_so_that_there_is_something_to_scale_down(
    bench: Any, picture: bytes, tmp_path: Path
) -> None:
    del bench  # it put the bench's folder on the path
    drift: Any = importlib.import_module("processing_drift")
    file = tmp_path / "sample.jpg"
    file.write_bytes(picture)
    with Image.open(io.BytesIO(drift.enlarged(file))) as image:
        assert image.size == (1600, 1200)
