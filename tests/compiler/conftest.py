"""What the compiler's tests share: a tiny model in a folder of its own, and its spec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specs.errors import DeploycError

BuildSpec = Callable[..., Any]

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(4, width)

    def forward(self, x):
        return self.linear(x)


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        nn.init.uniform_(self.bn.running_mean)
        nn.init.uniform_(self.bn.running_var, 0.5, 1.5)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(36, 3)

    def forward(self, x):
        first = self.relu(self.bn(self.conv(x)))
        return self.head(torch.flatten(self.pool(self.conv2(first) + first), 1))


def make(width: int = 3):
    return Net(width)
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """``net.py`` with the classes Net (4 -> 3 numbers) and Conv (1 x 8 x 8 -> 3)."""
    file = tmp_path / "net.py"
    file.write_text(NET, "utf-8")
    return file


@pytest.fixture
def spec(net: Path) -> Callable[..., dict[str, Any]]:
    """The spec of Net, with the quick exporter; a part given as None is left out."""

    def make(**parts: Any) -> dict[str, Any]:
        whole: dict[str, Any] = {
            "version": 1,
            "name": "net",
            "model": {"python": {"file": net.name, "object": "Net"}},
            "inputs": {"x": {"shape": ["batch", 4]}},
            "outputs": {"y": {"shape": ["batch", 3]}},
            "dynamic_axes": {"batch": {"min": 1, "opt": 4, "max": 8}},
            "export": {"exporter": "torchscript"},
            **parts,
        }
        return {key: value for key, value in whole.items() if value is not None}

    return make


@pytest.fixture
def conv_spec(spec: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The spec of Conv."""

    def make(**parts: Any) -> dict[str, Any]:
        model = {"python": {"file": "net.py", "object": "Conv"}}
        return spec(**{"model": model, "inputs": {"x": {"shape": ["batch", 1, 8, 8]}}, **parts})

    return make


@pytest.fixture
def refused(build_spec: BuildSpec) -> Callable[..., DeploycError]:
    """The error with which a build of a spec ends; it must end with one."""

    def run(data: dict[str, Any], **options: Any) -> DeploycError:
        with pytest.raises(DeploycError) as caught:
            build_spec(data, **options)
        return caught.value

    return run
