"""How far the replies of two artifacts to one request lie apart."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from typing import Any, cast

import numpy as np
from PIL import Image

from runtime.answers_apart import answers_apart
from serve.args import ParityGate
from serve.messages import Call, Reply

__all__ = ["comparable", "replies_apart"]

PNG = "image/png"


def comparable(call: Call) -> bool:
    """Whether the replies to a call can be compared: those of ``/predict``."""
    return call.kind == "predict"


def replies_apart(found: Reply, wanted: Reply, gate: ParityGate) -> float:
    """Distance in units of the gate's tolerance: above 1 the replies disagree.

    Args:
        found: the new artifact's reply to a call of ``/predict``.
        wanted: the stable one's, which is an answer.
        gate: tolerance, and what is compared.
    """
    if found.status != wanted.status or found.media_type != wanted.media_type:
        return math.inf
    have, want = _value(found), _value(wanted)
    if gate.by == "top":
        return 0.0 if _tops(have) == _tops(want) else math.inf
    return answers_apart(have, want, gate.atol, gate.rtol).worst


def _value(reply: Reply) -> dict[str, Any]:
    """A JSON value, with arrays for pictures."""
    if reply.media_type == PNG:
        return {"answer": {"image": _pixels(reply.body)}}
    answered = cast("dict[str, Any]", json.loads(reply.body))
    return {key: _decoded(answered[key]) for key in ("answer", "answers") if key in answered}


def _decoded(answer: Any) -> Any:  # noqa: ANN401
    """An answer with its pictures as arrays: two files of the same pixels may differ."""
    if isinstance(answer, list):
        return [_decoded(each) for each in cast("list[Any]", answer)]
    parts = cast("dict[str, Any]", answer)
    return {**parts, "image": _pixels_of(parts["image"])} if "image" in parts else parts


def _pixels_of(picture: Any) -> Any:  # noqa: ANN401
    try:
        return _pixels(base64.b64decode(picture["base64"], validate=True))
    except (binascii.Error, KeyError, TypeError):  # an output that is called `image`
        return picture


def _pixels(png: bytes) -> Any:  # noqa: ANN401 - uint8 [height, width] or [height, width, 3]
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def _tops(value: dict[str, Any]) -> list[list[int]]:
    """The best class of each answer, if it has one."""
    answers = value["answers"] if "answers" in value else [value["answer"]]
    return [[entry["index"] for entry in answer["classes"][:1]] for answer in answers]
