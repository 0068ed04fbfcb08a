"""What every request passes first: API keys, a request id, and headers that browsers obey."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.lag import Lag
from serve.messages import Reply, failure
from serve.pages import FOLDER
from serve.replies import path_of, plain, response
from specs.errors import ServeError

__all__ = [
    "KEYS",
    "KEYS_FILE",
    "REQUEST_ID",
    "Guard",
    "Keys",
    "check_exposure",
    "check_protected",
    "mark",
    "request_id",
    "unauthorized",
]

KEYS = "DEPLOYC_API_KEYS"
"""Keys, separated by commas."""
KEYS_FILE = "DEPLOYC_API_KEYS_FILE"
"""A file with a key on each line; empty lines and those that begin with # are none."""
MIN_KEY = 16
"""Characters; a shorter key could be guessed."""
OPEN = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no key: a load balancer has none."""
PAGE = frozenset({"", "/"})
"""And those of the page, with what lies in its folder: it tells nothing, and asks for the key."""
REQUEST_ID = "x-request-id"
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
}
"""For a page whose scripts and styles are files of this server. A route's own header wins."""


class Keys:
    """The API keys that let a request in; without any, every request is let in.

    Raises:
        ServeError: ``api_keys``, where a key is too short or not of printable ASCII.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [_checked(key) for key in keys]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Keys:
        """The keys in ``DEPLOYC_API_KEYS`` and in the file that ``DEPLOYC_API_KEYS_FILE`` names.

        Raises:
            ServeError: ``api_keys``; the file cannot be read, holds no key, or a key is too short.
        """
        listed = [key.strip() for key in environment.get(KEYS, "").split(",")]
        file = environment.get(KEYS_FILE, "")
        return cls([*filter(None, listed), *(_read(file) if file else [])])

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def first(self) -> str:
        """The key that this machine's own requests send; empty where there are none."""
        return self._keys[0].decode() if self._keys else ""

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether ``authorization: Bearer KEY`` or ``x-api-key: KEY`` names one of the keys.

        Every key is compared, and each in a time that tells nothing of where it differs.
        """
        if not self._keys:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        given = (headers.get("x-api-key") or bearer).encode("utf-8", "replace")
        matches = [hmac.compare_digest(key, given) for key in self._keys]
        return any(matches)


def _checked(key: str) -> bytes:
    if len(key) < MIN_KEY or not _ID.fullmatch(key):
        message = f"an API key has fewer than {MIN_KEY} characters, or others than printable ASCII"
        hint = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        raise ServeError(message, hint=hint, code="api_keys")
    return key.encode()


def _read(file: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(file).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        hint = f"{KEYS_FILE} names a text file with a key on each line"
        raise ServeError(f"cannot read {file}: {error}", hint=hint, code="api_keys") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:  # an empty file must not open the server
        raise ServeError(f"{file} holds no key", hint="write one on a line", code="api_keys")
    return found


def check_exposure(host: str, keys: Keys, *, allowed: bool) -> None:
    """Refuse to listen for others than this machine without keys, unless that was allowed.

    Args:
        host: where HTTP is to listen.
        keys: the API keys.
        allowed: whether the user said that anybody may use the models.

    Raises:
        ServeError: ``unprotected``.
    """
    if keys or allowed or _is_loopback(host):
        return
    message = f"{host} can be reached by others, and there are no API keys"
    hint = f"set {KEYS} or {KEYS_FILE}, listen on 127.0.0.1, or say --unprotected if it is meant"
    raise ServeError(message, hint=hint, code="unprotected")


def check_protected(keys: Keys, *, protected: bool) -> None:
    """Refuse to serve openly what was meant to be protected.

    The keys are in the environment of a process. A command that joins a cluster has one, and the
    replicas there another: both must have keys.

    Args:
        keys: those that were found where HTTP is answered.
        protected: whether there were meant to be some.

    Raises:
        ServeError: ``unprotected``.
    """
    if keys or not protected:
        return
    message = "API keys are asked for (`protected`), and this process finds none"
    hint = (
        f"set {KEYS} or {KEYS_FILE} where Ray is started on every node, or by "
        "`runtime_env: {env_vars: ...}` of the application"
    )
    raise ServeError(message, hint=hint, code="unprotected")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:  # a name, which anything may stand behind
        return False


def request_id(headers: Mapping[str, str]) -> str:
    """The client's own id, where it is short and printable; else a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def unauthorized() -> Reply:
    """The reply to a request without a key."""
    message, hint = "an API key is needed", "send Authorization: Bearer KEY, or x-api-key: KEY"
    return failure(401, "unauthorized", message, hint, {"WWW-Authenticate": "Bearer"})


class Guard:
    """ASGI middleware: refuses requests without a key, and marks every response.

    The request's id is in ``scope["state"]["request_id"]``, and comes back as ``x-request-id``; in
    ``waited_s`` stands how long it waited for this process (``serve.lag``).

    Args:
        app: what is guarded.
        keys: the API keys.
        echo_id: whether to send the id back; Ray Serve does that itself.
    """

    def __init__(self, app: ASGIApp, keys: Keys, *, echo_id: bool = True) -> None:
        self._app = app
        self._keys = keys
        self._echo_id = echo_id
        self._lag = Lag()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        state = scope.setdefault("state", {})
        state["request_id"], state["waited_s"] = request_id(asked), self._lag.seconds(asked)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                mark(headers)
                if self._echo_id:
                    headers[REQUEST_ID] = scope["state"]["request_id"]
            await send(message)

        if _is_open(path_of(scope)) or self._keys.allow(asked):
            await self._app(scope, receive, marked)
        else:
            await response(plain(scope, unauthorized()))(scope, receive, marked)


def _is_open(path: str) -> bool:
    return path in OPEN or path in PAGE or path.startswith(f"{FOLDER}/")


def mark(headers: MutableHeaders) -> None:
    """Add the headers of every response."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
