"""What the tests of ops share: usual values, and a way to run one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops import Op
from specs.values import Value

RunStep = Callable[[Op, Value, Any], Any]


@pytest.fixture
def image() -> Value:
    """A decoded RGB picture of any size."""
    return Value("image", "uint8", ("height", "width", 3), "HWC", "RGB", 0, 255)


@pytest.fixture
def logits() -> Value:
    """A classifier's output."""
    return Value("tensor", "float32", ("batch", 10))


@pytest.fixture
def run_step() -> RunStep:
    """Run the code that a step emits, as the generated file would."""

    def run(step: Op, value: Value, x: object) -> object:
        step.flow(value)
        emitted = step.emit(value)
        names: dict[str, Any] = {function.__name__: function for function in emitted.functions}
        names |= {"np": np, "x": x}
        for name, constant in emitted.constants.items():
            names[name] = eval(constant, names)  # noqa: S307 - the project's own code
        return eval(emitted.expression.replace("{x}", "x"), names)  # noqa: S307

    return run
