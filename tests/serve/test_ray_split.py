"""Two artifacts of one model on a real Ray: the bad one is taken back, and nobody saw a failure."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from serve.artifacts import digest_of
from serve.canary import ARTIFACT

pytestmark = pytest.mark.ray

MOST = 400
"""Requests within which the canary must be gone: about half answered, a quarter compared."""


def test_a_bad_canary_answers_its_share_until_its_answers_give_it_away(
    ray_url: str, root: Path, digits_artifact: Path, untrained_artifact: Path
) -> None:
    stable, new = digest_of(digits_artifact), digest_of(untrained_artifact)
    pictures = sorted((root / "specs" / "samples" / "digits").glob("*.png"))
    seen: list[str] = []
    with httpx.Client(base_url=f"{ray_url}/split", timeout=60) as client:
        for number in range(MOST):
            content = pictures[number % len(pictures)].read_bytes()
            response = client.post("/models/digits/predict", content=content)
            assert response.status_code == 200
            seen.append(response.headers[ARTIFACT])
        (card,) = client.get("/models").json()["models"]
        assert client.get("/readyz").status_code == 200
    assert set(seen) == {stable[:12], new[:12]}
    assert set(seen[-100:]) == {stable[:12]}
    told = card["split"]
    assert (told["state"], told["reason"]["rule"], told["weight"]) == ("rolled_back", "parity", 0)
    assert told["artifacts"]["stable"]["digest"] == stable
    assert told["artifacts"]["new"]["digest"] == new
    assert told["counts"]["new"] == {"ok": seen.count(new[:12])}
