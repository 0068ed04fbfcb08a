"""Sentence embedding end to end: a text in, a vector out, over two dynamic axes."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

import runtime
from runtime.artifact import read_manifest
from runtime.predictor import Predictor
from specs.cli import main
from specs.errors import ArtifactError, InputError
from specs.loader import load_spec

pytest.importorskip("tokenizers")

TEXTS = ["Sort a list.", "Wait for the lock. " * 5, "word " * 70, "many words " * 300]
SPEC = "sentence_embedding.yaml"


@pytest.fixture(scope="module")
def artifact(
    root: Path, tmp_path_factory: pytest.TempPathFactory, build_file: Callable[..., Any]
) -> Path:
    """The spec that comes along, built once."""
    destination = tmp_path_factory.mktemp("text") / "sentence_embedding"
    build_file(root / "specs" / SPEC, destination)
    return destination


@pytest.fixture(scope="module")
def predictor(artifact: Path) -> Iterator[Predictor]:
    with runtime.load(artifact) as loaded:
        yield loaded


def _vectors(predictor: Predictor, texts: list[str]) -> np.ndarray:
    return np.stack([answer["outputs"]["vector"] for answer in predictor.predict(texts)])


def _run(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- the vectors


def test_a_text_becomes_a_vector_of_length_1(predictor: Predictor) -> None:
    found = _vectors(predictor, TEXTS)
    assert found.shape == (len(TEXTS), 128)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_figure_in_the_description_is_that_of_the_artifact_on_the_committed_pairs(
    root: Path, predictor: Predictor
) -> None:
    with (root / "specs/samples/sentences/pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, second = (
        _vectors(predictor, [row[side] for row in rows]) for side in ("first", "second")
    )
    right = int(((first @ second.T).argmax(axis=1) == np.arange(len(rows))).sum())
    told = re.search(
        r"Of the (\d+) .*? (\d+) have", load_spec(root / "specs" / SPEC).spec.description
    )
    assert told is not None
    assert (len(rows), right) == (int(told[1]), int(told[2]))


def test_related_sentences_are_closer_than_unrelated_ones(root: Path, predictor: Predictor) -> None:
    with (root / "specs/samples/sentences/pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, second = (
        _vectors(predictor, [row[side] for row in rows]) for side in ("first", "second")
    )
    cosines = first @ second.T
    related = np.diagonal(cosines)
    unrelated = (cosines.sum(axis=1) - related) / (len(rows) - 1)
    assert (related > unrelated).mean() > 0.9


def test_padding_does_not_change_the_answer(predictor: Predictor) -> None:
    for text in TEXTS[:3]:
        item = predictor.preprocess(text)
        fill = (0, 128 - len(item["input_ids"]))
        padded = {name: np.pad(array, fill) for name, array in item.items()}
        padded["input_ids"][len(item["input_ids"]) :] = 77  # whatever stands there
        short, long = predictor.postprocess(predictor.run([item, padded]))
        assert np.allclose(short["outputs"]["vector"], long["outputs"]["vector"], atol=1e-5)


def test_texts_of_all_lengths_in_one_call_are_answered_as_each_alone(predictor: Predictor) -> None:
    texts = [*TEXTS, "Stop."]  # padded to the length of the first, whose mask differs
    together = _vectors(predictor, texts * 12)
    alone = np.concatenate([_vectors(predictor, [text]) for text in texts] * 12)
    assert np.allclose(together, alone, atol=1e-5)


def test_the_built_graph_equals_pytorch_at_every_length(artifact: Path) -> None:
    (variant,) = read_manifest(artifact).variants
    cases = {case.case.rpartition(", batch")[0]: case.max_excess for case in variant.parity}
    assert {"tokens=16", "tokens=73", "tokens=128"} < cases.keys()
    assert {f"samples tokens={size}" for size in (16, 32)} < cases.keys()
    assert max(cases.values()) < 1


# --- what is refused


@pytest.mark.parametrize(
    ("item", "code"),
    [("a" * 100_001, "too_large"), (b"bytes", "not_a_text"), ("\ud800", "bad_text")],
)
def test_what_is_no_text_or_too_long_is_refused_with_its_code(
    predictor: Predictor, item: object, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        predictor.preprocess(item)
    assert caught.value.code == code


def test_a_text_of_spaces_is_answered(predictor: Predictor) -> None:
    assert np.isfinite(_vectors(predictor, [" ", " \n"])).all()


def test_without_the_package_loading_names_it(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ArtifactError, match="needs the package tokenizers") as caught:
        runtime.load(artifact)
    assert (caught.value.code, caught.value.hint) == ("package_missing", "pip install tokenizers")


def test_a_changed_tokenizer_is_refused(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    assert "tokenizer.json" in read_manifest(copy).files
    file = copy / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace('"the"', '"teh"'), "utf-8")
    with pytest.raises(ArtifactError, match=r"tokenizer.json is not the file that was built"):
        runtime.load(copy)


def test_validate_says_where_the_tokenizer_is_missing(root: Path, tmp_path: Path) -> None:
    text = (root / "specs" / SPEC).read_text("utf-8").replace("tokenizers/sent", "tokenizers/cent")
    (tmp_path / "x.yaml").write_text(text, "utf-8")
    for name in ("models", "weights", "samples", "tokenizers"):
        (tmp_path / name).symlink_to(root / "specs" / name)
    done = _run("validate", tmp_path / "x.yaml")
    assert done.exit_code == 1
    assert "there is no file 'tokenizers/centence_embedding.json'" in done.output
    assert "did you mean 'sentence_embedding.json'?" in done.output


# --- the command line


def test_texts_come_from_the_command_line_and_from_files(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(TEXTS[0], "utf-8")
    (tmp_path / "two.json").write_text(json.dumps(TEXTS[:2]))
    (tmp_path / "form.json").write_text(json.dumps({"text": TEXTS[0]}))
    files = [tmp_path / name for name in ("one.txt", "two.json", "form.json")]
    done = _run("predict", artifact, *files, "--text", TEXTS[0], "--text", TEXTS[1], "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    sources = [entry.get("file", entry.get("text")) for entry in told]
    assert sources == [str(files[0]), str(files[1]), str(files[1]), str(files[2]), *TEXTS[:2]]
    first, second = (told[place]["answer"] for place in (1, 2))
    answers = [entry["answer"] for entry in told]
    assert np.linalg.norm(first["outputs"]["vector"]) == pytest.approx(1, abs=1e-5)
    assert answers[0] == first == answers[3] == answers[4]
    assert answers[5] == second != first


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "Größe".encode("latin-1"), "latin.txt: the text is not UTF-8"),
        ("long.txt", b"a " * 60_000, "long.txt: the text has 120000 characters"),
        ("numbers.json", b"[1]", "numbers.json: the item is int, expected a text"),
        ("none.json", b"[]", "none.json: the list of items is empty"),
        ("torn.json", b'["a', "torn.json: this is not JSON: "),
    ],
)
def test_a_file_without_a_text_is_refused_in_one_message(
    artifact: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = _run("predict", artifact, tmp_path / name)
    assert done.exit_code == 1
    assert message in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_text_that_is_refused_is_named_by_its_beginning(artifact: Path) -> None:
    done = _run("predict", artifact, "--text", "word " * 40_000)
    assert done.exit_code == 1
    assert re.search(r'"word word [^"]{,60}…": the text has 200000 characters', done.stderr)


def test_a_model_that_takes_no_text_says_what_it_takes(digits_artifact: Path) -> None:
    done = _run("predict", digits_artifact, "--text", "seven")
    assert done.exit_code == 1
    assert "digits takes pictures, no text" in done.stderr


def test_neither_file_nor_text_is_wrong_usage(artifact: Path) -> None:
    done = _run("predict", artifact)
    assert done.exit_code == 2
    assert "give files, or --text" in done.stderr
