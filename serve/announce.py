"""What a person is told once the applications answer: models, how to ask each, and the URLs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.config import our_apps
from serve.first import ask, curl, fetch_json
from specs.errors import ServeError

__all__ = ["Announcer"]

HTTP_S = 60.0
"""How long HTTP may take once Ray says that the applications run."""
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Announcer:
    """Asks the running applications what they serve, and prints it.

    Args:
        say: prints a line of results.
        key: the API key to send; empty where none is needed.
        file: what to try the first model with.
    """

    say: Callable[[str], None]
    key: str = ""
    file: Path | None = None

    def announce(self, data: dict[str, Any], stopped: Callable[[], bool]) -> None:
        """Print every application of a resolved config; nothing where a signal came first.

        Raises:
            ServeError: HTTP does not answer, or not to this key.
        """
        found = {url: self._cards(url, stopped) for url in _urls(data, our_apps(data))}
        if stopped():
            return
        for url, cards in found.items():
            for card in cards:
                self._tell(url, card)
        if self.file:
            self._try(self.file, found)
        for url in _urls(data, data["applications"]):  # not ours alone: they are served, too
            self.say(f"serving at {url} (Ctrl-C stops)")

    def _try(self, file: Path, found: dict[str, list[dict[str, Any]]]) -> None:
        for url, cards in list(found.items())[:1]:
            answer = ask(url, cards[0]["name"], file, self.key)
            self.say(f"{file}: {json.dumps(answer, ensure_ascii=False)}")

    def _tell(self, url: str, card: dict[str, Any]) -> None:
        variant, name = card["variant"], card["name"]
        self.say(f"{name}: {card['description']}" if card["description"] else name)
        self.say(f"  {variant['engine']}, {variant['device']}, {variant['precision']}")
        for warning in card["warnings"]:
            self.say(f"  WARNING: {warning}")
        self.say(f"  {curl(url, card, key=bool(self.key))}")

    def _cards(self, url: str, stopped: Callable[[], bool]) -> list[dict[str, Any]]:
        """The cards of an application's models, once they are ready."""
        deadline = time.monotonic() + HTTP_S
        while not stopped():
            try:
                fetch_json(f"{url}/readyz")
                return fetch_json(f"{url}/models", key=self.key)["models"]
            except ServeError as error:
                if error.code == "unauthorized" or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
        return []


def _urls(data: dict[str, Any], apps: list[dict[str, Any]]) -> list[str]:
    """Where applications answer on this machine; one whose prefix is null has no HTTP."""
    options = data["http_options"]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options["host"], options["host"])  # noqa: S104 - compared
    start = f"http://{host}:{options['port']}{options.get('root_path', '')}"
    prefixes = [app.get("route_prefix", "/") for app in apps]
    return [start + prefix.rstrip("/") for prefix in prefixes if prefix is not None]
