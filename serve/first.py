"""The first request: one file through HTTP, and its answer."""

from __future__ import annotations

import json
import mimetypes
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

from specs.errors import ServeError

__all__ = ["ask", "curl", "fetch_json"]

TIMEOUT_S = 60.0
FEW = 16
"""Numbers that a person still reads on a command line."""


def ask(url: str, model: str, file: Path) -> Any:  # noqa: ANN401 - an answer: any JSON value
    """The answer to the bytes of ``file``. Raises ServeError where the server refuses them."""
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    try:
        body = file.read_bytes()
    except OSError as error:
        raise ServeError(f"{file} cannot be read: {error.strerror}", code="try") from error
    return fetch_json(f"{url}/models/{model}/predict", body, kind)["answer"]


def fetch_json(url: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
    """The JSON object at ``url``, posted to where there is a body."""
    request = urllib.request.Request(url, body, {"Content-Type": kind} if kind else {})  # noqa: S310 - our own URL
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            return cast("dict[str, Any]", json.load(response))
    except urllib.error.HTTPError as error:
        raise ServeError(f"{url}: HTTP {error.code}: {error.read()[:500]!r}", code="try") from error
    except (OSError, ValueError) as error:
        raise ServeError(f"{url}: {error}", code="try") from error


def curl(url: str, card: dict[str, Any]) -> str:
    """A command line that asks the model of a card in ``GET /models``."""
    address = f"{url}/models/{card['name']}/predict"
    if card["takes"] == "image":
        return f"curl --data-binary @IMAGE.png {address}"
    inputs = {name: _zeros(tensor["shape"][1:]) for name, tensor in card["inputs"].items()}
    if any(value is None for value in inputs.values()):
        return f"curl --data-binary @INPUT.npy {address}"
    data = json.dumps(inputs if len(inputs) > 1 else next(iter(inputs.values())))
    return f"curl -d '{data}' {address}"


def _zeros(shape: list[int | str]) -> Any:  # noqa: ANN401 - nested lists, or None where many
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    value: Any = 0.0
    count = 1
    for size in reversed(sizes):
        value, count = [value] * size, count * size
    return value if count <= FEW else None
