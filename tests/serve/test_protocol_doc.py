"""``docs/protocol.md``: every route, header, status and method in it is there, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve import guard, oip_grpc, oip_messages, reading
from serve.http import http_app
from serve.model import Model, Options
from serve.oip_tensors import DATATYPES

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
VERSION = "/versions/{version}"


def test_every_route_of_the_protocol_is_told_and_no_other(
    make_predictor: Callable[..., Any],
) -> None:
    app: Any = http_app([Model(make_predictor(), Options("twice"))])
    routes = {
        f"{next(iter(route.methods - {'HEAD'}))} {route.path}"
        for route in app.routes
        if route.path.startswith("/v2") and VERSION not in route.path
    }
    assert set(re.findall(r"`((?:GET|POST) /v2[^`]*)`", TEXT)) == routes


def test_every_method_of_grpc_is_told() -> None:
    assert [name for name in oip_messages.method_names() if f"`{name}`" not in TEXT] == []


@pytest.mark.parametrize(
    "word",
    [
        reading.TIMEOUT_MS,
        reading.PRIORITY,
        guard.REQUEST_ID,
        guard.KEYS,
        guard.KEYS_FILE,
        oip_grpc.LISTEN,
        "serve.oip_grpc:listen_narrowly",
        *guard.OPEN,
    ],
)
def test_every_word_that_a_user_may_set_is_told(word: str) -> None:
    assert f"`{word}" in TEXT or f"{word}=" in TEXT or f"={word}" in TEXT


def test_every_status_of_grpc_is_told() -> None:
    rows = {
        int(code): row.strip()
        for codes, row in re.findall(r"^\| ([0-9, ]+) \| ([A-Z_]+) \|$", TEXT, re.MULTILINE)
        for code in codes.split(",")
    }
    told = {status: code.name for status, code in oip_grpc.CODES.items()}
    assert rows == {**told, 500: "INTERNAL"}


def test_the_datatypes_are_told() -> None:
    (line,) = re.findall(r"\*\*Datatypes\.\*\* ([^.]*)\.", TEXT)
    ends = re.findall(r"[A-Z]+[0-9]*", line)
    assert set(ends) <= {*DATATYPES}
    assert {name.rstrip("0123456789") for name in DATATYPES} == {
        n.rstrip("0123456789") for n in ends
    }
