"""Keys, request ids and headers, on every route."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.guard import Keys, check_exposure, check_protected
from serve.http import http_app
from serve.messages import Call, Reply
from serve.model import Model, Options
from specs.errors import ServeError

MakePredictor = Callable[..., Any]
KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
CLOSED = ("/models", "/openapi.json", "/v2", "/models/twice/stats", "/nothing", "/v2/models/twice")


def ask(predictor: Any, path: str, *keys: str, **kwargs: Any) -> httpx.Response:
    """One request, GET unless ``method`` says otherwise, to a guarded server."""

    async def main() -> httpx.Response:
        model = Model(predictor, Options("twice"))
        await model.warm_up()
        app = http_app([model], Keys(keys))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.request(kwargs.pop("method", "GET"), path, **kwargs)
        await model.close()
        return response

    return asyncio.run(main())


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": KEY + "0"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"x-api-key": "clé-clé-clé-clé-".encode("latin-1")},
    ],
)
def test_without_a_key_every_route_but_health_is_401(
    make_predictor: MakePredictor, path: str, headers: Any
) -> None:
    response = ask(make_predictor(), path, KEY, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert ("API key" in error) if path.startswith("/v2") else error["code"] == "unauthorized"


@pytest.mark.parametrize("path", OPEN)
def test_health_needs_no_key(make_predictor: MakePredictor, path: str) -> None:
    assert ask(make_predictor(), path, KEY).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {OTHER}"},
        {"x-api-key": KEY},
        {"x-api-key": OTHER},
    ],
)
def test_each_key_lets_a_request_in(make_predictor: MakePredictor, headers: Any) -> None:
    assert ask(make_predictor(), "/models", KEY, OTHER, headers=headers).status_code == 200


def test_without_keys_everybody_is_let_in(make_predictor: MakePredictor) -> None:
    assert ask(make_predictor(), "/models").status_code == 200


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(key: bytes, given: bytes) -> bool:
        compared.append(key)
        return key == given

    monkeypatch.setattr("serve.guard.hmac.compare_digest", compare)
    keys = Keys([KEY, OTHER])
    assert keys.allow({"x-api-key": KEY})
    assert compared == [KEY.encode(), OTHER.encode()]


def test_keys_come_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the robot\n\n{OTHER}\n")
    keys = Keys.from_environment(
        {"DEPLOYC_API_KEYS": f" {KEY} ,", "DEPLOYC_API_KEYS_FILE": str(file)}
    )
    assert keys.allow({"x-api-key": KEY})
    assert keys.allow({"x-api-key": OTHER})
    assert not keys.allow({"x-api-key": "# for the robot"})
    assert not Keys.from_environment({})


@pytest.mark.parametrize(
    "text", ["", "\n# nothing\n", "short", "sixteen letters é", "two words of text"]
)
def test_a_file_without_a_good_key_is_refused_and_opens_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ServeError) as caught:
        Keys.from_environment({"DEPLOYC_API_KEYS_FILE": str(file)})
    assert caught.value.code == "api_keys"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="cannot read"):
        Keys.from_environment({"DEPLOYC_API_KEYS_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_keys(host: str) -> None:
    check_exposure(host, Keys(), allowed=False)


EVERY = "0.0.0.0"  # noqa: S104 - what is refused


@pytest.mark.parametrize("host", [EVERY, "::", "192.168.1.2", "example.org", "", "localhost.me"])
def test_another_host_needs_keys_or_leave(host: str) -> None:
    check_exposure(host, Keys([KEY]), allowed=False)
    check_exposure(host, Keys(), allowed=True)
    with pytest.raises(ServeError, match="API keys") as caught:
        check_exposure(host, Keys(), allowed=False)
    assert caught.value.code == "unprotected"
    assert "--unprotected" in caught.value.hint


def test_what_is_meant_to_be_protected_needs_keys_where_it_runs() -> None:
    check_protected(Keys(), protected=False)
    check_protected(Keys([KEY]), protected=True)
    with pytest.raises(ServeError, match="finds none") as caught:
        check_protected(Keys(), protected=True)
    assert caught.value.code == "unprotected"
    assert "runtime_env" in caught.value.hint


@pytest.mark.parametrize(
    ("method", "path"), [*itertools.product(["GET"], [*OPEN, *CLOSED]), ("POST", "/models")]
)
@pytest.mark.parametrize("key", [(), (KEY,)])
def test_every_response_carries_the_headers(
    make_predictor: MakePredictor, method: str, path: str, key: tuple[str, ...]
) -> None:
    headers = ask(make_predictor(), path, *key, method=method).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-request-id"]


def test_an_error_inside_carries_the_headers_too(make_predictor: MakePredictor) -> None:
    predictor = make_predictor()

    async def main() -> httpx.Response:
        model = Model(predictor, Options("twice"))

        async def fail(call: Call) -> Reply:
            raise RuntimeError(f"inside {call}")

        model.answer = fail
        transport = httpx.ASGITransport(http_app([model], Keys()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/models/twice/predict", json=[1, 2])

    response = asyncio.run(main())
    assert response.status_code == 500
    assert "inside" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_clients_id_comes_back(make_predictor: MakePredictor) -> None:
    response = ask(make_predictor(), "/models", headers={"x-request-id": "abc-1"})
    assert response.headers.get_list("x-request-id") == ["abc-1"]


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, "é".encode()])
def test_an_id_is_made_where_there_is_none_of_use(
    make_predictor: MakePredictor, given: Any
) -> None:
    headers = {} if given is None else {"x-request-id": given}
    made = ask(make_predictor(), "/models", headers=headers).headers["x-request-id"]
    assert len(made) == 32
    assert made != given


def test_the_id_reaches_the_model(make_predictor: MakePredictor) -> None:
    async def main() -> list[str]:
        model = Model(make_predictor(), Options("twice"))
        await model.warm_up()
        seen: list[str] = []
        answer = model.answer

        async def watched(call: Any) -> Any:
            seen.append(call.request_id)
            return await answer(call)

        model.answer = watched
        transport = httpx.ASGITransport(http_app([model], Keys()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"x-request-id": "abc"}
            await client.post("/models/twice/predict", json=[1, 2], headers=headers)
            await client.post("/v2/models/twice/infer", json={}, headers=headers)
        await model.close()
        return seen

    assert asyncio.run(main()) == ["abc", "abc"]


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/page/page.js", 200), ("/page", 401)])
def test_the_files_of_the_page_need_no_key(
    make_predictor: MakePredictor, path: str, status: int
) -> None:
    assert ask(make_predictor(), path, KEY).status_code == status
