"""What `deployc serve` prints once its applications answer, asked of a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.announce import Announcer
from serve.model import Model, Options
from specs.errors import ServeError

KEY = "0123456789abcdef"
MakePredictor = Callable[..., Any]


def config(port: int) -> dict[str, Any]:
    """A resolved one, of one application."""
    app = {"route_prefix": "/", "import_path": "serve.app:build"}
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [app]}


def announced(
    serving: Callable[..., Any], make: MakePredictor, key: str, file: Path | None = None
) -> list[str]:
    """What is printed by one who sends ``key`` to a server that wants ``KEY``."""
    said: list[str] = []
    with serving(lambda: Model(make(), Options("twice")), (KEY,)) as ports:
        Announcer(said.append, key, file).announce(config(ports.http), lambda: False)
    return said


def test_a_server_with_keys_is_asked_with_one_and_the_key_is_not_printed(
    serving: Callable[..., Any], make_predictor: MakePredictor, tmp_path: Path
) -> None:
    item = tmp_path / "item.json"
    item.write_text("[1, 2]")
    said = announced(serving, make_predictor, KEY, item)
    assert any(line.startswith('  curl -H "x-api-key: $KEY" -d') for line in said)
    assert f'{item}: {{"outputs": {{"y": [2.0, 4.0]}}}}' in said
    assert said[-1].startswith("serving at http://127.0.0.1:")
    assert KEY not in "\n".join(said)


def test_a_server_with_other_keys_is_told_at_once_and_not_waited_for(
    serving: Callable[..., Any], make_predictor: MakePredictor
) -> None:
    with pytest.raises(ServeError, match="does not take this command's API key") as caught:
        announced(serving, make_predictor, "f" * 16)
    assert caught.value.code == "unauthorized"
    assert "DEPLOYC_API_KEYS" in caught.value.hint
