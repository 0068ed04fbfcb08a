"""What may run in the event loop: known to be brief, and not to be made long by what is sent."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from serve.brief import LIGHT_BYTES, LOOKS, Brief, is_light, may_finish, may_prepare
from specs.manifest import Manifest, OwnStep
from specs.schema import TensorSpec

MakeManifest = Callable[..., Manifest]


def jpeg(width: int, height: int = 0, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height or width)).save(file, kind, **options)
    return file.getvalue()


def test_brief_is_known_by_the_slowest_of_the_last_runs() -> None:
    brief = Brief(0.5, ever=True)
    assert not brief.known()
    for seconds in (9.0, *[0.25] * (LOOKS - 1)):
        brief.add(seconds)
    assert not brief.known()
    brief.add(0.25)
    assert (brief.known(), brief.known(2), brief.known(3)) == (True, True, False)


@pytest.mark.parametrize(
    ("body", "light"),
    [
        (jpeg(512), True),
        (jpeg(1024, 256), True),
        (jpeg(256, 1024), True),
        (jpeg(513), False),
        (jpeg(1025, 255), False),  # a strip grows where its shorter side does
        (jpeg(512, progressive=True), False),
        (jpeg(64) + bytes(LIGHT_BYTES), False),
        (jpeg(8, kind="PNG"), False),
        (jpeg(8, kind="WEBP"), False),
        (b"", False),
    ],
)
def test_a_small_baseline_jpeg_is_light(body: bytes, light: bool) -> None:
    assert is_light("image/jpeg", body) == light


@pytest.mark.parametrize(
    "said", ["", "multipart/form-data; boundary=B", "image/png", "application/json", "text/plain"]
)
def test_what_may_be_read_as_something_else_is_not_light(said: str) -> None:
    """A form may have anything before its first part, and many parts."""
    assert not is_light(said, jpeg(8))


OWN = OwnStep(stage="preprocess", function="f", file="f.py", copy_in="f.py")


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"takes": "image"}, True),
        ({"takes": "tensors"}, False),
        ({"takes": "text"}, False),
        ({"takes": "audio"}, False),
        ({"takes": "image", "own_code": (OWN,)}, False),
    ],
)
def test_images_alone_are_prepared_there_and_not_by_code_of_the_spec(
    make_manifest: MakeManifest, changes: dict[str, Any], allowed: bool
) -> None:
    assert may_prepare(make_manifest().model_copy(update=changes)) == allowed


def outputs(*shape: int | str) -> dict[str, Any]:
    return {"outputs": {"y": TensorSpec(shape=("batch", *shape), dtype="float32")}}


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"answer": "classes", **outputs(1000)}, True),
        ({"answer": "tensors", **outputs(3, 4)}, True),
        ({"answer": "tensors", **outputs("width")}, False),
        ({"answer": "image", **outputs(3, 4)}, False),
        ({"answer": "detections", **outputs(100, 6)}, False),
        ({"answer": "classes", "own_code": (OWN,), **outputs(10)}, False),
    ],
)
def test_answers_that_are_always_the_same_work_are_finished_there(
    make_manifest: MakeManifest, changes: dict[str, Any], allowed: bool
) -> None:
    manifest = make_manifest().model_copy(update=changes)
    assert may_finish(manifest, manifest.variants[0]) == allowed
    grown = manifest.variants[0].model_copy(update=outputs("width"))
    assert not may_finish(manifest, grown)  # a variant whose graph answers itself
