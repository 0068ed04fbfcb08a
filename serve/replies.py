"""Replies -> Starlette's responses, in the form of errors that a path has."""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.responses import Response
from starlette.types import Scope

from serve.messages import Reply, json_reply

__all__ = ["PROTOCOL", "path_of", "plain", "response", "text_of"]

PROTOCOL = "/v2"
"""Where the Open Inference Protocol begins."""


def response(reply: Reply) -> Response:
    """The response that a reply stands for."""
    return Response(reply.body, reply.status, reply.headers, reply.media_type)


def path_of(scope: Scope) -> str:
    """The path below the application's own prefix."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def plain(scope: Scope, reply: Reply) -> Reply:
    """The reply in the form of the path's errors: the protocol's is ``{"error": "text"}``."""
    path = path_of(scope)
    if reply.status < 400 or not (path == PROTOCOL or path.startswith(f"{PROTOCOL}/")):  # noqa: PLR2004
        return reply
    return json_reply({"error": text_of(reply)}, reply.status, reply.headers)


def text_of(reply: Reply) -> str:
    """The message and the hint of an error, as one text."""
    error = cast("dict[str, Any]", json.loads(reply.body)["error"])
    return "; ".join(filter(None, (error["message"], error["hint"])))
