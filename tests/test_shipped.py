"""What is installed with `.[fast]` is what is built and proven: a build for every image task."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import runtime
from compiler.placement.golden_images import photo
from specs.gate import CHAIN, PLAIN_CHAIN, Gate
from specs.schema import RandomWeights, Weights

pytest.importorskip("cykooz_resizer")
pytest.importorskip("simplejpeg")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fast_resize")]
Build = Callable[..., Any]
Folder = Callable[..., Path]

SEEDED = Weights(random=RandomWeights(seed=0))
OWN = """
import numpy as np


def f(x):
    return x


def stretch(x):
    return (3.0 * x - 200).clip(0, 255).astype(np.uint8)
"""


@pytest.fixture
def fast_resize() -> None:
    """These builds use every library that is installed."""


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Folder:
    """The path of a spec that comes along, changed: ``folder(name, preprocess=...)``."""
    for part in ("models", "labels", "weights", "samples"):
        (tmp_path / part).symlink_to(root / "specs" / part)
    (tmp_path / "own.py").write_text(OWN, "utf-8")

    def write(name: str, **changes: Any) -> Path:
        whole = yaml.safe_load((root / "specs" / f"{name}.yaml").read_text("utf-8"))
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**whole, **changes}, sort_keys=False), "utf-8")
        return file

    return write


def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(300, 400)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _chains(artifact: Path) -> dict[str, float]:
    gate = _gate(artifact)
    return {g.step: g.worst for g in gate.gaps if g.step in (CHAIN, PLAIN_CHAIN)}


def _gate(artifact: Path) -> Gate:
    return runtime.load(artifact).manifest.gates[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("digits", "classes"),
        ("face_detector", "detections"),
        ("segmentation", "image"),
        ("srcnn", "image"),
    ],
)
def test_an_image_task_is_proven_with_the_fast_libraries_and_without_them(
    folder: Folder, build_file: Build, tmp_path: Path, name: str, kind: str
) -> None:
    weights = SEEDED if name == "face_detector" else None  # they come from the network
    artifact = tmp_path / "built" / name
    build_file(folder(name), artifact, weights=weights)
    chains = _chains(artifact)
    assert chains[PLAIN_CHAIN] == 0
    # The resizer rounds otherwise: it is what ran. Super-resolution takes the picture as it is.
    assert (chains[CHAIN] > 0) == (name != "srcnn")
    with runtime.load(artifact) as predictor:
        assert kind in predictor.predict([_jpeg()])[0]


@pytest.mark.parametrize("place", [1, 2])
def test_the_specs_own_code_between_the_steps_does_not_change_what_a_grey_level_is(
    folder: Folder, build_file: Build, tmp_path: Path, place: int
) -> None:
    steps: list[Any] = [{"decode_image": {"mode": "L"}}, {"resize": {"size": [8, 8]}}]
    steps.insert(place, {"python": {"file": "own.py", "function": "f"}})
    steps += [{"normalize": {"scale": 255}}, {"layout": "CHW"}]
    build_file(folder("digits", preprocess=steps), tmp_path / "built")
    assert _chains(tmp_path / "built")[CHAIN] == pytest.approx(1, rel=1e-4)


def test_what_the_specs_own_code_makes_of_a_rounding_is_shown_and_no_fault_of_the_build(
    folder: Folder, build_file: Build, tmp_path: Path
) -> None:
    own = {"python": {"file": "own.py", "function": "stretch"}}
    steps = [{"decode_image": {"mode": "L"}}, {"resize": {"size": [8, 8]}}, own]
    steps += [{"normalize": {"scale": 255}}, {"layout": "CHW"}]
    verify = {"samples": ["samples/digits/digit_7.png"]}
    build_file(folder("digits", preprocess=steps, verify=verify), tmp_path / "built")
    gate = _gate(tmp_path / "built")
    worst = {gap.step: gap for gap in gate.gaps}
    assert worst[CHAIN].worst > 1
    assert gate.unbounded(worst[CHAIN]) == "through the spec's own code"
    assert not gate.unbounded(worst[PLAIN_CHAIN])
    assert worst[PLAIN_CHAIN].worst == 0
