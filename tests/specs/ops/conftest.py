"""What the tests of ops share: usual values, and a way to run one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from specs.ops import Libraries, Op
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


@pytest.fixture
def follow() -> Callable[[Op, Value, Any], Any]:
    """Where the pixels are after a step, from where they were (``specs.ops._geometry``)."""

    def run(step: Op, value: Value, at: Any) -> Any:
        emitted = step.emit(value)
        if not emitted.geometry:
            return at
        names: dict[str, Any] = {function.__name__: function for function in emitted.functions}
        return eval(emitted.geometry.replace("{at}", "at"), names | {"at": at})  # noqa: S307

    return run


@pytest.fixture(scope="session")
def libraries() -> Libraries:
    """What references are written in."""
    pytest.importorskip("torchvision")
    from compiler.processing.executions import TorchLibraries

    return TorchLibraries()


@pytest.fixture
def executions(libraries: Libraries) -> Callable[..., dict[str, Any]]:
    """Run a step in all its executions: ``python``, ``reference``, and ``graph`` if any."""
    from compiler.processing.executions import run_fused, run_python, run_reference

    def run(op: Op, value: Value, x: object, **beside: Any) -> dict[str, Any]:
        found = {
            "python": run_python(op, value, x, beside),
            "reference": run_reference(op, value, x, libraries),
        }
        graph = run_fused(op, value, x, beside)
        return found if graph is None else found | {"graph": graph}

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same ones in every run."""
    return np.random.default_rng(0)
