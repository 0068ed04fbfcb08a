"""What a served model says of the variant that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from runtime.predictor import PassedOver
from serve.model import Model, Options

MakePredictor = Callable[..., Any]


@pytest.mark.parametrize("passed", [(), (PassedOver("fake-cuda-fp16", "no GPU here"),)])
def test_a_variant_that_stands_in_for_another_is_told_in_the_card_and_in_the_metric(
    make_predictor: MakePredictor, passed: tuple[PassedOver, ...]
) -> None:
    predictor = make_predictor()
    predictor.passed_over = passed

    async def scenario() -> None:
        model = Model(predictor, Options("twice", 8, 128))
        card = await model.card()
        told = [each for each in card["warnings"] if "cannot run here" in each]
        assert told == ["fake-cuda-fp16 cannot run here: no GPU here"] * len(passed)
        assert model.variant_in_use() == {
            "model": "twice",
            "variant": "fake-cpu-fp32",
            "passed_over": "fake-cuda-fp16" * len(passed),
            "engine": "fake",
            "device": "cpu",
        }
        await model.close()

    asyncio.run(scenario())
