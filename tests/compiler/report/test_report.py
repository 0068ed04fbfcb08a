"""``report.html``: one page that needs nothing else, says all, and is the same each time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from compiler.report import REPORT, drawn_with, lacking, render, render_folder
from compiler.report.facts import bytes_text, files_by_part, runs, shares
from compiler.report.plots import COLORS, compare, latency, throughput
from runtime.artifact import read_manifest
from specs.audit import Audit, Drift, LayerDrift, Placement, PrecisionShare
from specs.errors import ArtifactError
from specs.manifest import (
    AccuracyResult,
    Candidate,
    Choice,
    FileEntry,
    Manifest,
    ParityCase,
    WeightsOrigin,
)
from specs.profile import (
    PROFILE_VERSION,
    Advice,
    Failure,
    Interval,
    Machine,
    Point,
    Profile,
    profile_path,
)

VARIANT = "onnxruntime-cpu-fp32"
VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})


@pytest.fixture
def manifest(linear_artifact: Path) -> Manifest:
    """That of a small artifact, right after its build."""
    return read_manifest(linear_artifact)


def _point(batch: int, ms: float, form: Any = "dynamic", **fields: Any) -> Point:
    known = Interval(low=0.99 * ms, high=1.01 * ms)
    given: dict[str, Any] = {
        "p50_ms": ms,
        "p95_ms": 1.1 * ms,
        "p99_ms": 1.2 * ms,
        "mean_ms": ms,
        "p50_ci": known,
        "p99_ci": known,
        "rate": 1e3 * batch / ms,
        "samples": 500,
        "warmup": 10,
        "load_seconds": 0.1,
        "peak_memory_bytes": 100_000_000 + batch,
        **fields,
    }
    return Point(batch=batch, form=form, **given)


@pytest.fixture
def profile() -> Profile:
    """A profile with every kind of row."""
    points = (
        _point(1, 10.0),
        _point(2, 25.0, flags=("slower_than_smaller",)),
        _point(4, 26.0, p99_ci=Interval(low=20.0, high=None), flags=("few_samples",)),
        _point(1, 9.0, "fixed"),
        _point(2, 16.0, "fixed", flags=("unstable",)),
    )
    return Profile(
        version=PROFILE_VERSION,
        variant=VARIANT,
        engine="onnxruntime",
        device="cpu",
        precision="fp32",
        identity="0" * 64,
        machine=Machine(
            cpu="The CPU", cores=2, threads=2, memory_bytes=2**34, os="Linux", python="3.11"
        ),
        engine_details={"onnxruntime": "1.31"},
        measured_at="2026-01-02T03:04:05+00:00",
        inputs="golden case samples",
        seconds=3.0,
        points=points,
        failures=(Failure(batch=4, form="fixed", code="out_of_memory", message="no memory left"),),
        advice=Advice(form="dynamic", throughput=4, slo_ms=70.0, slo=4),
    )


@pytest.fixture
def audit() -> Audit:
    """An audit with every part."""
    layers = (
        LayerDrift(
            name="conv_out", node="conv (Conv)", dtype="int8", max_abs=0.5, relative=0.1, excess=2.5
        ),
        LayerDrift(
            name="lost", node="exp (Exp)", dtype="float16", max_abs=None, relative=None, excess=None
        ),
    )
    return Audit(
        variant=VARIANT,
        placement=Placement(
            asked="cpu",
            source="told by onnxruntime",
            devices={"cpu": 7},
            places={"CPUExecutionProvider": 7},
        ),
        precision=PrecisionShare(
            asked="fp32", source="from the graph", shares={"fp32": 1.0}, floor=0.9
        ),
        drift=Drift(
            reference="the fp32 graph",
            case="samples, batch 2",
            graph="variants/v/model.onnx",
            how="both graphs were run",
            rule="at most 0.1 of the reference",
            layers=layers,
            first="conv_out",
            worst="lost",
        ),
        not_run=("device memory was not looked at",),
    )


def text_of(page: str) -> str:
    """What a person reads: no tags, single spaces."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


class Balance(HTMLParser):
    """Checks that every element is closed by its own tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def whole(manifest: Manifest, profile: Profile, audit: Audit) -> str:
    """The page with a profile and an audit."""
    return render(manifest, {VARIANT: profile}, {VARIANT: audit})


def test_the_page_right_after_a_build_says_what_was_not_run(manifest: Manifest) -> None:
    page = render(manifest, {}, {})
    told = text_of(page)
    assert f"{VARIANT}: latency, throughput and memory; deployc profile measures them." in told
    assert f"{VARIANT}: accuracy; the spec names no labelled samples." in told
    assert "A GPU: no variant of this artifact is for one, and nothing was run on one." in told
    assert "parity with the reference" in told
    assert "<svg" not in page


def test_the_page_is_well_formed_with_and_without_all_its_parts(
    manifest: Manifest, whole: str
) -> None:
    for page in (render(manifest, {}, {}), whole):
        checker = Balance()
        checker.feed(page)
        assert checker.open == []


def test_the_page_needs_no_script_and_no_other_host(whole: str) -> None:
    assert "<script" not in whole
    # Names of XML's vocabularies look like addresses, and are never fetched.
    bare = re.sub(r' xmlns(:xlink)?="[^"]*"', "", whole)
    assert re.findall(r"https?:|//[a-z]|url\((?!#)|@import", bare) == []
    assert re.findall(r'(?:src|href)="(?!#)', bare) == []
    assert "default-src 'none'" in whole


def test_the_same_arguments_give_the_same_bytes_in_another_process(
    manifest: Manifest, profile: Profile, audit: Audit, whole: str, tmp_path: Path
) -> None:
    assert render(manifest, {VARIANT: profile}, {VARIANT: audit}) == whole
    for name, model in (("m", manifest), ("p", profile), ("a", audit)):
        (tmp_path / name).write_text(model.model_dump_json(by_alias=True))
    script = (
        "from pathlib import Path; from compiler.report import render; import sys\n"
        "from specs.audit import Audit; from specs.manifest import Manifest\n"
        "from specs.profile import Profile\n"
        "read = lambda kind, name: kind.model_validate_json(Path(name).read_text())\n"
        "p, a = read(Profile, 'p'), read(Audit, 'a')\n"
        "page = render(read(Manifest, 'm'), {p.variant: p}, {a.variant: a})\n"
        "sys.stdout.buffer.write(page.encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == whole


def test_what_comes_from_outside_is_text_and_never_markup(manifest: Manifest) -> None:
    bad = "<script>alert(1)</script>"
    variant = manifest.variants[0].model_copy(update={"notes": (bad,), "details": {bad: bad}})
    page = render(manifest.model_copy(update={"description": bad, "variants": (variant,)}), {}, {})
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_random_weights_are_an_alarm(manifest: Manifest) -> None:
    weights = WeightsOrigin(origin="random", seed=0)
    page = render(manifest.model_copy(update={"weights": weights}), {}, {})
    assert 'class="alarm">Warning: weights are RANDOM' in page
    assert 'class="alarm"' not in render(manifest, {}, {})


def test_the_profile_is_drawn_and_told(whole: str) -> None:
    told = text_of(whole)
    assert whole.count("<svg") == 3
    assert "For throughput: batch 4" in told
    assert "For the SLO of 70 ms: batch 4, twice its p99 (of 500 runs) is 62.4 ms" in told
    assert "on The CPU, 2 cores, 2 threads, 16 GiB, Linux" in told
    assert "slower per item than a smaller size" in told
    assert "median not settled" in told
    assert "NOT measured: no memory left [out_of_memory]" in told
    assert f"{VARIANT}: profile of batch 4 (fixed): no memory left." in told


def test_the_audit_is_told(whole: str) -> None:
    told = text_of(whole)
    assert "7 on CPUExecutionProvider; as asked" in told
    assert "fp32 100 %; as asked" in told
    assert "First divergence: conv (Conv), tensor conv_out" in told
    assert "not finite" in told
    assert f"{VARIANT}: device memory was not looked at" in told


def test_an_audit_that_found_otherwise_says_so(manifest: Manifest, audit: Audit) -> None:
    placement = audit.placement.model_copy(
        update={"off_device": 3, "off_device_names": ("/head/NonZero (NonZero)",)}
    )
    precision = audit.precision.model_copy(update={"shares": {"fp32": 0.25, "int8": 0.75}})
    other = audit.model_copy(update={"placement": placement, "precision": precision})
    told = text_of(render(manifest, {}, {VARIANT: other}))
    assert "3 nodes elsewhere" in told
    assert "Elsewhere: /head/NonZero (NonZero)." in told
    assert "fp32 25 %, int8 75 %; below the floor" in told


def test_parity_shows_each_case_as_a_share_of_its_tolerance(manifest: Manifest) -> None:
    parity = (
        ParityCase(case="batch 1", max_abs=1e-6, max_excess=0.25),
        ParityCase(case="batch 32", max_abs=5e-4, max_excess=0.75),
    )
    variant = manifest.variants[0].model_copy(update={"parity": parity})
    page = render(manifest.model_copy(update={"variants": (variant,)}), {}, {})
    assert 'class="fill" style="width: 25.0%"' in page
    assert 'class="fill near" style="width: 75.0%"' in page
    assert "batch 32 5.0e-04" in text_of(page)


def test_parity_without_a_bound_and_accuracy_are_told(manifest: Manifest) -> None:
    accuracy = AccuracyResult(metric="top1", count=200, reference=180, variant=178)
    variant = manifest.variants[0].model_copy(update={"tolerance": None, "accuracy": accuracy})
    told = text_of(render(manifest.model_copy(update={"variants": (variant,)}), {}, {}))
    assert "measured and held to no bound" in told
    assert "top1: 178 of 200 right (89.00 %), the reference 180 (90.00 %)" in told


def test_the_choice_of_auto_is_a_table_and_what_was_not_run_stands_above(
    manifest: Manifest,
) -> None:
    rows = (
        Candidate(variant="onnxruntime-cpu-int8", outcome="chosen", batch=8, latency_ms=4.0),
        Candidate(variant="openvino-cpu-fp32", outcome="slower", batch=8, latency_ms=9.0),
        Candidate(variant="tensorrt-cuda-fp16", outcome="not_run", reason="no libnvinfer.so.11"),
        Candidate(variant="onnxruntime-cpu-bf16", outcome="failed", reason="accuracy fell"),
    )
    choice = Choice(target="auto-any-auto", rule="most items per second", candidates=rows)
    told = text_of(render(manifest.model_copy(update={"choices": (choice,)}), {}, {}))
    assert "Why “auto-any-auto” chose as it did" in told
    assert "onnxruntime-cpu-int8 chosen 8 4 ms 2,000" in told
    assert "tensorrt-cuda-fp16 (for auto-any-auto): no libnvinfer.so.11." in told


def test_a_cuda_variant_that_was_profiled_counts_as_run_on_its_gpu(
    manifest: Manifest, profile: Profile
) -> None:
    variant = manifest.variants[0].model_copy(update={"device": "cuda"})
    machine = profile.machine.model_copy(update={"gpu": "A GPU", "driver": "580"})
    point = _point(1, 1.0, gpu_memory_bytes=5)
    measured = profile.model_copy(update={"machine": machine, "points": (point,)})
    sides = runs(manifest.model_copy(update={"variants": (variant,)}), {VARIANT: measured}, {})
    assert any("A GPU (driver 580)" in text for text in sides.run)
    assert not any("GPU" in text for text in sides.not_run)


def test_what_no_variant_has_run_is_said_once(manifest: Manifest, profile: Profile) -> None:
    other = manifest.variants[0].model_copy(update={"name": "other"})
    both = manifest.model_copy(update={"variants": (manifest.variants[0], other)})
    missing = runs(both, {VARIANT: profile}, {}).not_run
    assert "every variant: audit of placement and precision." in missing
    assert "other: latency, throughput and memory; deployc profile measures them." in missing


def test_several_profiles_are_compared(manifest: Manifest, profile: Profile) -> None:
    other = manifest.variants[0].model_copy(update={"name": "other"})
    both = manifest.model_copy(update={"variants": (manifest.variants[0], other)})
    page = render(both, {VARIANT: profile, "other": profile}, {})
    assert "Variants side by side" in page
    assert page.count("<svg") == 7


def test_the_page_does_not_depend_on_its_own_entry(manifest: Manifest) -> None:
    entry = FileEntry(sha256="f" * 64, bytes=123_456_789)
    with_page = manifest.model_copy(update={"files": {**manifest.files, REPORT: entry}})
    assert render(with_page, {}, {}) == render(manifest, {}, {})


def test_drawings_take_their_colours_from_the_pages_theme(profile: Profile, whole: str) -> None:
    drawing = latency(profile)
    assert not any(color in drawing for color in COLORS.values())
    assert {"var(--dynamic)", "var(--fixed)", "var(--bound)"} <= set(
        re.findall(r"var\(--\w+\)", drawing)
    )
    for role in COLORS:  # light, dark and print
        assert whole.count(f"--{role}: #") == 3


def test_drawings_scale_and_their_words_are_text(profile: Profile) -> None:
    drawing = throughput(profile)
    head = drawing[: drawing.index(">")]
    assert "viewBox" in head
    assert " width=" not in head
    assert "items per second</text>" in drawing
    assert "4: throughput and SLO</text>" in drawing


def test_no_id_in_a_drawing_is_without_use(profile: Profile) -> None:
    for drawing in (latency(profile), throughput(profile), compare({"a": profile, "b": profile})):
        ids = re.findall(r' id="([^"]*)"', drawing)
        assert len(ids) == len(set(ids))
        assert all(f"#{name}" in drawing for name in ids)


def test_profiles_and_audits_of_a_folder_are_found(
    manifest: Manifest, profile: Profile, audit: Audit, tmp_path: Path
) -> None:
    folder = (tmp_path / profile_path(VARIANT)).parent
    folder.mkdir(parents=True)
    (folder / "profile.json").write_text(profile.model_dump_json())
    (folder / "audit.json").write_text(audit.model_dump_json())
    found = render_folder(tmp_path, manifest)
    assert found == render(manifest, {VARIANT: profile}, {VARIANT: audit})
    newer = profile.model_copy(update={"inputs": "something newer"})
    assert "something newer" in render_folder(tmp_path, manifest, {VARIANT: newer})
    other = audit.model_copy(update={"not_run": ("something else",)})
    assert "something else" in render_folder(tmp_path, manifest, audits={VARIANT: other})
    (folder / "audit.json").write_text("{}")
    with pytest.raises(ArtifactError) as caught:
        render_folder(tmp_path, manifest)
    assert caught.value.code == "audit_invalid"


def test_what_drawing_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking() == ()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert lacking() == ("jinja2",)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (13_900_000, "13.9 MB"), (2e12, "2 TB")],
)
def test_bytes_are_told_in_decimal_units(count: float, expected: str) -> None:
    assert bytes_text(count) == expected


def test_files_are_summed_by_what_they_are_for(manifest: Manifest) -> None:
    names = ("model.onnx", "model.onnx.data", "golden/a", "variants/v/x", "variants/v/y", REPORT)
    files = {name: FileEntry(sha256="", bytes=1) for name in names}
    found = files_by_part(manifest.model_copy(update={"files": files}), REPORT)
    assert found == {"portable graph": 2, "golden tensors": 1, "variant v": 2}


def test_bars_are_ordered_by_length_and_the_longest_is_full() -> None:
    found = shares({"b": 1.0, "a": 1.0, "c": 4.0}, {"a": "1", "b": "1", "c": "4"})
    assert [(bar.name, bar.length) for bar in found] == [("c", 100), ("a", 25), ("b", 25)]
    assert shares({}, {}) == []


def test_what_the_page_is_drawn_with_is_told_for_the_key_of_its_stage() -> None:
    found = drawn_with()
    assert found.keys() == {"jinja2", "matplotlib", "report.html.j2", "style.css"}
    assert all(found.values())
