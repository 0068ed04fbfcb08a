"""Runs artifacts: opens one, checks it, answers. Needs neither torch nor onnx.

>>> import runtime                                            # doctest: +SKIP
>>> with runtime.load("build/digits") as predictor:           # doctest: +SKIP
...     predictor.predict([open("specs/samples/digits/digit_3.png", "rb").read()])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.predictor import Predictor, load

__all__ = ["Predictor", "load"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - one of __all__
    # Late, so that `deployc validate`, which asks runtime.engines alone, starts fast.
    if name not in __all__:
        raise AttributeError(name)
    import runtime.predictor

    return getattr(runtime.predictor, name)
