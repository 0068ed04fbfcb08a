"""The HTTP surface over a model in this process, without Ray."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from serve.http import http_app
from serve.messages import Call, Reply
from serve.model import Model, Options

MakePredictor = Callable[..., Any]
OPTIONS = Options("twice", max_batch=8, max_items=16, threads=2)
URL = "/models/twice/predict"
IMAGE = {"takes": "image"}
PNG = {"content-type": "image/png"}


async def _client(model: Model) -> httpx.AsyncClient:
    await model.warm_up()
    transport = httpx.ASGITransport(http_app([model]), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def ask(predictor: Any, *args: Any, options: Options = OPTIONS, **kwargs: Any) -> httpx.Response:
    """One request to a warm model."""

    async def main() -> httpx.Response:
        model = Model(predictor, options)
        async with await _client(model) as client:
            response = await client.request(*args, **kwargs)
        await model.close()
        return response

    return asyncio.run(main())


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def refused(response: httpx.Response, status: int, code: str) -> str:
    """Check the one form of errors; the message and the hint as one text."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] == code
    return f"{error['message']} | {error['hint']}"


@pytest.mark.parametrize(
    "body", [[1, 2], {"x": [1, 2]}, {"inputs": [1, 2]}, {"inputs": {"x": [1.0, 2]}}]
)
def test_one_item_as_json_gets_one_answer(make_predictor: MakePredictor, body: Any) -> None:
    response = ask(make_predictor(), "POST", URL, json=body)
    assert response.status_code == 200
    assert response.json() == {"model": "twice", "answer": {"outputs": {"y": [2.0, 4.0]}}}


@pytest.mark.parametrize("body", [[[1, 2], [3, 4]], {"x": [[1, 2], [3, 4]]}])
def test_one_rank_more_gets_a_list_of_answers(make_predictor: MakePredictor, body: Any) -> None:
    response = ask(make_predictor(), "POST", URL, json=body)
    answers = [answer["outputs"]["y"] for answer in response.json()["answers"]]
    assert answers == [[2.0, 4.0], [6.0, 8.0]]


@pytest.mark.parametrize(
    "kind", ["application/x-npy", "", "application/json", "application/x-www-form-urlencoded"]
)
def test_npy_is_known_by_its_first_bytes(make_predictor: MakePredictor, kind: str) -> None:
    body = npy(np.array([[1, 2], [3, 4]], np.float64))
    headers = {"content-type": kind} if kind else {}
    response = ask(make_predictor(), "POST", URL, content=body, headers=headers)
    assert [a["outputs"]["y"] for a in response.json()["answers"]] == [[2.0, 4.0], [6.0, 8.0]]


def test_npy_in_column_order_means_the_same(make_predictor: MakePredictor) -> None:
    body = npy(np.asfortranarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    response = ask(make_predictor(), "POST", URL, content=body)
    assert [a["outputs"]["y"] for a in response.json()["answers"]] == [[2, 4], [6, 8], [10, 12]]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "image/jpeg; q=1"])
def test_an_image_is_one_item(make_predictor: MakePredictor, kind: str) -> None:
    predictor = make_predictor(**IMAGE)
    response = ask(predictor, "POST", URL, content=b"IMG..", headers={"content-type": kind})
    assert response.json()["answer"] == {"outputs": {"y": [10.0, 10.0]}}


@pytest.mark.parametrize(("shape", "answers"), [((2, 3), 0), ((2, 3, 3), 0), ((4, 2, 3, 3), 4)])
def test_pixels_are_one_item_up_to_rank_3(
    make_predictor: MakePredictor, shape: tuple[int, ...], answers: int
) -> None:
    predictor = make_predictor(**IMAGE)
    response = ask(predictor, "POST", URL, json=np.zeros(shape, int).tolist())
    assert response.status_code == 200
    assert len(response.json().get("answers", [])) == answers


def test_an_image_answer_is_base64_in_json_and_png_where_accepted(
    make_predictor: MakePredictor,
) -> None:
    predictor = make_predictor(answer="image")
    response = ask(predictor, "POST", URL, json=[1, 2])
    assert isinstance(response.json()["answer"]["image"]["base64"], str)
    response = ask(predictor, "POST", URL, json=[1, 2], headers={"accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert response.content.startswith(b"\x89PNG")


BAD: list[tuple[str, dict[str, Any], dict[str, Any], int, str]] = [
    ("empty", {}, {"content": b""}, 400, "empty_item"),
    ("broken JSON", {}, {"content": b"[1, 2"}, 400, "bad_json"),
    ("deep JSON", {}, {"content": b"[" * 9_000}, 400, "bad_json"),
    ("no UTF-8", {}, {"content": b'["\xff"]'}, 400, "bad_json"),
    ("NaN", {}, {"content": b"[NaN, 1]"}, 400, "not_finite"),
    ("ragged", {}, {"json": [[1, 2], [3]]}, 400, "wrong_shape"),
    ("texts", {}, {"json": ["a", "b"]}, 400, "wrong_dtype"),
    ("null", {}, {"json": [None, 1]}, 400, "wrong_dtype"),
    ("an object inside", {}, {"json": [{"a": 1}, 1]}, 400, "wrong_dtype"),
    ("rank 0", {}, {"json": {"x": 1}}, 400, "wrong_shape"),
    ("rank 3", {}, {"json": [[[1, 2]]]}, 400, "wrong_shape"),
    ("wrong size", {}, {"json": [1, 2, 3]}, 400, "wrong_shape"),
    ("unknown input", {}, {"json": {"y": [1, 2]}}, 400, "wrong_input"),
    ("no items", {}, {"content": npy(np.zeros((0, 2)))}, 400, "empty_item"),
    ("too many items", {}, {"json": [[1, 2]] * 17}, 413, "too_large"),
    ("text", {}, {"content": "hello", "headers": {"content-type": "text/plain"}}, 415, ""),
    (
        "image to tensors",
        {},
        {"content": b"IMG", "headers": {"content-type": "image/png"}},
        415,
        "",
    ),
    ("bytes to tensors", {}, {"content": b"IMG"}, 415, ""),
    ("no image", IMAGE, {"content": b"GIF"}, 415, "not_an_image"),
    ("pixels below 0", IMAGE, {"json": [[-1, 2]]}, 400, "wrong_input"),
    ("pixels above 255", IMAGE, {"json": [[256, 2]]}, 400, "wrong_input"),
    ("rank 5", IMAGE, {"json": [[[[[1]]]]]}, 400, "wrong_shape"),
    ("torn npy", {}, {"content": npy(np.zeros(2))[:-1]}, 400, "bad_npy"),
    ("npy of objects", {}, {"content": npy(np.array([{}, {}]))}, 400, "wrong_dtype"),
    ("npy of texts", {}, {"content": npy(np.array(["a", "b"]))}, 400, "wrong_dtype"),
    ("npy magic alone", {}, {"content": b"\x93NUMPY"}, 400, "bad_npy"),
    ("npy of the future", {}, {"content": b"\x93NUMPY\x09\x00" + bytes(80)}, 400, "bad_npy"),
]


@pytest.mark.parametrize(
    ("manifest", "request_", "status", "code"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input_is_refused_with_its_reason(
    make_predictor: MakePredictor,
    manifest: dict[str, Any],
    request_: dict[str, Any],
    status: int,
    code: str,
) -> None:
    response = ask(make_predictor(**manifest), "POST", URL, **request_)
    refused(response, status, code or "unsupported_media_type")


def test_a_npy_header_that_claims_a_terabyte_reserves_nothing(
    make_predictor: MakePredictor,
) -> None:
    claim = b"(999999999999,), }"
    body = npy(np.zeros(2)).replace(b"(2,), }".ljust(len(claim)), claim)
    text = refused(ask(make_predictor(), "POST", URL, content=body), 400, "bad_npy")
    assert "7999999999992 bytes" in text


def test_a_npy_header_that_is_no_python_is_refused(make_predictor: MakePredictor) -> None:
    body = npy(np.zeros(2)).replace(b"(2,), }", b"(10**9,")
    refused(ask(make_predictor(), "POST", URL, content=body), 400, "bad_npy")


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("uint8", [0, 255], True),
        ("uint8", [0, 256], False),
        ("int32", [-(2**31), 2**31 - 1], True),
        ("int32", [1.5, 2], False),
        ("bool", [True, False], True),
        ("bool", [1, 0], False),
        ("float16", [1, 2.5], True),
    ],
)
def test_json_numbers_take_the_dtype_of_the_input_where_they_fit_it(
    make_predictor: MakePredictor, dtype: str, value: list[Any], fits: bool
) -> None:
    inputs = {"x": {"shape": ("batch", 2), "dtype": dtype}}
    response = ask(make_predictor(inputs=inputs), "POST", URL, json=value)
    if fits:
        assert response.status_code == 200, response.text
    else:
        refused(response, 400, "wrong_dtype")


def test_a_bad_item_in_a_list_is_named_by_its_number(make_predictor: MakePredictor) -> None:
    response = ask(make_predictor(), "POST", URL, json=[[1, 2, 3], [1, 2, 3]])
    assert "item 0" in refused(response, 400, "wrong_shape")


def test_an_unknown_model_is_404_with_the_nearest_name(make_predictor: MakePredictor) -> None:
    response = ask(make_predictor(), "POST", "/models/twise/predict", json=[1, 2])
    assert "did you mean 'twice'?" in refused(response, 404, "unknown_model")


def test_an_unknown_route_is_404_with_the_known_ones(make_predictor: MakePredictor) -> None:
    text = refused(ask(make_predictor(), "GET", "/model"), 404, "unknown_route")
    assert "POST /models/{name}/predict" in text


@pytest.mark.parametrize(
    ("method", "path"), [("GET", URL), ("POST", "/models"), ("DELETE", "/healthz")]
)
def test_a_wrong_method_is_405_with_the_right_one(
    make_predictor: MakePredictor, method: str, path: str
) -> None:
    response = ask(make_predictor(), method, path)
    refused(response, 405, "wrong_method")
    assert response.headers["allow"]


def test_a_declared_length_over_the_limit_is_413_and_nothing_is_read(
    make_predictor: MakePredictor,
) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 1000

    async def main() -> tuple[int, int]:
        app = http_app([Model(make_predictor(), OPTIONS)])
        stream = endless()
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(stream), "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": URL,
            "headers": [(b"content-length", b"1000000000")],
            "query_string": b"",
        }
        await app(scope, receive, send)
        declared, scope["headers"] = read, []
        await app(scope, receive, send)
        assert [m["status"] for m in sent if "status" in m] == [413, 413]
        assert json.loads(sent[1]["body"])["error"]["code"] == "too_large"
        return declared, read

    declared, streamed = asyncio.run(main())
    assert declared == 0
    assert streamed == 22  # 10,000 bytes are allowed, and as many again are read and dropped


def test_a_failing_engine_is_500_and_tells_nothing_of_itself(
    make_predictor: MakePredictor,
) -> None:
    response = ask(make_predictor(), "POST", URL, json=[13, 0])
    refused(response, 500, "internal")
    assert "choked" not in response.text
    assert "Traceback" not in response.text


def test_a_failing_item_does_not_fail_those_of_other_requests(
    make_predictor: MakePredictor,
) -> None:
    async def main() -> list[int]:
        model = Model(make_predictor(delay_s=0.02), OPTIONS)
        async with await _client(model) as client:
            bodies = [[n, 0] for n in range(10, 16)]
            responses = await asyncio.gather(*(client.post(URL, json=b) for b in bodies))
        await model.close()
        return [response.status_code for response in responses]

    assert asyncio.run(main()) == [200, 200, 200, 500, 200, 200]


def test_overload_is_429_with_retry_after(make_predictor: MakePredictor) -> None:
    async def main() -> list[httpx.Response]:
        model = Model(make_predictor(delay_s=0.1), Options("twice", 1, 2, 2))
        async with await _client(model) as client:
            answers = await asyncio.gather(*(client.post(URL, json=[1, 2]) for _ in range(8)))
        await model.close()
        return answers

    responses = asyncio.run(main())
    over = [response for response in responses if response.status_code != 200]
    assert 1 <= len(over) <= 7
    for response in over:
        refused(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1


def test_requests_that_arrive_while_the_engine_runs_share_a_batch(
    make_predictor: MakePredictor,
) -> None:
    predictor = make_predictor(delay_s=0.05)

    async def main() -> None:
        model = Model(predictor, OPTIONS)
        async with await _client(model) as client:
            predictor.batches.clear()
            await asyncio.gather(*(client.post(URL, json=[n, n]) for n in range(9)))
        await model.close()

    asyncio.run(main())
    assert sum(predictor.batches) == 9
    assert len(predictor.batches) <= 3
    assert len(predictor.threads) == 1
    assert predictor.closed


def test_closing_answers_what_is_in_flight_and_refuses_what_comes_later(
    make_predictor: MakePredictor,
) -> None:
    async def main() -> tuple[Reply, Reply]:
        model = Model(make_predictor(delay_s=0.2), OPTIONS)
        await model.warm_up()
        taken = asyncio.create_task(model.answer(Call(b"[1, 2]")))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(model.close())
        await asyncio.sleep(0)
        late = await model.answer(Call(b"[1, 2]"))
        await closing
        return await taken, late

    taken, late = asyncio.run(main())
    assert taken.status == 200
    assert late.status == 503
    assert late.headers["Retry-After"]


def test_the_list_of_models_says_what_each_takes_and_that_weights_are_random(
    make_predictor: MakePredictor,
) -> None:
    (card,) = ask(make_predictor(), "GET", "/models").json()["models"]
    assert card["name"] == "twice"
    assert card["description"] == "doubles its input"
    assert card["inputs"] == {"x": {"shape": ["batch", 2], "dtype": "float32"}}
    assert card["variant"]["engine"] == "fake"
    assert card["batch"] == {"min": 1, "max": 8}
    assert card["state"] == "ready"
    assert "RANDOM" in card["warnings"][0]


def test_readiness_waits_for_the_warm_up_and_health_does_not(
    make_predictor: MakePredictor,
) -> None:
    async def main() -> list[int]:
        model = Model(make_predictor(), OPTIONS)
        transport = httpx.ASGITransport(http_app([model]))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            cold = [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]
            await model.warm_up()
            return [*cold, (await client.get("/readyz")).status_code]

    assert asyncio.run(main()) == [200, 503, 200]


def test_a_model_that_cannot_be_reached_is_listed_as_unavailable() -> None:
    class Lost:
        name = "lost"
        limit = 1

        async def card(self) -> dict[str, Any]:
            raise ConnectionError

        def answer(self, call: Call) -> Awaitable[Reply]:
            raise NotImplementedError(call)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(http_app([Lost()]))  # pyright: ignore[reportArgumentType] - answer is not called
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/readyz")

    response = asyncio.run(main())
    assert response.status_code == 503
    assert response.json()["models"] == {"lost": "unavailable"}


def test_the_answer_tells_where_its_time_went(make_predictor: MakePredictor) -> None:
    response = ask(make_predictor(delay_s=0.005), "POST", URL, json=[[1, 2], [3, 4]])
    timing = response.headers["server-timing"]
    assert [part.split(";")[0].strip() for part in timing.split(",")] == [
        "pre",
        "queue",
        "engine",
        "post",
        "batch",
    ]
    assert 'batch;desc="2"' in timing
