"""Several images in one request, texts, and the headers of a request; in this process."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from serve.guard import Keys
from serve.http import http_app
from serve.model import Model, Options
from specs.errors import InputError
from specs.ops._source import BadInput
from specs.ops.tokenize import check_text

MakePredictor = Callable[..., Any]
URL = "/models/twice/predict"
FILES = [b"IMG", b"IMG.."]
LONG = "x" * 71


def ask(predictor: Any, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """One request to a warm model."""

    async def main() -> httpx.Response:
        model = Model(predictor, Options("twice", max_batch=8, max_items=16, threads=2))
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model], Keys()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.request(method, path, **kwargs)
        await model.close()
        return response

    return asyncio.run(main())


def lengths(response: httpx.Response) -> list[int]:
    """The predictor of these tests answers twice the length of a file."""
    assert response.status_code == 200, response.text
    return [int(answer["outputs"]["y"][0]) // 2 for answer in response.json()["answers"]]


def refused(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code


def coded(file: bytes) -> str:
    return base64.b64encode(file).decode()


def test_every_file_of_a_form_is_an_item(make_predictor: MakePredictor) -> None:
    form = [("file", ("a.png", file, "image/png")) for file in FILES]
    assert lengths(ask(make_predictor(takes="image"), "POST", URL, files=form)) == [3, 5]


def test_a_form_of_one_file_has_a_list_of_one_answer(make_predictor: MakePredictor) -> None:
    form = {"any": ("a.png", FILES[0])}
    assert lengths(ask(make_predictor(takes="image"), "POST", URL, files=form)) == [3]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\nIMG\r\n--x--"),
        ("multipart/form-data; boundary=", b"--x\r\n\r\nIMG\r\n--x--"),
        (f"multipart/form-data; boundary={LONG}", f"--{LONG}\r\n\r\nIMG\r\n--{LONG}--".encode()),
        ("multipart/form-data; boundary*=x; boundary*0=x", b"--x\r\n\r\nIMG\r\n--x--"),
        (f"multipart/form-data; boundary*{'9' * 5000}*=x", b"--x\r\n\r\nIMG\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nIMG\r\n"),
        ("multipart/form-data; boundary=x", b"--xIMG\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\nA: " + b"b" * 9000 + b"\r\n\r\n\r\n--x--"),
    ],
)
def test_a_form_without_its_boundaries_is_refused(
    make_predictor: MakePredictor, kind: str, body: bytes
) -> None:
    predictor = make_predictor(takes="image")
    response = ask(predictor, "POST", URL, content=body, headers={"content-type": kind})
    refused(response, 400, "bad_multipart")


def test_a_form_of_very_many_parts_is_refused(make_predictor: MakePredictor) -> None:
    body = b"\r\n--x" * 1_100 + b"--"
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = ask(make_predictor(takes="image"), "POST", URL, content=body, headers=headers)
    refused(response, 413, "too_large")


def test_a_model_of_tensors_takes_no_form(make_predictor: MakePredictor) -> None:
    refused(ask(make_predictor(), "POST", URL, files={"x": b"IMG"}), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind",
    ["audio/wav", "audio/x-wav", "application/octet-stream", "application/x-www-form-urlencoded"],
)
def test_the_bytes_of_a_sound_are_an_item(make_predictor: MakePredictor, kind: str) -> None:
    headers = {"content-type": kind}
    predictor = make_predictor(takes="audio")
    response = ask(predictor, "POST", URL, content=FILES[0], headers=headers)
    assert response.json()["answer"] == {"outputs": {"y": [6.0, 6.0]}}


def test_several_sounds_come_in_a_form_or_in_base64(make_predictor: MakePredictor) -> None:
    predictor = make_predictor(takes="audio")
    form = [("file", ("a.wav", file, "audio/wav")) for file in FILES]
    assert lengths(ask(predictor, "POST", URL, files=form)) == [3, 5]
    texts = [coded(file) for file in FILES]
    for body in (texts, {"audio": texts}, {"inputs": texts}, [{"base64": t} for t in texts]):
        assert lengths(ask(make_predictor(takes="audio"), "POST", URL, json=body)) == [3, 5]


@pytest.mark.parametrize("body", [[1.0, 2.0], {"image": "aGk="}, {}, []])
def test_json_that_holds_no_sound_is_refused_with_what_to_send(
    make_predictor: MakePredictor, body: Any
) -> None:
    response = ask(make_predictor(takes="audio"), "POST", URL, json=body)
    refused(response, 400, "wrong_dtype")
    assert "base64 of a WAV file" in response.json()["error"]["hint"]


@pytest.mark.parametrize(
    ("takes", "kind"),
    [
        ("audio", "image/png"),
        ("image", "audio/wav"),
        ("text", "audio/wav"),
        ("tensors", "audio/wav"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    make_predictor: MakePredictor, takes: str, kind: str
) -> None:
    headers = {"content-type": kind}
    predictor = make_predictor(takes=takes)
    refused(
        ask(predictor, "POST", URL, content=b"RIFF", headers=headers), 415, "unsupported_media_type"
    )


@pytest.mark.parametrize("wrap", ["{}", "images", "inputs", "objects", "urls"])
def test_images_come_in_base64_too(make_predictor: MakePredictor, wrap: str) -> None:
    texts = [coded(file) for file in FILES]
    body: dict[str, Any] = {
        "{}": texts,
        "images": {"images": texts},
        "inputs": {"inputs": texts},
        "objects": [{"format": "png", "base64": text} for text in texts],
        "urls": [f"data:image/png;base64,{text}" for text in texts],
    }
    assert lengths(ask(make_predictor(takes="image"), "POST", URL, json=body[wrap])) == [3, 5]


@pytest.mark.parametrize("key", ["", "image", "inputs", "base64"])
def test_one_image_in_base64_gets_one_answer(make_predictor: MakePredictor, key: str) -> None:
    text = coded(FILES[0])
    body = {key: text} if key else text
    response = ask(make_predictor(takes="image"), "POST", URL, json=body)
    assert response.json()["answer"] == {"outputs": {"y": [6.0, 6.0]}}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("!!!!", "bad_base64"),
        ("aGk", "bad_base64"),
        (["aGk=", [1]], "wrong_dtype"),
        ("ü", "bad_base64"),
    ],
)
def test_what_is_no_base64_is_refused(make_predictor: MakePredictor, body: Any, code: str) -> None:
    refused(ask(make_predictor(takes="image"), "POST", URL, json=body), 400, code)


def of_texts(make_predictor: MakePredictor) -> Any:
    """A predictor that takes texts; of each, the number of characters."""
    predictor = make_predictor(takes="text")

    def length(item: object, _out: object = None) -> dict[str, Any]:
        try:
            return {"x": np.full(2, len(check_text(item)), np.float32)}
        except BadInput as error:
            raise InputError(error.message, hint=error.hint, code=error.code) from error

    predictor.preprocess = length
    return predictor


@pytest.mark.parametrize(
    "request_",
    [
        {"content": "grün", "headers": {"content-type": "text/plain; charset=utf-8"}},
        {"content": "grün"},
        {"json": "grün"},
        {"json": {"text": "grün"}},
        {"json": {"inputs": "grün"}},
    ],
)
def test_a_text_is_one_item(make_predictor: MakePredictor, request_: dict[str, Any]) -> None:
    response = ask(of_texts(make_predictor), "POST", URL, **request_)
    assert response.status_code == 200, response.text
    assert response.json()["answer"] == {"outputs": {"y": [8.0, 8.0]}}


def test_a_text_that_looks_like_json_stays_a_text(make_predictor: MakePredictor) -> None:
    response = ask(of_texts(make_predictor), "POST", URL, content="[1]")
    assert response.json()["answer"] == {"outputs": {"y": [6.0, 6.0]}}


def test_several_texts_are_several_items(make_predictor: MakePredictor) -> None:
    response = ask(of_texts(make_predictor), "POST", URL, json={"text": ["a", "bc"]})
    assert [answer["outputs"]["y"][0] for answer in response.json()["answers"]] == [2, 4]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"json": [1, 2]}, 400, "not_a_text"),
        ({"json": {"text": ["a", 1]}}, 400, "not_a_text"),
        ({"content": b"\xff"}, 400, "bad_text"),
        (
            {"content": b"IMG", "headers": {"content-type": "image/png"}},
            415,
            "unsupported_media_type",
        ),
        (
            {"content": b"a", "headers": {"content-type": "text/html"}},
            415,
            "unsupported_media_type",
        ),
    ],
)
def test_what_is_no_text_is_refused(
    make_predictor: MakePredictor, request_: dict[str, Any], status: int, code: str
) -> None:
    refused(ask(of_texts(make_predictor), "POST", URL, **request_), status, code)


@pytest.mark.parametrize(
    ("headers", "timeout_s", "priority"),
    [
        ({}, None, 0),
        ({"x-request-timeout-ms": "250", "x-request-priority": "3"}, 0.25, 3),
        ({"x-request-timeout-ms": "0.5"}, 0.0005, 0),
        ({"x-request-timeout-ms": "0"}, None, 0),
        ({"x-request-timeout-ms": "1e12"}, 3600.0, 0),
    ],
)
def test_timeout_and_priority_come_from_headers(
    make_predictor: MakePredictor, headers: Any, timeout_s: float | None, priority: int
) -> None:
    predictor = make_predictor()

    async def main() -> Any:
        model = Model(predictor, Options("twice"))
        await model.warm_up()
        seen: list[Any] = []
        answer = model.answer

        async def watched(call: Any) -> Any:
            seen.append(call)
            return await answer(call)

        model.answer = watched
        transport = httpx.ASGITransport(http_app([model], Keys()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.post(URL, json=[1, 2], headers=headers)
        await model.close()
        return seen[0]

    call = asyncio.run(main())
    assert (call.timeout_s, call.priority) == (timeout_s, priority)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-timeout-ms": "soon"},
        {"x-request-timeout-ms": "-1"},
        {"x-request-timeout-ms": "nan"},
        {"x-request-timeout-ms": "inf"},
        {"x-request-priority": "high"},
        {"x-request-priority": "-1"},
        {"x-request-priority": "10"},
        {"x-request-priority": "1.5"},
    ],
)
def test_a_header_that_is_no_number_is_400(make_predictor: MakePredictor, headers: Any) -> None:
    response = ask(make_predictor(), "POST", URL, json=[1, 2], headers=headers)
    refused(response, 400, "bad_parameter")


def test_a_compressed_body_is_415(make_predictor: MakePredictor) -> None:
    headers = {"content-encoding": "gzip"}
    response = ask(make_predictor(), "POST", URL, content=b"x", headers=headers)
    refused(response, 415, "unsupported_encoding")


def test_a_name_of_half_a_character_is_refused_as_any_other(make_predictor: MakePredictor) -> None:
    headers = {"content-type": "application/json"}
    body = b'{"\\ud800": [1, 2]}'
    response = ask(make_predictor(), "POST", URL, content=body, headers=headers)
    refused(response, 400, "wrong_input")


def test_decisions_and_counts_can_be_read(make_predictor: MakePredictor) -> None:
    async def main() -> tuple[Any, Any]:
        model = Model(make_predictor(), Options("twice"))
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model], Keys()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.post(URL, json=[1, 2])
            decisions = await client.get("/models/twice/decisions")
            stats = await client.get("/models/twice/stats")
        await model.close()
        return decisions.json(), stats.json()

    decisions, stats = asyncio.run(main())
    assert decisions["model"] == "twice"
    assert decisions["decisions"][0]["type"] == "cut"
    assert stats["stats"]["requests"] == {"ok": 1}


@pytest.mark.parametrize("what", ["decisions", "stats"])
def test_what_a_lost_replica_would_tell_is_503(what: str) -> None:
    class Lost:
        name = "lost"
        limit = 1

        async def decisions(self) -> list[Any]:
            raise ConnectionError

        async def stats(self) -> dict[str, Any]:
            raise ConnectionError

    async def main() -> httpx.Response:
        app = http_app([Lost()], Keys())  # pyright: ignore[reportArgumentType] - nothing else is called
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(f"/models/lost/{what}")

    refused(asyncio.run(main()), 503, "replica_lost")
