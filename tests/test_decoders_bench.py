"""``bench/decoders.py``: what it compares, and what its table says of what is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from tests.bench_modules import bench_modules


@pytest.fixture
def bench() -> Generator[Any, None, None]:
    """The script."""
    with bench_modules(["decoders"], ["processing", "processing_pipelines"]) as found:
        yield found.decoders


@pytest.fixture
def picture(bench: Any) -> bytes:
    """A small drawn JPEG."""
    from compiler.placement.golden_images import photo

    assert bench
    return importlib.import_module("processing_pipelines").encode(photo(60, 80, 1))


def test_every_decoder_that_is_here_gives_pillows_pixels(bench: Any, picture: bytes) -> None:
    wanted = bench.pillow(picture)
    exact = [each for each in bench.decoders() if each.decode and each.name != "Pillow, draft"]
    assert {each.name for each in exact} >= {"Pillow", "simplejpeg", "torchvision.io"}
    for each in exact:
        assert bench.off(each.decode(picture), wanted) == "0, 0.000", each.name


def test_a_halved_picture_is_told_by_its_size(bench: Any, picture: bytes) -> None:
    assert bench.off(bench.pillow_draft(picture), bench.pillow(picture)) == "40x30 pixels"


def test_the_worst_difference_is_in_grey_levels(bench: Any) -> None:
    wanted = np.full((2, 2, 3), 200, np.uint8)
    found = wanted.copy()
    found[0, 0, 0] = 12
    assert bench.off(found, wanted) == "188, 15.667"


def test_a_library_that_cannot_be_had_is_named_with_the_reason(bench: Any, picture: bytes) -> None:
    def missing() -> Any:
        raise RuntimeError("no C library here\nmore")

    lost = bench.opened("theirs", missing)
    every = [bench.Decoder("Pillow", bench.pillow), lost]
    rows = bench.measure(every, picture, bench.PARTS, 0.0)
    lines = bench.table("drawn", 1234, rows)
    assert lines[0] == "## drawn, 1,234 bytes"
    assert "| theirs | not run: no C library here | | |" in lines
    assert any(line.startswith("| Pillow | ") and "**1.00**" in line for line in lines)


def test_a_quick_run_writes_no_table(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["decoders.py", "--quick", "--write"])
    with pytest.raises(SystemExit) as caught:
        bench.main()
    assert caught.value.code == 2
