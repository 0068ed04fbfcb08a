"""Reading YAML: plain data by the core schema of YAML 1.2, with places and within bounds."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from specs import _nodes
from specs._nodes import MAX_DEPTH, MAX_NODES, Place, YamlError
from specs._yaml import parse
from specs.errors import SpecError
from specs.loader import load_spec

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED = {
    "an empty file": (b"", "yaml_empty", 1, 1),
    "a file of comments": (b"# nothing\n", "yaml_empty", 1, 1),
    "a document without a value": (b"---\n", "yaml_empty", 1, 1),
    "a list": (b"- a\n- b\n", "yaml_mapping", 1, 1),
    "a single value": (b"\nhello\n", "yaml_mapping", 2, 1),
    "a duplicate key": (b"a: 1\nb:\n  c: 1\n  c: 2\n", "yaml_duplicate", 4, 3),
    "a key that a quoted one repeats": (b"a: 1\n'a': 2\n", "yaml_duplicate", 2, 1),
    "an integer key": (b"a:\n  1: x\n", "yaml_key", 2, 3),
    "an integer key at the top of dynamic_axes": (b"dynamic_axes: {0: a}\n", "yaml_key", 1, 16),
    "a boolean key": (b"true: x\n", "yaml_key", 1, 1),
    "a key that is a number": (b"1.5: x\n", "yaml_key", 1, 1),
    "a key that is nothing": (b"~: x\n", "yaml_key", 1, 1),
    "a key that is a list": (b"[a, b]: x\n", "yaml_key", 1, 1),
    "a key that is a mapping": (b"? {a: b}\n: x\n", "yaml_key", 1, 3),
    "a merge key": (b"a: &a {b: 1}\nc:\n  <<: *a\n", "yaml_merge", 3, 3),
    "an alias bomb": (BOMB.encode(), "yaml_size", 0, 0),
    "a value that holds itself": (b"a: &a [*a]\n", "yaml_alias", 1, 8),
    "an alias without its anchor": (b"a: *b\n", "yaml_alias", 1, 4),
    "a tab that indents": (b"a:\n\tb: 1\n", "yaml_tab", 2, 1),
    "a tab after blanks": (b"a:\n  \tb: 1\n", "yaml_tab", 2, 3),
    "a binary file": (b"\x89PNG\r\n\x1a\n\x00\x00", "yaml_encoding", 1, 1),
    "a NUL": (b"a: b\x00\n", "yaml_character", 1, 5),
    "Latin-1": ("a: b\nc: é\n".encode("latin-1"), "yaml_encoding", 2, 4),
    "UTF-16": ("a: b\n".encode("utf-16"), "yaml_encoding", 1, 1),
    "two documents": (b"a: 1\n---\nb: 2\n", "yaml_documents", 2, 1),
    "a Python tag": (b"a: !!python/object/apply:os.system [ls]\n", "yaml_tag", 1, 4),
    "a tag of one's own": (b"a: !mine b\n", "yaml_tag", 1, 4),
    "too deep brackets": (b"a: " + b"[" * 200_000, "yaml_depth", 1, 3 + MAX_DEPTH),
    "too deep mappings": (b"a: " + b"{a: " * 60, "yaml_depth", 1, 0),
    "too many values": (b"a: [" + b"1," * MAX_NODES + b"1]", "yaml_size", 1, 0),
    "a bracket that is not closed": (b"a: [1, 2\nb: 3\n", "yaml_syntax", 2, 0),
    "a colon in plain text": (b"a: b: c\n", "yaml_syntax", 1, 5),
    "text that starts with an at sign": (b"a: @b\n", "yaml_syntax", 1, 4),
    "a future version of YAML": (b"%YAML 3.0\n---\na: 1\n", "yaml_syntax", 1, 1),
    "an anchor nested by aliases": (
        b"a: &a " + b"[" * 40 + b"]" * 40 + b"\nb: " + b"[" * 20 + b"*a" + b"]" * 20,
        "yaml_depth",
        1,
        0,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_each_of_these_is_one_clear_error_at_its_place(name: str, tmp_path: Path) -> None:
    raw, code, line, column = REFUSED[name]
    path = tmp_path / "spec.yaml"
    path.write_bytes(raw)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert line in (0, problem.line)
    assert column in (0, problem.column)
    assert str(problem).startswith(f"{path}:{problem.line}:{problem.column}:")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("12", 12),
        ("+12", 12),
        ("012", 12),
        ("0o14", 12),
        ("0xC", 12),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("-.inf", -math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("=", "="),
        ("|-\n  a\tb", "a\tb"),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse(f"a: {text}\n".encode()).data["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    found = parse(b"a: .nan\n").data["a"]
    assert isinstance(found, float)
    assert math.isnan(found)


def test_a_number_too_long_for_an_integer_is_read_in_no_time() -> None:
    assert parse(b"a: " + b"1" * 100_000 + b"\n").data["a"] == math.inf


def test_an_alias_repeats_its_anchor() -> None:
    data = parse(b"a: &a {x: [1, 2]}\nb: *a\nc: *a\n").data
    assert data["a"] == data["b"] == data["c"] == {"x": (1, 2)}


def test_integers_are_keys_in_torchs_notation_alone() -> None:
    assert parse(b"dynamic_axes: {input: {0: batch}}\n").data == {
        "dynamic_axes": {"input": {0: "batch"}}
    }


def test_every_wrong_key_is_told_at_once() -> None:
    with pytest.raises(YamlError) as caught:
        parse(b"a: 1\na: 2\n3: 4\n")
    assert [item.fault.code for item in caught.value.faults] == ["yaml_duplicate", "yaml_key"]


def test_places_are_those_an_editor_shows() -> None:
    document = parse("# é\na:\n  b: [x, {c: ü, d: 1}]\n".encode())
    assert document.place(("a", "b", 1, "d")) == Place(3, 20)
    assert document.place(("a", "b", 1, "d"), of_key=True) == Place(3, 17)


def test_a_mapping_is_placed_at_its_key() -> None:
    assert parse(b"a:\n  b:\n    c: 1\n").place(("a", "b")) == Place(2, 3)


def test_what_is_not_there_is_placed_at_its_parent() -> None:
    assert parse(b"x: 1\na:\n  b: 1\n").place(("a", "z", 3, "y")) == Place(2, 1)


def test_a_byte_order_mark_moves_no_place() -> None:
    assert parse(b"\xef\xbb\xbfa: 1\n").place(("a",)) == Place(1, 4)


@pytest.mark.parametrize("name", REFUSED)
def test_the_parser_in_python_refuses_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nodes, "_LOADER", yaml.SafeLoader)
    raw, code, _, _ = REFUSED[name]
    with pytest.raises(YamlError) as caught:
        parse(raw[:100_000])
    assert {item.fault.code for item in caught.value.faults} == {code}


def test_a_large_file_is_refused_without_being_parsed(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"[" * 10_000_000)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert [problem.code for problem in caught.value.problems] == ["file_size"]


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf")
@example(b"\xef\xbb\xbf\xff")
@example(b"\xc2\x85\x85")
def test_any_bytes_are_data_or_a_yaml_error(raw: bytes) -> None:
    _parse(raw)


@given(st.text(alphabet="ab:-?[]{}&*!|>'\"%@`#,\n \t0~<=.é", max_size=60))
@example("? [")
@example("a: !<\n")
@example('a: "\\U99999999"')
def test_any_text_of_yamls_own_characters_is_data_or_a_yaml_error(text: str) -> None:
    _parse(text.encode())


def _parse(raw: bytes) -> None:
    """Parse it; anything but a YamlError fails the test."""
    with contextlib.suppress(YamlError):
        parse(raw)
