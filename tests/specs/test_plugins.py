"""Plug-ins are found by their place; public names are those that ``__all__`` says."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest

import specs
from specs import plugins
from specs.engines import engine_languages
from specs.ops import OPS, Op
from specs.plugins import members, packages
from specs.sources import SOURCES

FOLDER = Path(plugins.__file__).parent
MODULES = [
    info.name
    for info in pkgutil.walk_packages([str(FOLDER)], "specs.")
    if not info.name.startswith("specs.models")
]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType, None, None]:
    """A package with one op, one private module, and one module that imports an op."""
    folder = tmp_path / "more_ops"
    folder.mkdir()
    head = "from typing import ClassVar\nfrom specs.ops import Op\n\n\n"
    op = 'class {name}(Op):\n    name: ClassVar[str] = "{name}"\n    stages = frozenset()\n'
    (folder / "__init__.py").write_text("")
    (folder / "blur.py").write_text(head + op.format(name="Blur") + "\nclass Base(Op): pass\n")
    (folder / "_hidden.py").write_text(head + op.format(name="Hidden"))
    (folder / "other.py").write_text("from more_ops.blur import Blur\nfrom specs.ops import Op\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield importlib.import_module("more_ops")
    for name in [name for name in sys.modules if name.startswith("more_ops")]:
        del sys.modules[name]


def test_a_module_put_into_the_package_is_found(package: ModuleType) -> None:
    assert [kind.__name__ for kind in members(package, Op)] == ["Blur"]


def test_every_op_and_source_has_a_module_of_its_name() -> None:
    for kind in (*OPS, *SOURCES):
        assert kind.__module__.rpartition(".")[2] == kind.name


def test_names_of_ops_and_sources_are_unique() -> None:
    for kinds in (OPS, SOURCES):
        assert len({kind.name for kind in kinds}) == len(kinds)


def test_the_engine_of_this_project_is_found_through_its_entry_point() -> None:
    assert [package.__name__ for package in packages("deployc.engines")] == ["runtime.engines"]
    assert "onnxruntime" in engine_languages()


def test_specs_exports_these_names() -> None:
    assert specs.__all__ == [
        "DeploycError",
        "LoadedSpec",
        "Manifest",
        "Problem",
        "Spec",
        "SpecError",
        "json_schema",
        "load_spec",
        "spec_files",
    ]
    assert all(getattr(specs, name).__name__ == name for name in specs.__all__)


def test_specs_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod_spec'"):
        _ = specs.lod_spec  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__, key=_isort) == module.__all__
    assert all(hasattr(module, public) for public in module.__all__)
    assert module.__doc__


def _isort(name: str) -> tuple[int, str]:
    """The order of ruff's RUF022: constants, classes, the rest."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name
