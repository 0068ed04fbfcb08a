from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops.select import Select
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
HIDDEN = Value("tensor", "float32", ("batch", "tokens", 4))
BOTH = Value(
    "tensors", fields={"pooled": Value("tensor", "float32", ("batch", 2)), "hidden": HIDDEN}
)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"output": "hidden"},
        {"output": "hidden", "index": 0},
        {"output": "hidden", "index": -1},
        {"output": "pooled", "index": 1},
        {"output": "hidden", "index": -4, "axis": -1},
    ],
)
def test_every_execution_gives_the_same(
    executions: RunStep, rng: np.random.Generator, batch: int, options: dict[str, Any]
) -> None:
    x = {
        "pooled": rng.normal(size=(batch, 2)).astype(np.float32),
        "hidden": rng.normal(size=(batch, 5, 4)).astype(np.float32),
    }
    op = Select(**options)
    found = executions(op, BOTH, x)
    for name in ("python", "graph"):
        assert found[name].shape == found["reference"].shape, name
        assert len(found[name].shape) == len(op.flow(BOTH).shape)
        assert (found[name] == found["reference"]).all(), name


def test_the_first_token_is_taken(run_step: RunStep) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert run_step(Select(index=0), HIDDEN, x).tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]


def test_the_result_says_which_output_it_is() -> None:
    assert Select.model_validate({"select": "hidden"}).flow(BOTH).origin == "hidden"
    assert Select(output="pooled").flow(BOTH).origin == ""
    assert Select(output="hidden", index=0).flow(BOTH).shape == ("batch", 4)


@pytest.mark.parametrize(
    ("options", "value", "message", "hint"),
    [
        ({"output": "hiden"}, BOTH, "no output 'hiden'", "did you mean 'hidden'?"),
        ({"output": "hidden"}, HIDDEN, "takes one of several", "there is only one: remove output"),
        ({"index": 0}, BOTH, "index alone takes a tensor", "add output, the name of one of them"),
        ({"index": 1}, HIDDEN, "index 1 of 'tokens'", "use index: 0, the first, or index: -1, the"),
        ({"index": 4, "axis": 2}, HIDDEN, "has index 4", "use an index from 0 to 3"),
        ({"index": 0, "axis": 0}, HIDDEN, "has axis 0", "axis 0 is the batch"),
        ({"index": 0, "axis": -3}, HIDDEN, "has axis -3", "axis 0 is the batch"),
        ({"index": 0, "axis": 3}, HIDDEN, "has axis 3", "axis 0 is the batch"),
    ],
)
def test_what_is_not_there_is_refused(
    options: dict[str, Any], value: Value, message: str, hint: str
) -> None:
    with pytest.raises(FlowError, match=message) as caught:
        Select(**options).flow(value)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "found none"), ({"output": "a", "axis": 2}, "there is no index")],
)
def test_options_must_make_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Select(**options)
