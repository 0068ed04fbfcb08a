from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from specs.ops import _source
from specs.ops import tokenize as module
from specs.ops._source import BadInput
from specs.ops.tokenize import Tokenize, check_text, load_tokenizer, tokenize
from specs.values import FlowError, Value

tokenizers: Any = pytest.importorskip("tokenizers")

Executions = Callable[..., dict[str, Any]]
TEXT = Value("text")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "sat", "on", "the", "mat"]
PARTS = {"ids": "ids", "mask": "mask", "types": "types"}


def write(folder: Path, *, special: bool = True, padding: bool = True) -> Any:
    """Write a tokenizer of a few words as ``tokenizer.json`` into ``folder``."""
    words = WORDS if padding else ["nothing", *WORDS[1:]]
    vocabulary = {word: number for number, word in enumerate(words)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")  # noqa: S106 - a word
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(words[:4] if padding else words[1:4])
    if special:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    made.save(str(folder / "tokenizer.json"))
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tokenizer, which steps read files from."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "processing.py"))
    return tmp_path


def step(**options: Any) -> Tokenize:
    return Tokenize.model_validate({"file": "tokenizer.json", "outputs": PARTS, **options})


@pytest.mark.parametrize(
    "text",
    [" ", "cat", "a cat sat", "a cat sat on the mat", "the " * 50, "Ünkñown 東京 🙂\0\n cat"],
)
@pytest.mark.parametrize(
    ("most", "multiple"), [(8, 8), (8, 4), (8, 1), (3, 3), (3, 1), (5, 5), (128, 16)]
)
@pytest.mark.usefixtures("folder")
def test_every_execution_gives_the_same(
    executions: Executions, text: str, most: int, multiple: int
) -> None:
    op = step(max_length=most, pad_to_multiple_of=multiple)
    found = executions(op, TEXT, text)
    assert found["python"].keys() == found["reference"].keys() == PARTS.keys()
    for name, array in found["python"].items():
        assert array.dtype == np.int64
        assert array.tolist() == found["reference"][name].tolist(), name
        assert len(array) % multiple == 0
        assert 0 < len(array) <= most


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_sides_on_which_the_file_cuts_and_fills_are_kept(
    executions: Executions, folder: Path, side: str
) -> None:
    made = write(folder)
    made.enable_truncation(2, direction=side)
    made.enable_padding(direction=side, pad_id=7, pad_type_id=5, pad_token="on", length=99)  # noqa: S106
    made.save("tokenizer.json")
    op = step(max_length=4, pad_to_multiple_of=4)
    cut, filled = (executions(op, TEXT, text) for text in ("a cat sat", "cat"))
    for found in (cut, filled):
        for name in PARTS:
            assert found["python"][name].tolist() == found["reference"][name].tolist(), name
    left = side == "left"
    assert cut["python"]["ids"].tolist() == ([2, 5, 6, 3] if left else [2, 4, 5, 3])
    assert filled["python"]["ids"].tolist() == ([7, 2, 5, 3] if left else [2, 5, 3, 7])
    assert filled["python"]["mask"].tolist() == ([0, 1, 1, 1] if left else [1, 1, 1, 0])


@pytest.mark.usefixtures("folder")
def test_the_model_gets_the_parts_that_it_asks_for_in_the_type_it_has() -> None:
    op = Tokenize.model_validate({"tokenize": "tokenizer.json"})
    assert op.flow(TEXT).fields.keys() == {"input_ids", "attention_mask"}
    tokenizer = load_tokenizer("tokenizer.json", 8, 8)
    found = tokenize("a cat", tokenizer, {"x": "types"}, "int32")
    assert found["x"].tolist() == [0, 1, 1, 1, 0, 0, 0, 0]
    assert found["x"].dtype == np.int32


def test_the_length_is_open_until_every_text_is_filled_up_to_the_longest() -> None:
    shapes = [
        step(max_length=32, pad_to_multiple_of=multiple).flow(TEXT).fields["ids"].shape
        for multiple in (1, 16, 32)
    ]
    assert shapes == [("tokens",), ("tokens",), (32,)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("item", "code"),
    [
        (b"a cat", "not_a_text"),
        (None, "not_a_text"),
        (["a cat"], "not_a_text"),
        (np.zeros(3), "not_a_text"),
        ("a \ud800 cat", "bad_text"),
        ("a" * (_source.MAX_TEXT + 1), "too_large"),
    ],
)
def test_what_is_no_text_is_refused_with_what_to_send(item: object, code: str) -> None:
    tokenizer = load_tokenizer("tokenizer.json", 8, 8)
    with pytest.raises(BadInput) as caught:
        tokenize(item, tokenizer, PARTS, "int64")
    assert caught.value.code == code
    assert caught.value.message
    assert caught.value.hint


def test_a_text_as_long_as_is_allowed_is_taken() -> None:
    assert check_text("a" * _source.MAX_TEXT)


def test_a_text_that_has_no_tokens_at_all_is_refused(folder: Path) -> None:
    write(folder, special=False)
    tokenizer = load_tokenizer("tokenizer.json", 8, 8)
    for text, told in (("", "the text is empty"), (" \n", "the text has no tokens")):
        with pytest.raises(BadInput, match=told) as caught:
            tokenize(text, tokenizer, PARTS, "int64")
        assert caught.value.code == "empty_text"


# --- files that cannot be used


def test_a_file_that_is_no_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json is no tokenizer: "):
        load_tokenizer("tokenizer.json", 8, 8)


def test_a_file_that_names_no_padding_says_which_tokens_are_looked_for(folder: Path) -> None:
    write(folder, padding=False)
    with pytest.raises(ValueError, match=r"none of \[PAD\], <pad>"):
        load_tokenizer("tokenizer.json", 8, 8)


@pytest.mark.usefixtures("folder")
def test_a_length_that_the_special_tokens_fill_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="2 special tokens leave no room among 2"):
        load_tokenizer("tokenizer.json", 2, 2)


# --- the spec


def test_a_longest_text_that_padding_would_exceed_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        step(max_length=100, pad_to_multiple_of=16)
    fault = caught.value.errors()[0].get("ctx", {})["faults"][0]
    assert fault["message"] == "100 is no multiple of pad_to_multiple_of, 16"
    assert fault["hint"] == "use 96"


def test_only_a_text_can_be_tokenized() -> None:
    with pytest.raises(FlowError, match="tokenize takes a text, found the bytes of an image"):
        step().flow(Value("encoded"))


def test_the_artifact_takes_the_file_along() -> None:
    assert step(file="some/where.json").emit(TEXT).files == {"tokenizer.json": "some/where.json"}


def test_its_schema_has_the_short_form() -> None:
    schema = json.dumps(Tokenize.model_json_schema())
    assert '"tokenize"' in schema
    assert Tokenize.model_validate({"tokenize": "t.json"}) == Tokenize(file="t.json")
