"""``pad_or_trim``: every sound to one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from specs.ops._base import Emitted, Libraries, Op, Stage
from specs.ops._checks import need_sound
from specs.values import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PadOrTrim"]


class PadOrTrim(Op):
    """Cut a sound [samples] at ``samples``, or let silence follow until it has so many."""

    name: ClassVar[str] = "pad_or_trim"
    shorthand: ClassVar[str] = "samples"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})

    samples: Annotated[int, Field(ge=1, le=100_000_000, strict=True)]
    """How many samples it has then."""

    def flow(self, value: Value) -> Value:
        lead, _, _ = need_sound("pad_or_trim", value)
        return value.but(shape=(*lead, self.samples))

    def emit(self, value: Value) -> Emitted:
        del value
        comment = f"Cut the sound at {self.samples} samples, or fill it up with silence."
        return Emitted(f"pad_or_trim({{x}}, {self.samples})", comment, (pad_or_trim,))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        del value
        torch = lib.torch
        more = self.samples - x.shape[-1]  # negative ones cut
        return torch.nn.functional.pad(torch.from_numpy(x), (0, more)).numpy()


def pad_or_trim(x: NDArray[Any], samples: int) -> NDArray[Any]:
    """Return [..., samples]."""
    kept = x[..., :samples]
    fill = samples - kept.shape[-1]
    return np.pad(kept, [(0, 0)] * (x.ndim - 1) + [(0, fill)])
