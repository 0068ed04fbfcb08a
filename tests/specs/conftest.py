"""A small valid spec, whose sections tests replace one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from specs.errors import Problem, SpecError
from specs.loader import LoadedSpec, load_spec

BASE: dict[str, str] = {
    "version": "1",
    "name": "net",
    "model": "{torchvision: resnet18}",
    "weights": "{random: {seed: 0}}",
    "inputs": "{input: {shape: [batch, 3, 8, 8]}}",
    "outputs": "{output: {shape: [batch, 10]}}",
    "dynamic_axes": "{batch: {min: 1, opt: 8, max: 32}}",
}


@pytest.fixture
def spec_text() -> Callable[..., str]:
    """The small spec as text, one section a line; ``section=None`` leaves one out."""

    def text(**sections: str | None) -> str:
        merged = {**BASE, **sections}
        return "".join(f"{key}: {value}\n" for key, value in merged.items() if value is not None)

    return text


@pytest.fixture
def load(tmp_path: Path, spec_text: Callable[..., str]) -> Callable[..., LoadedSpec]:
    """Load the small spec with some sections replaced."""

    def loaded(**sections: str | None) -> LoadedSpec:
        path = tmp_path / "spec.yaml"
        path.write_text(spec_text(**sections), encoding="utf-8")
        return load_spec(path)

    return loaded


@pytest.fixture
def problems(load: Callable[..., LoadedSpec]) -> Callable[..., list[Problem]]:
    """The problems of the small spec with some sections replaced; none where it is valid."""

    def found(**sections: str | None) -> list[Problem]:
        try:
            load(**sections)
        except SpecError as error:
            return list(error.problems)
        return []

    return found
