"""Detections: what the ops of boxes share. Copied into ``processing.py`` where a spec uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["detection_entries"]


def detection_entries(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one item's detections as the entries of an answer, best first."""
    labels = found.get("labels")
    return [
        {"index": int(index)}
        | ({"label": labels[int(index)]} if labels else {})
        | {"score": float(score), "box": [float(edge) for edge in box]}
        for index, score, box in zip(found["classes"], found["scores"], found["boxes"], strict=True)
    ]
