"""The first request: one file through HTTP, and its answer."""

from __future__ import annotations

import json
import mimetypes
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from serve.guard import KEYS, KEYS_FILE
from specs.errors import ServeError

__all__ = ["ask", "curl", "fetch_json"]

TIMEOUT_S = 60.0
FEW = 16
"""Numbers that a person still reads on a command line."""
_FILES = {"image": "IMAGE.png", "audio": "SOUND.wav"}


def ask(url: str, model: str, file: Path, key: str = "") -> Any:  # noqa: ANN401 - an answer: any JSON value
    """The answer to the bytes of ``file``. Raises ServeError where the server refuses them."""
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    try:
        body = file.read_bytes()
    except OSError as error:
        raise ServeError(f"{file} cannot be read: {error.strerror}", code="try") from error
    return fetch_json(f"{url}/models/{model}/predict", body, kind, key)["answer"]


def fetch_json(
    url: str, body: bytes | None = None, kind: str = "", key: str = ""
) -> dict[str, Any]:
    """The JSON object at ``url``, posted to where there is a body.

    Raises:
        ServeError: ``unauthorized`` where the server wants another API key; ``try`` otherwise.
    """
    headers = {"Content-Type": kind, "x-api-key": key}
    request = urllib.request.Request(url, body, {k: v for k, v in headers.items() if v})  # noqa: S310 - our own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            return cast("dict[str, Any]", json.load(response))
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from error
    except (OSError, ValueError) as error:
        raise ServeError(f"{url}: {error}", code="try") from error


def _refused(url: str, error: urllib.error.HTTPError) -> ServeError:
    if error.code == HTTPStatus.UNAUTHORIZED:
        message = f"{url} does not take this command's API key"
        hint = f"give the replicas and this command the same {KEYS} or {KEYS_FILE}"
        return ServeError(message, hint=hint, code="unauthorized")
    return ServeError(f"{url}: HTTP {error.code}: {error.read()[:500]!r}", code="try")


def curl(url: str, card: dict[str, Any], *, key: bool = False) -> str:
    """A command line that asks the model of a card in ``GET /models``.

    Args:
        url: of the application.
        card: the model's.
        key: whether a key is needed; it stands there as ``$KEY``, since terminals are kept.
    """
    command = 'curl -H "x-api-key: $KEY"' if key else "curl"
    return f"{command} {_data(card)} {url}/models/{card['name']}/predict"


def _data(card: dict[str, Any]) -> str:
    if card["takes"] in _FILES:
        return f"--data-binary @{_FILES[card['takes']]}"
    inputs = {name: _zeros(tensor["shape"][1:]) for name, tensor in card["inputs"].items()}
    if any(value is None for value in inputs.values()):
        return "--data-binary @INPUT.npy"
    return f"-d '{json.dumps(inputs if len(inputs) > 1 else next(iter(inputs.values())))}'"


def _zeros(shape: list[int | str]) -> Any:  # noqa: ANN401 - nested lists, or None where many
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    value: Any = 0.0
    count = 1
    for size in reversed(sizes):
        value, count = [value] * size, count * size
    return value if count <= FEW else None
