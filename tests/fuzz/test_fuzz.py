"""What fuzzing found stays refused; and every test run fuzzes for a few seconds more."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.placement.golden_images import golden_images

HERE = Path(__file__).parent
CORPUS = HERE / "corpus" / "image"
SECONDS = 10
"""Of fuzzing by coverage in a test run; ``fuzz_image.py`` takes any time by hand."""


def _harness() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_image", HERE / "fuzz_image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HARNESS = _harness()
MODULES: list[ModuleType] = HARNESS.modules()
IMAGES = golden_images()


@pytest.mark.parametrize("file", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_was_found_is_refused_or_taken(file: Path) -> None:
    for module in MODULES:
        HARNESS.check(module, file.read_bytes())


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_no_file_cut_short_raises_anything_but_a_refusal(name: str) -> None:
    content = IMAGES[name]
    for cut in (0, 1, 2, 8, 30, len(content) // 3, len(content) // 2, len(content) - 1):
        for module in MODULES:
            HARNESS.check(module, content[:cut])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(IMAGES)),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_no_damaged_file_raises_anything_but_a_refusal(
    name: str, edits: list[tuple[int, int]]
) -> None:
    content = bytearray(IMAGES[name])
    for place, value in edits:
        content[place % len(content)] = value
    for module in MODULES:
        HARNESS.check(module, bytes(content))


def test_the_harness_tells_a_finding_from_a_refusal() -> None:
    broken = ModuleType("broken")

    def preprocess(_: bytes) -> dict[str, Any]:
        raise ZeroDivisionError

    vars(broken).update(preprocess=preprocess, BadInput=MODULES[0].BadInput)
    with pytest.raises(ZeroDivisionError):
        HARNESS.check(broken, b"")

    def small(_: bytes) -> dict[str, Any]:
        return {"input": np.zeros((3, 8, 8))}

    vars(broken).update(preprocess=small)
    with pytest.raises(AssertionError):
        HARNESS.check(broken, b"")


def test_fuzzing_by_coverage_finds_nothing_in_a_few_seconds(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for name, content in IMAGES.items():
        if len(content) < 20_000:
            (seeds / name).write_bytes(content)
    done = subprocess.run(
        [
            sys.executable,
            HERE / "fuzz_image.py",
            seeds,
            f"-max_total_time={SECONDS}",
            f"-artifact_prefix={tmp_path}/",
            "-timeout=20",
            # libFuzzer reads the peak from getrusage, which counts this process's memory as well.
            "-rss_limit_mb=0",
            "-max_len=20000",
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS * 12,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("crash-*")), done.stderr[-3000:]
