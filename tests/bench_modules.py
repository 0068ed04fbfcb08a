"""A bench's scripts as modules, for the tests that look at them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"
SERVING = (
    "_child",
    "_load",
    "_artifacts",
    "_players",
    "_serving_bodies",
    "_serving_table",
    "_serving_write",
    "serving",
)
"""The modules of ``bench/serving.py``."""


@contextmanager
def bench_modules(
    names: Sequence[str], neighbours: Sequence[str] = (), folders: Sequence[Path] = (BENCH,)
) -> Generator[Any]:
    """Modules by their names, without a leading underscore; they find what lies beside them.

    They and their ``neighbours`` are forgotten afterwards: another bench may have the same names.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*map(str, folders), *sys.path])
        found = {name.lstrip("_"): importlib.import_module(name) for name in names}
        yield SimpleNamespace(**found)
    for name in (*names, *neighbours):
        sys.modules.pop(name, None)
