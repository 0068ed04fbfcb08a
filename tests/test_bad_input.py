"""Bad input is told in the same words by the runtime, the command line and HTTP."""

from __future__ import annotations

import asyncio
import io
import json
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import runtime
from runtime.cli import predict
from runtime.files import read_file
from runtime.predictor import Predictor
from serve.http import http_app
from serve.model import Model, Options
from specs.errors import InputError

PNG, JSON, NPY, TEXT = "image/png", "application/json", "application/x-npy", "text/plain"
SUFFIXES = {PNG: ".png", JSON: ".json", NPY: ".npy", TEXT: ".txt"}
ENCODED: Any = object()
"""What is wrong is wrong before there is an item: the runtime's reader says it, not `predict`."""


def _picture(height: int, width: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def _claims(height: int, width: int) -> bytes:
    """A small PNG whose header declares another size."""
    content = bytearray(_picture(1, 1))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def _damaged(content: bytes) -> bytes:
    """The middle of it overwritten."""
    middle = len(content) // 2
    return content[:middle] + b"\xff" * 20 + content[middle + 20 :]


@dataclass(frozen=True)
class Bad:
    """One bad input: what is sent and as what, and what every way in says to it."""

    content: bytes
    kind: str
    code: str
    status: int = 400
    item: Any = ENCODED


def _file(content: bytes, code: str, status: int = 400) -> Bad:
    return Bad(content, PNG, code, status, content)


def _array(array: Any, code: str) -> Bad:
    file = io.BytesIO()
    np.save(file, array)
    return Bad(file.getvalue(), NPY, code, item=array)


def _lists(value: Any, code: str) -> Bad:
    return Bad(json.dumps(value).encode(), JSON, code, item=value)


NOISE = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
NOISY = io.BytesIO()
Image.fromarray(NOISE).save(NOISY, "PNG")
WHOLE = _array(np.zeros((8, 8)), "").content

IMAGES = {
    "zero bytes": _file(b"", "empty_item"),
    "text called a picture": _file(b"this is no picture at all", "not_an_image", 415),
    "cut short": _file(_picture(300, 300, "JPEG")[:-300], "corrupt_image"),
    "damaged": _file(_damaged(NOISY.getvalue()), "corrupt_image"),
    "a bomb": _file(_claims(19_000, 19_000), "too_large", 413),
    "a side beyond the limit": _file(_claims(1, 30_000), "too_large", 413),
    "a picture called JSON": Bad(_picture(8, 8), JSON, "bad_json"),
    "a picture called an array": Bad(_picture(8, 8), NPY, "bad_npy"),
    "an array cut short": Bad(WHOLE[:-9], NPY, "bad_npy"),
    "an array's header cut short": Bad(WHOLE[:20], NPY, "bad_npy"),
    "an array called JSON, cut short": Bad(WHOLE[:-9], JSON, "bad_npy"),
    "zero bytes of JSON": Bad(b"", JSON, "empty_item"),
    "NaN": _array(np.full((8, 8, 3), np.nan), "not_finite"),
    "NaN in JSON": _lists([[1.0, float("nan")]], "not_finite"),
    "truth values": _array(np.zeros((8, 8), bool), "wrong_dtype"),
    "complex numbers": _array(np.zeros((8, 8), complex), "wrong_dtype"),
    "objects": _array(np.array([[{}, {}]], object), "wrong_dtype"),
    "texts": _array(np.zeros((8, 8), "U1"), "wrong_dtype"),
    "rank 1": _array(np.zeros(8, np.uint8), "wrong_shape"),
    "rank 5": _array(np.zeros((2, 2, 2, 2, 3), np.uint8), "wrong_shape"),
    "two channels": _array(np.zeros((8, 8, 2), np.uint8), "wrong_shape"),
    "no pixels": _array(np.zeros((0, 8, 3), np.uint8), "wrong_shape"),
    "pixels of 300": _array(np.full((8, 8), 300), "wrong_input"),
    "pixels of 300 in JSON": _lists([[300, 1], [2, 3]], "wrong_input"),
    "pixels below 0": _lists([[-1, 1], [2, 3]], "wrong_input"),
    "an empty list": _lists([], "wrong_shape"),
    "a ragged list": _lists([[1, 2], [3]], "wrong_shape"),
    "a deep list": Bad(b"[" * 50_000 + b"]" * 50_000, JSON, "bad_json"),
    "a list of 70 levels": _lists(json.loads("[" * 70 + "1" + "]" * 70), "wrong_shape"),
    "null": _lists(None, "wrong_dtype"),
    "no items": Bad(_array(np.zeros((0, 8, 8, 3), np.uint8), "").content, NPY, "empty_item"),
    "no base64": Bad(b'"!!!"', JSON, "bad_base64"),
}
TENSORS = {
    "zero bytes": Bad(b"", NPY, "empty_item"),
    "a picture": Bad(_picture(8, 8), PNG, "unsupported_media_type", 415),
    "NaN": _array(np.array([np.nan, 1]), "not_finite"),
    "NaN in JSON": _lists([float("nan"), 1.0], "not_finite"),
    "beyond float32": _lists([1e300, 1.0], "wrong_dtype"),
    "truth values": _lists([True, False], "wrong_dtype"),
    "complex numbers": _array(np.zeros(2, complex), "wrong_dtype"),
    "objects": _array(np.array([{}, {}], object), "wrong_dtype"),
    "texts": _lists(["a", "b"], "wrong_dtype"),
    "rank 3": _array(np.zeros((1, 1, 2)), "wrong_shape"),
    "rank 0": _lists(1, "wrong_shape"),
    "three numbers": _lists([1, 2, 3], "wrong_shape"),
    "an empty list": _lists([], "wrong_shape"),
    "a ragged list": _lists([[1, 2], [3]], "wrong_shape"),
    "a deep list": Bad(b"[" * 50_000, JSON, "bad_json"),
    "a name that is no input": _lists({"Z": [1, 2]}, "wrong_input"),
    "a name too many": _lists({"X": [1, 2], "Z": [1, 2]}, "wrong_input"),
    "no JSON": Bad(b"{", JSON, "bad_json"),
    "no items": Bad(_array(np.zeros((0, 2)), "").content, NPY, "empty_item"),
}
TEXTS = {
    "an empty text": Bad(b"", TEXT, "empty_text", item=""),
    "an empty text in JSON": Bad(b'""', JSON, "empty_text", item=""),
    "a megabyte": Bad(b"words " * 170_000, TEXT, "too_large", 413, "words " * 170_000),
    "no UTF-8": Bad(b"\xff\xfe", TEXT, "bad_text"),
    "half a character": Bad(b'"\\ud800"', JSON, "bad_text", item="\ud800"),
    "a number": _lists(5, "not_a_text"),
    "an object": _lists({"a": 1}, "not_a_text"),
    "an empty list": Bad(b"[]", JSON, "empty_item"),
    "a picture": Bad(_picture(8, 8), PNG, "unsupported_media_type", 415),
}
BAD = {
    (artifact, name): bad
    for artifact, table in (("digits", IMAGES), ("linear", TENSORS), ("sentences", TEXTS))
    for name, bad in table.items()
}


@pytest.fixture(scope="module")
def predictors(
    digits_artifact: Path,
    linear_artifact: Path,
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    build_file: Callable[..., Any],
) -> Generator[dict[str, tuple[Path, Predictor]]]:
    """An artifact of each kind of item, and its predictor."""
    sentences = tmp_path_factory.mktemp("text") / "sentences"
    build_file(root / "specs" / "sentence_embedding.yaml", sentences)
    folders = {"digits": digits_artifact, "linear": linear_artifact, "sentences": sentences}
    loaded = {name: (folder, runtime.load(folder)) for name, folder in folders.items()}
    yield loaded
    for _, predictor in loaded.values():
        predictor.close()


@pytest.fixture(scope="module")
def predictor(predictors: dict[str, tuple[Path, Predictor]]) -> Predictor:
    """The embedded model."""
    return predictors["digits"][1]


def _over_http(predictor: Predictor, body: bytes, kind: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        model = Model(predictor, Options("it", max_batch=8, max_items=16, threads=1))
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"content-type": kind}
            return await client.post("/models/it/predict", content=body, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize(("artifact", "name"), BAD)
def test_the_runtime_the_command_and_http_say_the_same(
    predictors: dict[str, tuple[Path, Predictor]], tmp_path: Path, artifact: str, name: str
) -> None:
    bad, (folder, predictor) = BAD[artifact, name], predictors[artifact]
    file = tmp_path / f"item{SUFFIXES[bad.kind]}"
    file.write_bytes(bad.content)
    with pytest.raises(InputError) as caught:
        predictor.predict(
            read_file(file, predictor.manifest) if bad.item is ENCODED else [bad.item]
        )
    error = caught.value
    assert (error.code, bool(error.hint)) == (bad.code, True)
    reply = _over_http(predictor, bad.content, bad.kind)
    assert (reply.status_code, reply.json()["error"]) == (bad.status, error.to_dict())
    done = CliRunner().invoke(predict, [str(folder), str(file), "--json"])
    assert done.exit_code == 1
    (told,) = json.loads(done.stdout)
    expected = {**error.to_dict(), "message": f"{file}: {error.message}"}
    assert told == {"file": str(file), "error": expected}
    assert "Traceback" not in done.stderr
    assert f"hint: {error.hint}" in done.stderr


def test_one_bad_item_does_not_touch_the_others_of_its_batch(predictor: Predictor) -> None:
    good = _picture(300, 300, "JPEG")

    async def main() -> list[int]:
        model = Model(predictor, Options("digits", max_batch=8, max_items=16, threads=2))
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            bodies = [good, b"no picture", good, good[:-300], good]
            asked = [
                client.post(
                    "/models/digits/predict", content=body, headers={"content-type": "image/png"}
                )
                for body in bodies
            ]
            return [reply.status_code for reply in await asyncio.gather(*asked)]

    assert asyncio.run(main()) == [200, 415, 200, 400, 200]


def test_a_request_of_several_items_is_refused_whole_and_names_the_bad_one(
    predictor: Predictor,
) -> None:
    parts = [_picture(30, 30), b"no", _picture(8, 8)]
    body = b"".join(b"--x\r\nContent-Type: image/png\r\n\r\n" + p + b"\r\n" for p in parts)
    reply = _over_http(predictor, body + b"--x--", "multipart/form-data; boundary=x")
    assert reply.status_code == 415
    assert reply.json()["error"]["message"].startswith("item 1: the 2 bytes are no image")


def test_the_runtime_names_the_index_of_a_bad_item_among_several(predictor: Predictor) -> None:
    good = _picture(30, 30)
    with pytest.raises(InputError) as caught:
        predictor.predict([good, good, b"no picture"])
    assert caught.value.message.startswith("item 2: the 10 bytes are no image")
    assert caught.value.code == "not_an_image"


@pytest.mark.parametrize("items", [b"bytes", "text", {"input": 1}, 5, None])
def test_an_item_without_its_list_is_refused_with_what_to_write(
    predictor: Predictor, items: Any
) -> None:
    with pytest.raises(InputError, match="expected a list of items") as caught:
        predictor.predict(items)
    assert caught.value.hint == "predict([item]) answers one"


@pytest.fixture
def mixed(tmp_path: Path) -> list[str]:
    """A picture, none, one that is not there, and a picture again."""
    names = [str(tmp_path / name) for name in ("a.png", "b.png", "lost.png", "c.png")]
    for number, content in ((0, _picture(30, 30)), (1, b"no"), (3, _picture(8, 8))):
        Path(names[number]).write_bytes(content)
    return names


def test_the_command_answers_the_good_files_and_names_the_bad_ones(
    digits_artifact: Path, mixed: list[str]
) -> None:
    done = CliRunner().invoke(predict, [str(digits_artifact), *mixed])
    first, bad, lost, last = mixed
    assert done.exit_code == 1
    assert [line for line in done.stdout.splitlines() if line[0] != " "] == [first, last]
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: {bad}: the 2 bytes are no image of a known format",
        f"error: {lost}: cannot be read: No such file or directory",
    ]


def test_as_json_every_file_has_its_answer_or_its_error_in_order(
    digits_artifact: Path, mixed: list[str]
) -> None:
    done = CliRunner().invoke(predict, [str(digits_artifact), *mixed, "--json"])
    found = json.loads(done.stdout)
    assert [entry["file"] for entry in found] == mixed
    assert ["answer" in entry for entry in found] == [True, False, False, True]
    assert [entry["error"]["code"] for entry in found[1:3]] == ["not_an_image", "file"]
