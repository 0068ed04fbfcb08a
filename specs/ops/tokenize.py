"""``tokenize``: a text to the ids of its tokens, through a ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from specs.faults import Fault, raise_faults
from specs.ops._base import Emitted, Libraries, Op, Stage
from specs.ops._source import MAX_TEXT, BadInput
from specs.values import Dim, FlowError, Kind, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tokenize"]

TOKENIZER_FILE = "tokenizer.json"
"""The tokenizer's name in the artifact."""
PADDING_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")

Length = Annotated[int, Field(ge=1, le=100_000, strict=True)]
Part = Literal["ids", "mask", "types"]
Input = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _usual() -> dict[Input, Part]:
    return {"input_ids": "ids", "attention_mask": "mask"}


class Tokenize(Op):
    """Turn a text into token ids with the file that the package ``tokenizers`` reads and writes.

    Special tokens are added as the file's post-processor says. A text of more than ``max_length``
    tokens is cut; one of fewer is filled up to the next multiple of ``pad_to_multiple_of`` with
    the padding that the file names, else with its token ``[PAD]``, ``<pad>``, ``<|endoftext|>`` or
    ``</s>``. Truncation and padding that the file itself asks for give way to these options; the
    sides on which it cuts and fills are kept.
    """

    name: ClassVar[str] = "tokenize"
    shorthand: ClassVar[str] = "file"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})
    starts: ClassVar[Kind | None] = "text"
    packages: ClassVar[tuple[str, ...]] = ("tokenizers",)

    file: Annotated[str, Field(min_length=1)]
    """A ``tokenizer.json``, relative to the spec; the artifact takes it along."""
    max_length: Length = 128
    """Most tokens of a text, special ones included; a multiple of ``pad_to_multiple_of``."""
    pad_to_multiple_of: Length = 16
    """Texts are filled up to a multiple of so many tokens, so that few lengths occur and texts of
    about one length ride in one batch; ``max_length`` makes all equally long, 1 fills none up."""
    outputs: Annotated[dict[Input, Part], Field(min_length=1)] = Field(default_factory=_usual)
    """For each of the model's inputs what it gets: ``ids``; ``mask``, which is 0 where a token is
    padding; or ``types``, the segment of each token."""
    dtype: Literal["int32", "int64"] = "int64"
    """Element type of all of them."""

    @model_validator(mode="after")
    def _check(self) -> Tokenize:
        if self.max_length % self.pad_to_multiple_of:
            multiple = self.pad_to_multiple_of
            message = f"{self.max_length} is no multiple of pad_to_multiple_of, {multiple}"
            near = max(self.max_length // multiple, 1) * multiple
            raise_faults([Fault(("max_length",), "invalid", message, f"use {near}")])
        return self

    def flow(self, value: Value) -> Value:
        if value.kind != "text":
            raise FlowError(f"tokenize takes a text, found {value}", "make it the first step")
        fixed = self.pad_to_multiple_of == self.max_length
        shape: tuple[Dim, ...] = (self.max_length if fixed else "tokens",)
        part = Value("tensor", self.dtype, shape, low=0)
        return Value("tensors", fields=dict.fromkeys(self.outputs, part))

    def emit(self, value: Value) -> Emitted:
        del value
        lengths = f"{self.max_length}, {self.pad_to_multiple_of}"
        pairs = ", ".join(f'"{name}": "{part}"' for name, part in self.outputs.items())
        return Emitted(
            f'tokenize({{x}}, TOKENIZER, {{{pairs}}}, "{self.dtype}")',
            f"Turn the text into at most {self.max_length} tokens, "
            f"filled up to a multiple of {self.pad_to_multiple_of}.",
            (tokenize, load_tokenizer),
            {"TOKENIZER": f'load_tokenizer("{TOKENIZER_FILE}", {lengths})'},
            files={TOKENIZER_FILE: self.file},
        )

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        """The library's bare encoding, cut and filled up by hand."""
        del value
        from tokenizers import Tokenizer

        text = (lib.folder / self.file).read_text("utf-8")
        tokenizer: Any = Tokenizer.from_str(text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        found = tokenizer.encode(x)
        kept = _kept(found.special_tokens_mask, self.max_length, _side(text, "truncation"))
        fill = -len(kept) % self.pad_to_multiple_of
        before = fill if _side(text, "padding") == "left" else 0
        token, kind = _padding(text)
        rows = {
            "ids": (np.array(found.ids)[kept], token),
            "mask": (np.ones(len(kept)), 0),
            "types": (np.array(found.type_ids)[kept], kind),
        }
        frame = (before, fill - before)
        return {
            name: np.pad(rows[part][0], frame, constant_values=rows[part][1]).astype(self.dtype)
            for name, part in self.outputs.items()
        }


def _kept(special: list[int], most: int, side: str) -> list[int]:
    """Places of the tokens that stay: the special ones, and as many others as there is room."""
    room = most - sum(special)
    others = [place for place, is_special in enumerate(special) if not is_special]
    dropped = others[: max(len(others) - room, 0)] if side == "left" else others[room:]
    return [place for place in range(len(special)) if place not in set(dropped)]


def _side(text: str, what: Literal["padding", "truncation"]) -> str:
    asked: dict[str, Any] = json.loads(text)[what] or {}
    return str(asked.get("direction", "Right")).lower()


def _padding(text: str) -> tuple[int, int]:
    """Token id and segment of padding, from the file's own JSON."""
    data = json.loads(text)
    if data["padding"]:
        return data["padding"]["pad_id"], data["padding"]["pad_type_id"]
    known = {entry["content"]: entry["id"] for entry in data["added_tokens"]}
    return next(known[token] for token in PADDING_TOKENS if token in known), 0


def load_tokenizer(name: str, max_length: int, multiple: int) -> Any:
    """Open the tokenizer beside this file; never changed again, so safe in threads."""
    from tokenizers import Tokenizer

    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    try:
        tokenizer: Any = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{name} is no tokenizer: {error}") from error
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if special >= max_length:
        raise ValueError(f"{special} special tokens leave no room among {max_length}")
    cut: dict[str, Any] = tokenizer.truncation or {}
    padding: dict[str, Any] = tokenizer.padding or usual_padding(tokenizer, name)
    kept = ("direction", "pad_id", "pad_type_id", "pad_token")
    filling = {key: padding[key] for key in kept}
    tokenizer.enable_truncation(max_length, direction=cut.get("direction", "right"))
    tokenizer.enable_padding(pad_to_multiple_of=multiple, **filling)
    return tokenizer


def usual_padding(tokenizer: Any, name: str) -> dict[str, Any]:
    """Fill up on the right with a usual token, where the file does not say."""
    for token in PADDING_TOKENS:
        number = tokenizer.token_to_id(token)
        if number is not None:
            about = {"direction": "right", "pad_type_id": 0}
            return about | {"pad_id": number, "pad_token": token}
    message = f"{name} asks for no padding, and has none of {', '.join(PADDING_TOKENS)}"
    raise ValueError(f"{message}: call `enable_padding` before it is saved")


def tokenize(
    text: object,
    tokenizer: Any,
    outputs: dict[str, str],
    dtype: str,
) -> dict[str, NDArray[Any]]:
    """Return the text's token ids, mask and types, each [tokens], by input name."""
    encoding = tokenizer.encode(check_text(text))
    mask = encoding.attention_mask
    if not any(mask):
        hint = "send a text with at least one word"
        raise BadInput("empty_text", "the text has no tokens", hint)
    rows = {"ids": encoding.ids, "mask": mask, "types": encoding.type_ids}
    return {name: np.array(rows[part], dtype) for name, part in outputs.items()}


def check_text(text: object) -> str:
    """Refuse what is no text, empty, too long, or cannot be written as UTF-8."""
    if not isinstance(text, str):
        message = f"the item is {type(text).__name__}, expected a text"
        raise BadInput("not_a_text", message, "send a string")
    if not text:
        hint = "send a text with at least one word"
        raise BadInput("empty_text", "the text is empty", hint)
    if len(text) > MAX_TEXT:
        message = f"the text has {len(text)} characters, at most {MAX_TEXT} are taken"
        raise BadInput("too_large", message, "send a shorter text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"the text holds half of a surrogate pair at {error.start}"
        raise BadInput("bad_text", message, "send whole characters") from error
    return text
