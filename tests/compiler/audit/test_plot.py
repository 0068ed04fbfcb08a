"""The drift as a plot."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compiler.audit.plot import plot_drift
from specs.audit import Drift, LayerDrift
from specs.errors import DeploycError


def _drift(errors: list[float | None], first: int | None = None) -> Drift:
    layers = tuple(
        LayerDrift(
            name=f"t{number}",
            node=rf"n$\nope{number}$ (Conv)",
            dtype="float16",
            max_abs=error,
            relative=error,
            excess=error,
        )
        for number, error in enumerate(errors)
    )
    return Drift(
        reference="the fp32 graph",
        graph="g.onnx",
        case="random, batch 1",
        how="",
        rule="",
        layers=layers,
        first=None if first is None else f"t{first}",
    )


def _red(file: Path) -> int:
    """How many pixels have the first line's colour, and nothing else in the drawing."""
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
    return int((np.abs(pixels - (9, 105, 218)).sum(2) < 30).sum())


def test_the_first_divergence_is_marked(tmp_path: Path) -> None:
    errors: list[float | None] = [0.001, 0.002, 0.5, 0.4]
    plot_drift({"fp16": _drift(errors)}, "net", tmp_path / "plain.png")
    plot_drift({"fp16": _drift(errors, 2)}, "net", tmp_path / "marked.png")
    assert _red(tmp_path / "marked.png") > 1.3 * _red(tmp_path / "plain.png")


def test_layers_without_a_difference_and_those_that_are_not_finite_are_drawn(
    tmp_path: Path,
) -> None:
    kinds: dict[str, list[float | None]] = {"none": [], "equal": [0, 0], "odd": [0, None, 0]}
    for name, errors in kinds.items():
        plot_drift({"a": _drift(errors), "b": _drift([0.1])}, "net", tmp_path / f"{name}.png")
    assert _red(tmp_path / "equal.png") > _red(tmp_path / "none.png") + 20
    assert _red(tmp_path / "odd.png") > _red(tmp_path / "equal.png") + 10


def test_the_same_drift_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plot_drift({"fp16": _drift([0.1, 0.2], 1)}, "net", tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_place_that_cannot_be_written_and_a_format_that_is_unknown_are_told(
    tmp_path: Path,
) -> None:
    for out in (tmp_path / "missing" / "p.png", tmp_path / "p.xyz"):
        with pytest.raises(DeploycError) as caught:
            plot_drift({"fp16": _drift([0.1])}, "net", out)
        assert caught.value.code == "plot_failed"


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DeploycError) as caught:
        plot_drift({"fp16": _drift([0.1])}, "net", tmp_path / "p.png")
    assert caught.value.code == "plot_library"
    assert "deployc[build]" in caught.value.hint
