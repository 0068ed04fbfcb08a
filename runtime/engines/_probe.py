"""The smallest graph that an engine can be tried with."""

from __future__ import annotations

import numpy as np

from runtime.engines._base import EngineSession
from specs.errors import EngineError

__all__ = ["TINY_ONNX", "answer_tiny"]

TINY_ONNX = bytes.fromhex(
    "08073a500a130a01780a01781201791a036164642203416464120570726f6265"
    "5a180a017812130a110801120d0a07120562617463680a020802"
    "62180a017912130a110801120d0a07120562617463680a020802"
    "42040a00100d"
)
"""An ONNX file, ``y = x + x``: float32 [batch, 2] to float32 [batch, 2], opset 13, IR version 7.

Made by ``onnx.helper``; ``tests/runtime/test_ort.py`` makes it again and compares, so that this
package needs no onnx.
"""


def answer_tiny(session: EngineSession) -> None:
    """Run ``TINY_ONNX`` at batch 2 and check the answer.

    Raises:
        EngineError: the session cannot run, or its answer is wrong.
    """
    x = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)
    found = session.run({"x": x}).get("y")
    if found is None or not np.array_equal(found, x + x):
        raise EngineError(f"x + x of {x.tolist()} gave {found}", code="probe_wrong")
