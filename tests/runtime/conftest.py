"""What the runtime's tests share: small artifacts of every kind, built once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

NET = """
import torch


class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class Two(torch.nn.Module):
    def forward(self, a, b):
        return a + b.sum(1, keepdim=True).float(), b * 2
"""

TWICE: dict[str, Any] = {
    "version": 1,
    "name": "twice",
    "model": {"python": {"file": "net.py", "object": "Twice"}},
    "inputs": {"x": {"shape": ["batch", 3]}},
    "outputs": {"y": {"shape": ["batch", 3]}},
    "dynamic_axes": {"batch": {"min": 1, "opt": 2, "max": 4}},
    "export": {"exporter": "torchscript"},
}
FIXED: dict[str, Any] = {
    **TWICE,
    "inputs": {"x": {"shape": [4, 3]}},
    "outputs": {"y": {"shape": [4, 3]}},
    "dynamic_axes": {},
}
WIDE: dict[str, Any] = {
    **TWICE,
    "inputs": {"x": {"shape": ["batch", "width"]}},
    "outputs": {"y": {"shape": ["batch", "width"]}},
    "dynamic_axes": {**TWICE["dynamic_axes"], "width": {"min": 2, "opt": 3, "max": 6}},
}
LEAST: dict[str, Any] = {**TWICE, "dynamic_axes": {"batch": {"min": 3, "opt": 4, "max": 5}}}
TWO: dict[str, Any] = {
    **TWICE,
    "model": {"python": {"file": "net.py", "object": "Two"}},
    "inputs": {"a": {"shape": ["batch", 3]}, "b": {"shape": ["batch", 2], "dtype": "int64"}},
    "outputs": {
        "total": {"shape": ["batch", 3]},
        "double": {"shape": ["batch", 2], "dtype": "int64"},
    },
}
KINDS = {"twice": TWICE, "fixed": FIXED, "wide": WIDE, "least": LEAST, "two": TWO}

Artifact = Callable[[str], Path]


def _text(spec: dict[str, Any]) -> str:
    return yaml.safe_dump(spec, sort_keys=False)  # the order of inputs and outputs counts


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory, build_file: Callable[..., Any]) -> Artifact:
    """An artifact by its kind: twice, fixed, wide, least or two. Not to be changed."""
    root = tmp_path_factory.mktemp("runtime")
    (root / "net.py").write_text(NET)

    def make(kind: str) -> Path:
        if not (root / kind).exists():
            (root / f"{kind}.yaml").write_text(_text({**KINDS[kind], "name": kind}))
            build_file(root / f"{kind}.yaml", root / kind)
        return root / kind

    return make


@pytest.fixture
def copied(artifact: Artifact, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an artifact, to be spoilt."""

    def copy(kind: str) -> Path:
        shutil.copytree(artifact(kind), tmp_path / kind)
        return tmp_path / kind

    return copy
