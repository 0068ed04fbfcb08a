from __future__ import annotations

from typing import Any

import numpy as np

from specs.ops.identity import Identity
from specs.values import Value


def test_nothing_changes(logits: Value) -> None:
    op = Identity.model_validate("identity")
    assert op.flow(logits) is logits
    assert op.emit(logits).expression == "{x}"


def test_every_execution_gives_what_it_got(executions: Any, logits: Value) -> None:
    x = np.arange(20, dtype=np.float32).reshape(2, 10)
    for found in executions(Identity(), logits, x).values():
        assert np.array_equal(found, x)
