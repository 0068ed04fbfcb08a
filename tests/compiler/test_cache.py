"""The store of stages: what is there is not made again, what is torn is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from compiler.cache import StageStore, cache_folder, code_digest, versions


def _make(folder: Path) -> dict[str, Any]:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("content")
    return {"answer": 42}


def test_a_result_is_made_once_and_read_afterwards(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    first = store.run("stage", {"a": 1}, _make)
    second = store.run("stage", {"a": 1}, _make)
    assert (first.cached, second.cached) == (False, True)
    assert first.folder == second.folder
    assert first.data == second.data == {"answer": 42}


def test_other_inputs_another_stage_or_other_code_are_another_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StageStore(tmp_path)
    store.run("stage", {"a": 1}, _make)
    assert not store.run("stage", {"a": 2}, _make).cached
    assert not store.run("other", {"a": 1}, _make).cached
    monkeypatch.setattr("compiler.cache.code_digest", lambda: "changed")
    assert not store.run("stage", {"a": 1}, _make).cached


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sub/file", "changed"),
        ("sub/file", None),
        ("sub/more", "unexpected"),
        ("stage.json", None),
        ("stage.json", "torn {"),
        ("stage.json", "[]"),
        ("stage.json", '{"data": 1}'),
        ("stage.json", '{"data": 1, "files": 3}'),
        ("stage.json", "\x00"),
    ],
)
def test_a_result_that_is_not_what_was_stored_is_made_again(
    tmp_path: Path, name: str, content: str | None
) -> None:
    store = StageStore(tmp_path)
    file = store.run("stage", {}, _make).folder / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    again = store.run("stage", {}, _make)
    assert not again.cached
    assert (again.folder / "sub" / "file").read_text() == "content"
    assert store.run("stage", {}, _make).cached


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_or_is_interrupted_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        _make(folder)
        raise error

    with pytest.raises(error):
        StageStore(tmp_path).run("stage", {}, fail)
    left = [path for path in (tmp_path / "stages" / "stage").iterdir() if path.is_dir()]
    assert left == []


def test_what_a_killed_build_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    folder = store.run("stage", {}, _make).folder
    draft = folder.with_name(f".{folder.name}-killed")
    folder.rename(draft)
    store.run("stage", {}, _make)
    assert not draft.exists()


def test_two_builds_at_once_make_a_result_once(tmp_path: Path) -> None:
    made: list[int] = []

    def slow(folder: Path) -> dict[str, Any]:
        made.append(1)
        time.sleep(0.1)
        return _make(folder)

    results: list[bool] = []

    def run() -> None:
        results.append(StageStore(tmp_path).run("stage", {}, slow).cached)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert sorted(results) == [False, True, True]


def test_the_variable_names_the_cache_and_may_start_with_a_tilde(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEPLOYC_CACHE", "~/some/place")
    assert cache_folder() == Path.home() / "some" / "place"
    monkeypatch.delenv("DEPLOYC_CACHE")
    assert cache_folder().name == "deployc"


def test_what_is_not_installed_has_no_version() -> None:
    found = versions("numpy", "no-such-package-at-all")
    assert found["numpy"]
    assert found["no-such-package-at-all"] == ""


def test_the_digest_of_the_code_is_one_hash() -> None:
    assert len(code_digest()) == 64
