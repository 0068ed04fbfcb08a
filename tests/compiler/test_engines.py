"""Every engine that builds keeps the contract of its base."""

from __future__ import annotations

from pathlib import Path

import pytest

import compiler.engines as package
from compiler.engines import EngineBuilder, get_builder
from specs.engines import engine_languages
from specs.errors import EngineError
from specs.plugins import members
from specs.schema import Spec, Target

BUILDERS = members(package, EngineBuilder)

SPEC = Spec.model_validate(
    {
        "version": 1,
        "name": "linear_regression",
        "model": {"onnx": "model.onnx"},
        "inputs": {"X": {"shape": ["batch", 2]}},
        "outputs": {"Y": {"shape": ["batch", 1]}},
        "dynamic_axes": {"batch": {"min": 1, "max": 4}},
    }
)


def test_every_engine_that_runs_has_one_that_builds() -> None:
    assert {builder.name for builder in BUILDERS} == set(engine_languages())


def test_an_engine_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(EngineError, match=r"no module of compiler\.engines builds 'none'"):
        get_builder("none")


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.name)
def test_a_fingerprint_is_plain_and_the_same_twice(builder: type[EngineBuilder]) -> None:
    target = Target(engine=builder.name)
    assert builder.fingerprint(target) == builder.fingerprint(target)
    assert any(builder.fingerprint(target).values())


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.name)
def test_a_builder_writes_into_its_folder_alone_and_names_what_it_wrote(
    builder: type[EngineBuilder], linear_artifact: Path, tmp_path: Path
) -> None:
    graph = linear_artifact / "model.onnx"
    before = sorted(linear_artifact.iterdir())
    built = builder.build(graph, tmp_path, Target(engine=builder.name), SPEC)
    assert sorted(linear_artifact.iterdir()) == before
    assert bool(built.file) == bool(list(tmp_path.iterdir()))
    assert not built.file or (tmp_path / built.file).is_file()


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.name)
def test_a_graph_that_is_none_is_one_clear_error(
    builder: type[EngineBuilder], tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"model\.onnx"):
        builder.build(tmp_path / "model.onnx", tmp_path, Target(engine=builder.name), SPEC)
