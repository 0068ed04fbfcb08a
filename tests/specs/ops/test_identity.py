from __future__ import annotations

from specs.ops.identity import Identity
from specs.values import Value


def test_nothing_changes(logits: Value) -> None:
    op = Identity.model_validate("identity")
    assert op.flow(logits) is logits
    assert op.emit(logits).expression == "{x}"
