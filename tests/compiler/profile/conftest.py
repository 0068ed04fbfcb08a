"""What the profile's tests share: points made up from a law, without any engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from specs.profile import PROFILE_VERSION, Advice, Form, Interval, Machine, Point, Profile

MakePoint = Callable[..., Point]
MakeProfile = Callable[..., Profile]


@pytest.fixture
def point() -> MakePoint:
    """A point whose every quantile is ``ms``, known within 1 %; fields can be given."""

    def make(batch: int, ms: float, form: Form = "dynamic", **fields: Any) -> Point:
        known = Interval(low=0.99 * ms, high=1.01 * ms)
        given: dict[str, Any] = {
            "p50_ms": ms,
            "p95_ms": ms,
            "p99_ms": ms,
            "mean_ms": ms,
            "p50_ci": known,
            "p99_ci": known,
            "rate": 1e3 * batch / ms,
            "samples": 500,
            "warmup": 10,
            "load_seconds": 0.1,
            "peak_memory_bytes": 100 * 2**20,
            **fields,
        }
        return Point(batch=batch, form=form, **given)

    return make


@pytest.fixture
def made(point: MakePoint) -> MakeProfile:
    """A profile of the dynamic form with ``{batch: milliseconds}``; fields can be given."""

    def make(times: dict[int, float], **fields: Any) -> Profile:
        given: dict[str, Any] = {
            "variant": "onnxruntime-cpu-fp32",
            "identity": "0" * 64,
            "points": tuple(point(batch, ms) for batch, ms in times.items()),
            "advice": Advice(form="dynamic", throughput=max(times)),
            **fields,
        }
        return Profile(
            version=PROFILE_VERSION,
            engine="onnxruntime",
            device="cpu",
            precision="fp32",
            machine=Machine(
                cpu="A CPU", cores=2, threads=2, memory_bytes=2**34, os="Linux", python="3.11"
            ),
            measured_at="2026-01-01T00:00:00+00:00",
            inputs="golden case samples",
            seconds=3.0,
            **given,
        )

    return make
