"""Bare uvicorn, one worker: an ASGI function that reads the body and answers its length."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from pipeline import announce


async def echo(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The application."""
    del scope
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    answer = json.dumps({"bytes": size}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main() -> None:
    """Serve until a signal."""
    port = int(sys.argv[1])
    announce(f"http://127.0.0.1:{port}", "/")
    app: Any = echo
    uvicorn.run(app, host="127.0.0.1", port=port, lifespan="off", log_level="error")


if __name__ == "__main__":
    main()
