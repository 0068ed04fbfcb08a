"""What may run in the event loop itself: what is known to be brief, and cannot be made long.

The way to a thread and back takes time, too, and two threads of Python at work get in each other's
way. But nobody is answered while the loop is busy, so that a request must not be able to keep it.
"""

from __future__ import annotations

from collections import deque

from runtime.jpeg import baseline_size
from specs.manifest import Manifest, Variant

__all__ = ["LOOKS", "Brief", "is_light", "may_finish", "may_prepare"]

LOOKS = 8
"""Runs that tell whether something is brief, the slowest of them."""
LIGHT_BYTES = 1 << 16
LIGHT_PIXELS = 1 << 18
LIGHT_RATIO = 4
"""Of an image's sides: a strip that is resized by its shorter side grows to a large picture."""
JPEG = "image/jpeg"


class Brief:
    """Whether something is known to be brief, by its last runs. Safe from any thread.

    Args:
        bound_s: it may take so long, seconds.
        ever: False: it is never brief.
    """

    def __init__(self, bound_s: float, *, ever: bool) -> None:
        self._bound_s = bound_s
        self._ever = ever
        self._took = deque[float](maxlen=LOOKS)

    def add(self, seconds: float) -> None:
        """It took so long, once."""
        self._took.append(seconds)

    def known(self, times: int = 1) -> bool:
        """Whether so many of it are."""
        took = tuple(self._took)  # a copy: threads add to it
        return self._ever and len(took) == LOOKS and times * max(took) <= self._bound_s


def is_light(content_type: str, body: bytes) -> bool:
    """Whether a request holds one small image that takes no longer than others of its kind.

    A small file of most formats can hold a huge picture, or many of them: only a baseline JPEG
    says in its head what it will take.
    """
    if content_type != JPEG or len(body) > LIGHT_BYTES:
        return False
    size = baseline_size(body)
    if size is None:
        return False
    short, long = sorted(size)
    return short * long <= LIGHT_PIXELS and 0 < long <= LIGHT_RATIO * short


def may_prepare(manifest: Manifest) -> bool:
    """Whether a light request's pre-processing may run in the loop: no code of the spec's own."""
    return manifest.takes == "image" and not manifest.own_code


def may_finish(manifest: Manifest, variant: Variant) -> bool:
    """Whether brief post-processing may run in the loop.

    It must be the same work for every item: outputs of a fixed size, no picture that grows with the
    request's, no boxes that are compared with each other, no code of the spec's own.
    """
    outputs = (variant.outputs or manifest.outputs).values()
    fixed = all(isinstance(dim, int) for each in outputs for dim in each.shape[1:])
    return fixed and manifest.answer in ("classes", "tensors") and not manifest.own_code
