"""The page at ``/`` for people: its routes, over the files of ``serve/page``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from serve.replies import path_of

__all__ = ["FOLDER", "page_routes"]

FOLDER = "/page"
"""Where the page's scripts, styles and pictures are."""
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By suffix; a file with another one is not served. Not ``mimetypes``: that asks the system."""
_REVALIDATE = "no-cache"
"""Kept by the browser, and asked for again with its ETag: a new version shows at once."""
_NOT_MODIFIED = 304


def page_routes() -> list[Route]:
    """The routes of the page; its files are read once, here."""
    pages = _read()
    index = pages.pop(_INDEX)

    async def root(request: Request) -> Response:
        return index.response(request)

    async def page(request: Request) -> Response:
        found = pages.get(request.path_params["file"])
        if found is None:
            raise HTTPException(404)
        return found.response(request)

    return [
        Route("/", root, methods=["GET"]),
        Route(f"{FOLDER}/{{file}}", page, methods=["GET"]),
        _NoSlash(),
    ]


@dataclass(frozen=True, slots=True)
class _Page:
    content: bytes
    media_type: str
    etag: str

    def response(self, request: Request) -> Response:
        """The file, or 304 where the browser has it already."""
        headers = {"etag": self.etag, "cache-control": _REVALIDATE}
        known = request.headers.get("if-none-match", "")
        if self.etag in {each.strip().removeprefix("W/") for each in known.split(",")}:
            return Response(status_code=_NOT_MODIFIED, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def _read() -> dict[str, _Page]:
    pages: dict[str, _Page] = {}
    for each in files("serve.page").iterdir():
        kind = _TYPES.get(PurePath(each.name).suffix)
        if kind is not None:
            content = each.read_bytes()
            pages[each.name] = _Page(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return pages


class _NoSlash(Route):
    """An application's prefix without a slash behind it, from where no relative link would work.

    The redirect is relative, too: nobody here knows the address that clients see.
    """

    def __init__(self) -> None:
        super().__init__("/", _with_slash, methods=["GET"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        here = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
        if here and not path_of(scope):
            return Match.FULL, {"endpoint": self.endpoint, "path_params": {}}
        return Match.NONE, {}


async def _with_slash(request: Request) -> Response:
    last = str(request.scope.get("root_path", "")).rpartition("/")[2]
    return RedirectResponse(f"./{last}/")
