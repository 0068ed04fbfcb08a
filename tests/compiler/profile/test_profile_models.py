"""What is read back from ``profile.json``, and what serving asks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from runtime.artifact import read_manifest
from runtime.profile import read_profile
from specs.errors import ArtifactError
from specs.manifest import FileEntry, Manifest
from specs.profile import Interval, Point, Profile, identity, profile_path

MakePoint = Callable[..., Point]
MakeProfile = Callable[..., Profile]


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(1, 10.0), (2, 14.0), (3, 17.0), (4, 20.0), (5, 22.5), (8, 30.0), (16, 60.0), (12, 45.0)],
)
def test_latency_is_interpolated_between_sizes_and_grows_in_proportion_beyond_them(
    made: MakeProfile, batch: int, expected: float
) -> None:
    profile = made({1: 10.0, 2: 14.0, 4: 20.0, 8: 30.0})
    assert profile.latency_ms(batch) == pytest.approx(expected)


def test_latency_below_the_smallest_size_is_that_sizes_own(made: MakeProfile) -> None:
    assert made({4: 20.0, 8: 30.0}).latency_ms(1) == 20.0


def test_latency_is_of_the_form_and_the_quantile_asked_for(
    made: MakeProfile, point: MakePoint
) -> None:
    points = (point(1, 10.0, p99_ms=12.0), point(1, 5.0, "fixed"))
    profile = made({1: 10.0}, points=points)
    assert profile.forms == ("dynamic", "fixed")
    assert profile.latency_ms(1) == 12.0
    assert profile.latency_ms(1, "p50") == 10.0
    assert profile.latency_ms(1, "p50", "fixed") == 5.0


@pytest.mark.parametrize(("high", "expected"), [(11.0, 0.2), (13.0, 0.3), (None, None)])
def test_an_interval_is_as_wide_as_its_farther_end(
    high: float | None, expected: float | None
) -> None:
    found = Interval(low=8.0, high=high).within(10.0)
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_profile_needs_a_point(made: MakeProfile) -> None:
    with pytest.raises(ValidationError, match="points"):
        made({1: 1.0}, points=())


def test_a_profile_is_read_back_as_it_was_written(made: MakeProfile, tmp_path: Path) -> None:
    profile = made({1: 10.0})
    file = tmp_path / profile_path(profile.variant)
    file.parent.mkdir(parents=True)
    file.write_text(profile.model_dump_json())
    assert read_profile(tmp_path, profile.variant) == profile


def test_a_variant_that_was_not_measured_has_none(tmp_path: Path) -> None:
    assert read_profile(tmp_path, "any") is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "profile_invalid"),
        ("[]", "profile_invalid"),
        ('{"version": 1}', "profile_invalid"),
        ('{"version": 99, "points": 3}', "profile_version"),
    ],
)
def test_a_profile_that_cannot_be_read_is_refused_and_says_what_to_run(
    tmp_path: Path, text: str, code: str
) -> None:
    file = tmp_path / profile_path("v")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        read_profile(tmp_path, "v")
    assert caught.value.code == code
    assert "deployc profile" in caught.value.hint


@pytest.fixture
def manifest(linear_artifact: Path) -> Manifest:
    """That of a small artifact."""
    return read_manifest(linear_artifact)


def _with_file(manifest: Manifest, name: str, sha256: str = "1" * 64) -> Manifest:
    entry = FileEntry(sha256=sha256, bytes=1)
    return manifest.model_copy(update={"files": {**manifest.files, name: entry}})


def _identity(manifest: Manifest, **changes: object) -> str:
    return identity(manifest, manifest.variants[0].model_copy(update=changes))


def test_the_identity_changes_with_what_the_speed_depends_on(manifest: Manifest) -> None:
    seen = {
        _identity(manifest),
        _identity(manifest, options={"intra_op_threads": 1}),
        _identity(manifest, device="cuda"),
        _identity(manifest, precision="fp16"),
        _identity(_with_file(manifest, "model.onnx")),
        _identity(_with_file(manifest, "model.onnx.data")),
        _identity(manifest.model_copy(update={"axes": {}})),
    }
    assert len(seen) == 7


def test_the_identity_of_an_engines_own_file_takes_in_all_of_its_folder(
    manifest: Manifest,
) -> None:
    own = _with_file(manifest, "variants/v/model.plan")
    plain = _identity(own, file="variants/v/model.plan")
    beside = _with_file(own, "variants/v/weights.bin")
    assert _identity(beside, file="variants/v/model.plan") != plain


def test_the_identity_stays_with_what_the_speed_does_not_depend_on(manifest: Manifest) -> None:
    plain = _identity(manifest)
    for name in ("variants/v/profile.json", "variants/v/audit.json", "report.html", "labels.txt"):
        changed = _with_file(manifest, name)
        assert _identity(changed) == plain
        own = _with_file(changed, "variants/v/model.plan")
        before = _with_file(manifest, "variants/v/model.plan")
        file = "variants/v/model.plan"
        assert _identity(own, file=file) == _identity(before, file=file)
    assert _identity(manifest, notes=("another",)) == plain


def test_a_stored_profile_is_json_that_a_person_can_read(made: MakeProfile) -> None:
    data = json.loads(made({1: 10.0}).model_dump_json())
    assert data["points"][0]["p50_ms"] == 10.0
    assert data["advice"] == {"form": "dynamic", "throughput": 1, "slo_ms": None, "slo": None}
