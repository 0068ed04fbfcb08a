from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.argmax import Argmax, argmax
from specs.values import FlowError, Value

RunStep = Callable[..., Any]


def test_the_best_class_of_every_item_is_named(run_step: RunStep, logits: Value) -> None:
    x = np.array([[0, 3, 3], [9, 1, 2]])
    op = Argmax.model_validate("argmax")
    assert run_step(op, logits, x) == [[{"index": 1}], [{"index": 0}]]
    assert argmax(x, ["a", "b", "c"])[1] == [{"index": 0, "label": "a"}]


def test_a_map_of_scores_is_refused(logits: Value) -> None:
    with pytest.raises(FlowError, match=r"argmax takes a tensor \[batch, classes\]"):
        Argmax().flow(logits.but(shape=("batch", 3, 8, 8)))
