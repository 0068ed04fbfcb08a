"""Every engine that builds keeps the contract of its base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compiler.engines as package
from compiler.engines import BuildTarget, EngineBuilder, Job, get_builder
from runtime.engines import get_engine
from specs.engines import engine_languages
from specs.errors import EngineError
from specs.plugins import members
from specs.schema import Spec

BUILDERS = members(package, EngineBuilder)
FROM_GRAPH = [builder for builder in BUILDERS if not builder.from_source]

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

each = pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.name)
from_graph = pytest.mark.parametrize("builder", FROM_GRAPH, ids=lambda builder: builder.name)


def _target(builder: type[EngineBuilder]) -> BuildTarget:
    return BuildTarget("it", builder.name, engine_languages()[builder.name].devices[0])


def _require(builder: type[EngineBuilder]) -> None:
    """Skip where the engine cannot run here."""
    try:
        get_engine(builder.name).probe(_target(builder).device)
    except EngineError as error:
        pytest.skip(f"{builder.name} cannot run here: {error.message}")


def _no_model() -> Any:
    raise AssertionError("a builder that takes the graph does not ask for the model")


@pytest.fixture
def job(tmp_path: Path) -> Callable[[type[EngineBuilder], Path], Job]:
    """The job to build a graph: into ``out``, with a folder to keep things in."""

    def make(builder: type[EngineBuilder], graph: Path) -> Job:
        for name in ("out", "keep"):
            (tmp_path / name).mkdir()
        folders = (tmp_path / "out", tmp_path / "keep")
        return Job(graph, folders[0], _target(builder), SPEC, _no_model, folders[1])

    return make


def test_every_engine_that_runs_has_one_that_builds() -> None:
    assert {builder.name for builder in BUILDERS} == set(engine_languages())


def test_an_engine_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(EngineError, match=r"no module of compiler\.engines builds 'none'"):
        get_builder("none")


@each
def test_a_fingerprint_is_plain_and_the_same_twice(builder: type[EngineBuilder]) -> None:
    found = builder.fingerprint(_target(builder))
    assert found == builder.fingerprint(_target(builder))
    assert all(isinstance(value, str) for value in found.values())
    assert found


@from_graph
def test_a_builder_writes_into_its_folder_alone_and_names_what_it_wrote(
    builder: type[EngineBuilder], linear_artifact: Path, job: Callable[..., Job]
) -> None:
    _require(builder)
    before = sorted(linear_artifact.rglob("*"))
    given = job(builder, linear_artifact / "model.onnx")
    built = builder.build(given)
    assert sorted(linear_artifact.rglob("*")) == before
    assert bool(built.file) == bool(list(given.folder.iterdir()))
    assert not built.file or (given.folder / built.file).is_file()


@from_graph
def test_a_graph_that_is_none_is_one_clear_error(
    builder: type[EngineBuilder], tmp_path: Path, job: Callable[..., Job]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError) as caught:
        builder.build(job(builder, tmp_path / "model.onnx"))
    assert "model.onnx" in caught.value.message or caught.value.code.endswith("_missing")


@from_graph
def test_what_an_engine_cannot_take_is_told_as_names_of_op_types_or_not_at_all(
    builder: type[EngineBuilder], linear_artifact: Path
) -> None:
    _require(builder)
    assert builder.unsupported(linear_artifact / "model.onnx", _target(builder)) in ((), None)
