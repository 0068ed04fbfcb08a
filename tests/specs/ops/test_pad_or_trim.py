"""``pad_or_trim``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.pad_or_trim import PadOrTrim
from specs.values import FlowError, Value

SOUND = Value("tensor", "float32", ("samples",), rate=16_000)


@pytest.mark.parametrize("length", [1, 4, 5, 6, 9])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_every_sound_gets_the_length_in_every_execution(
    executions: Callable[..., Any], length: int, lead: tuple[int, ...]
) -> None:
    x = np.arange(1, 1 + 2 * length, dtype=np.float32)[: length * (len(lead) + 1)]
    x = x.reshape(*lead, length)
    op = PadOrTrim.model_validate({"pad_or_trim": 5})
    found = executions(op, SOUND.but(shape=(*lead, "samples")), x)
    assert found["python"].shape == (*lead, 5)
    assert np.array_equal(found["python"], found["reference"])
    assert np.array_equal(found["python"][..., : min(length, 5)], x[..., :5])
    assert (found["python"][..., length:] == 0).all()


def test_the_length_is_fixed_behind_it_and_the_rate_is_kept() -> None:
    value = PadOrTrim(samples=100).flow(SOUND.but(shape=(2, "samples")))
    assert (value.shape, value.rate) == ((2, 100), 16_000)


def test_only_a_sound_is_taken(image: Value) -> None:
    with pytest.raises(FlowError, match="takes a sound") as caught:
        PadOrTrim(samples=100).flow(image)
    assert caught.value.hint == "put - decode_audio: 16000 first"
