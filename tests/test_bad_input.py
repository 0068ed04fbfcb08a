"""Bad input is told in the same words by the runtime, the command line and HTTP."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import runtime
from runtime.cli import predict
from runtime.predictor import Predictor
from serve.http import http_app
from serve.model import Model, Options
from specs.errors import InputError


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


BAD: dict[str, tuple[bytes, str, int]] = {
    "text called a picture": (b"this is no picture at all", "not_an_image", 415),
    "cut short": (_picture(300, 300, "JPEG")[:-300], "corrupt_image", 400),
    "a bomb": (_claims(19_000, 19_000), "too_large", 413),
    "a side beyond the limit": (_claims(1, 30_000), "too_large", 413),
}


@pytest.fixture(scope="module")
def predictor(digits_artifact: Path) -> Generator[Predictor]:
    """The embedded model."""
    with runtime.load(digits_artifact) as loaded:
        yield loaded


def _over_http(predictor: Predictor, body: bytes) -> httpx.Response:
    async def ask() -> httpx.Response:
        model = Model(predictor, Options("digits", max_batch=8, max_items=16, threads=1))
        await model.warm_up()
        transport = httpx.ASGITransport(http_app([model]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"content-type": "image/png"}
            return await client.post("/models/digits/predict", content=body, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("name", BAD)
def test_the_runtime_the_command_and_http_say_the_same(
    predictor: Predictor, digits_artifact: Path, tmp_path: Path, name: str
) -> None:
    content, code, status = BAD[name]
    with pytest.raises(InputError) as caught:
        predictor.predict([content])
    error = caught.value
    assert error.code == code
    assert error.hint
    reply = _over_http(predictor, content)
    told = {"code": error.code, "message": error.message, "hint": error.hint}
    assert (reply.status_code, reply.json()["error"]) == (status, told)
    file = tmp_path / "item.png"
    file.write_bytes(content)
    done = CliRunner().invoke(predict, [str(digits_artifact), str(file)])
    assert done.exit_code == 1
    printed = f"{done.stderr}{done.exception}"
    assert error.message in printed
    assert error.hint in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (np.full((8, 8, 3), np.nan), "not_finite"),
        (np.zeros((8, 8), "U1"), "wrong_dtype"),
        (np.zeros((2, 2, 2, 2)), "wrong_shape"),
        (np.full((8, 8), 300), "wrong_input"),
        (b"", "not_an_image"),
        (None, "wrong_dtype"),
    ],
)
def test_arrays_that_are_no_pictures_have_codes_as_well(
    predictor: Predictor, item: Any, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        predictor.preprocess(item)
    assert caught.value.code == code
    assert caught.value.hint


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
