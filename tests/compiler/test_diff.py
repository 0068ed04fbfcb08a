"""``deployc diff``: every difference is told, and every gate is seen to hold and to break."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from compiler.diff import SAME, Gates, Side, broken, differences, read_side, same_kind
from compiler.diff.cli import diff
from specs.errors import DeploycError
from specs.manifest import AccuracyResult, FileEntry, Manifest, ParityCase
from specs.profile import Advice, Failure, Form, Interval, Machine, Point, Profile, identity

NAME = "onnxruntime-cpu-fp32"
HERE = Machine(cpu="X", cores=4, threads=8, memory_bytes=2**34, os="Linux", python="3.11")


def _point(batch: int, ms: float, form: Form = "dynamic") -> Point:
    return Point(
        batch=batch,
        form=form,
        samples=100,
        warmup=10,
        mean_ms=ms,
        p50_ms=ms,
        p95_ms=1.5 * ms,
        p99_ms=2 * ms,
        p50_ci=Interval(low=ms, high=ms),
        p99_ci=Interval(low=2 * ms, high=None),
        rate=1000 * batch / ms,
        load_seconds=0.1,
        peak_memory_bytes=2**28,
    )


def _profile(*points: Point, **changes: Any) -> Profile:
    profile = Profile(
        version=1,
        variant=NAME,
        engine="onnxruntime",
        device="cpu",
        precision="fp32",
        identity="",
        machine=HERE,
        measured_at="2026-01-01T00:00:00Z",
        inputs="random tensors, seed 0",
        seconds=1.0,
        points=points or (_point(1, 1.0), _point(8, 4.0)),
        advice=Advice(form="dynamic", throughput=8),
    )
    return profile.model_copy(update=changes)


@pytest.fixture
def side(linear_artifact: Path) -> Side:
    """The linear regression's artifact, with a profile."""
    return _with(read_side(linear_artifact), profiles={NAME: _profile()})


def _with(side: Side, **changes: Any) -> Side:
    """A side that is otherwise, in itself, its manifest (``manifest=``) or its one variant."""
    manifest: Manifest | None = side.manifest
    assert manifest is not None
    if "variant" in changes:
        variant = manifest.variants[0].model_copy(update=changes.pop("variant"))
        changes["manifest"] = {"variants": (variant,)}
    if "manifest" in changes:
        changes["manifest"] = manifest.model_copy(update=changes["manifest"])
    return replace(side, **changes)


def _graph(side: Side, **changes: Any) -> Side:
    assert side.manifest is not None
    return _with(side, manifest={"graph": side.manifest.graph.model_copy(update=changes)})


def _found(a: Side, b: Side) -> dict[tuple[str, str], tuple[Any, Any]]:
    return {(each.section, each.name): (each.old, each.new) for each in differences(a, b)}


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(diff, [str(argument) for argument in arguments])


# --- what differs


def test_an_artifact_does_not_differ_from_itself(side: Side) -> None:
    assert differences(side, side) == []


def test_graph_and_nodes_are_compared(side: Side) -> None:
    assert side.manifest is not None
    graph = side.manifest.graph
    other = _graph(side, opset=graph.opset + 1, parameters=7, nodes={"Relu": 2})
    found = _found(side, other)
    assert found["graph", "opset"] == (graph.opset, graph.opset + 1)
    assert found["graph", "parameters"] == (graph.parameters, 7)
    assert found["nodes", "Relu"] == (0, 2)
    assert {name for section, name in found if section == "nodes"} == {*graph.nodes, "Relu"}


def test_variants_are_compared_by_name_and_gone_and_new_ones_are_told(side: Side) -> None:
    lower = _with(side, variant={"precision": "fp16", "kept": ("/head",)})
    found = _found(side, lower)
    assert found["variants", f"{NAME}: precision"] == ("fp32", "fp16")
    assert found["variants", f"{NAME}: kept"] == ([], ["/head"])
    other = _with(side, variant={"name": "new", "target": "new"})
    found = _found(side, other)
    assert found["variants", NAME] == ("fp32", None)
    assert found["variants", "new"] == (None, "fp32")


def test_what_auto_came_to_is_compared_with_what_it_came_to_before(side: Side) -> None:
    old = _with(side, variant={"target": "best"})
    new = _with(old, variant={"name": "openvino-cpu-int8", "precision": "int8"})
    name = f"{NAME} / openvino-cpu-int8: precision"
    assert _found(old, new)["variants", name] == ("fp32", "int8")


def test_parity_accuracy_sizes_and_toolchain_are_compared(side: Side) -> None:
    assert side.manifest is not None
    case = ParityCase(case="batch 1", max_abs=0.5, max_excess=0.1)
    result = AccuracyResult(metric="top1", count=10, reference=9, variant=8)
    other = _with(side, variant={"parity": (case,), "accuracy": result})
    files = {**side.manifest.files, "model.onnx": FileEntry(sha256="", bytes=10_000)}
    other = _with(other, manifest={"files": files, "toolchain": {"onnx": "9"}})
    found = _found(side, other)
    assert found["parity", f"{NAME}: largest difference"][1] == 0.5
    assert found["accuracy", NAME] == (None, "top1 8/10")
    assert found["size", "graph"] == (side.manifest.files["model.onnx"].bytes, 10_000)
    assert found["toolchain", "onnx"][1] == "9"


def test_latency_is_compared_at_the_batches_that_both_measured(side: Side) -> None:
    points = (_point(8, 5.0), _point(16, 9.0), _point(1, 1.0, "fixed"))
    other = _with(side, profiles={NAME: _profile(*points)})
    found = {name: value for (_, name), value in _found(side, other).items()}
    assert found == {
        f"{NAME}: batch 8 dynamic: p50": (4.0, 5.0),
        f"{NAME}: batch 8 dynamic: p99": (8.0, 10.0),
    }


def test_another_machine_is_a_difference(side: Side) -> None:
    there = _with(side, profiles={NAME: _profile(machine=HERE.model_copy(update={"cpu": "Y"}))})
    assert [section for section, _ in _found(side, there)] == ["machine"]


def test_specs_are_compared_with_their_defaults_filled_in(tmp_path: Path, root: Path) -> None:
    spec = root / "specs" / "linear_regression.yaml"
    shutil.copytree(root / "specs" / "models", tmp_path / "models")
    data = yaml.safe_load(spec.read_text())
    data["verify"] = {"atol": 1e-3, "rtol": 0.5}
    data["dynamic_axes"]["batch"]["max"] = 64
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    found = _found(read_side(spec), read_side(tmp_path / "other.yaml"))
    assert found == {
        ("spec", "verify.rtol"): (1e-3, 0.5),
        ("spec", "dynamic_axes.batch.max"): (32, 64),
    }


def test_an_artifact_and_a_spec_are_not_compared(side: Side, root: Path) -> None:
    spec = read_side(root / "specs" / "linear_regression.yaml")
    with pytest.raises(DeploycError, match=r"is an artifact, .* a spec") as caught:
        same_kind(side, spec)
    assert caught.value.code == "diff_kinds"
    with pytest.raises(DeploycError, match=r"is a spec, .* an artifact"):
        same_kind(spec, side)


# --- what is read


def _measured(artifact: Path, folder: Path, **changes: Any) -> Path:
    """A copy of an artifact with a profile in it."""
    shutil.copytree(artifact, folder)
    manifest = read_side(artifact).manifest
    assert manifest is not None
    variant = manifest.variants[0]
    profile = _profile(**{"identity": identity(manifest, variant), **changes})
    (folder / "variants" / NAME).mkdir(parents=True, exist_ok=True)
    (folder / "variants" / NAME / "profile.json").write_text(profile.model_dump_json())
    return folder


def test_a_profile_of_this_very_variant_is_read(linear_artifact: Path, tmp_path: Path) -> None:
    found = read_side(_measured(linear_artifact, tmp_path / "a"))
    assert list(found.profiles) == [NAME]
    assert read_side(linear_artifact).profiles == {}


def test_a_profile_of_another_build_is_left_out_and_told(
    linear_artifact: Path, tmp_path: Path
) -> None:
    found = read_side(_measured(linear_artifact, tmp_path / "a", identity="other"))
    assert found.profiles == {}
    assert "of another build, left out" in found.notes[0]


def test_a_changed_file_of_an_artifact_is_refused(linear_artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(linear_artifact, tmp_path / "a")
    (tmp_path / "a" / "model.onnx").write_bytes(b"")
    with pytest.raises(DeploycError, match="not the file that was built"):
        read_side(tmp_path / "a")


# --- gates


def _gate(a: Side, b: Side, **gates: Any) -> list[str]:
    return broken(a, b, Gates(**gates))


def test_no_gate_is_broken_by_an_artifact_and_itself(side: Side) -> None:
    scored = AccuracyResult(metric="top1", count=10, reference=9, variant=9)
    same = _with(side, variant={"accuracy": scored})
    bounds = {"latency": 0.0, "size": 0.0, "accuracy": 0.0, "parity": 1.0}
    assert _gate(same, same, **bounds, same=tuple(SAME)) == []


def test_latency_may_grow_up_to_its_bound(side: Side) -> None:
    slower = _with(side, profiles={NAME: _profile(_point(1, 1.0), _point(8, 4.2))})
    assert _gate(side, slower, latency=0.06) == []
    (told,) = _gate(side, slower, latency=0.04)
    assert told == (
        f"latency of {NAME}, batch 8 dynamic, p50: 4 -> 4.2 ms (+5.0%), allowed are +4 %"
    )
    assert _gate(slower, side, latency=0.0) == []


def test_what_the_profile_says_of_a_point_is_told_with_it(side: Side) -> None:
    point = _point(8, 9.0).model_copy(update={"flags": ("unstable",)})
    odd = _with(side, profiles={NAME: _profile(_point(1, 1.0), point)})
    (told,) = _gate(side, odd, latency=0.1)
    assert told.endswith("(+125.0%), allowed are +10 %; the profile calls it unstable")


def test_the_latency_gate_looks_at_the_quantile_that_is_asked(side: Side) -> None:
    point = _point(8, 4.0).model_copy(update={"p99_ms": 20.0})
    spiky = _with(side, profiles={NAME: _profile(_point(1, 1.0), point)})
    assert _gate(side, spiky, latency=0.1) == []
    assert "p99: 8 -> 20 ms" in _gate(side, spiky, latency=0.1, quantile="p99")[0]


@pytest.mark.parametrize("where", ["A", "B"])
def test_a_latency_that_was_not_measured_breaks_its_gate(side: Side, where: str) -> None:
    bare = _with(side, profiles={})
    sides = (bare, side) if where == "A" else (side, bare)
    (told,) = _gate(*sides, latency=9.0)
    assert "not measured in" in told
    assert f"run `deployc profile {side.path}`" in told


def test_latencies_of_two_machines_break_the_gate_unless_any_will_do(side: Side) -> None:
    machine = HERE.model_copy(update={"threads": 2})
    there = _with(side, profiles={NAME: _profile(machine=machine)})
    (told,) = _gate(side, there, latency=9.0)
    assert "measured on different machines" in told
    assert _gate(side, there, latency=9.0, any_machine=True) == []


def test_a_batch_that_failed_in_b_breaks_the_latency_gate(side: Side) -> None:
    failure = Failure(batch=8, form="dynamic", code="out_of_memory", message="too much")
    other = _with(side, profiles={NAME: _profile(_point(1, 1.0), failures=(failure,))})
    (told,) = _gate(side, other, latency=9.0)
    assert told.endswith("batch 8 dynamic failed in B: too much")


def test_no_common_batch_breaks_the_latency_gate(side: Side) -> None:
    other = _with(side, profiles={NAME: _profile(_point(2, 1.0))})
    (told,) = _gate(side, other, latency=9.0)
    assert told.endswith("no batch size was measured in both")


def test_sizes_may_grow_up_to_their_bound(side: Side) -> None:
    assert side.manifest is not None
    graph = {"model.onnx": FileEntry(sha256="", bytes=1000)}
    old = _with(side, manifest={"files": graph})
    grown = {"model.onnx": FileEntry(sha256="", bytes=1100)}
    new = _with(side, manifest={"files": grown})
    assert _gate(old, new, size=0.1) == []
    (told,) = _gate(old, new, size=0.09)
    assert told == "size of graph: 1,000 -> 1,100 bytes (+10.0%), allowed are +9 %"
    plan = {**graph, f"variants/{NAME}/a.plan": FileEntry(sha256="", bytes=1)}
    records = {**graph, f"variants/{NAME}/profile.json": FileEntry(sha256="", bytes=10**9)}
    assert _gate(old, _with(side, manifest={"files": records}), size=0.0) == []
    assert "from nothing" in _gate(old, _with(side, manifest={"files": plan}), size=5.0)[0]


def _scored(side: Side, right: int, count: int = 100, metric: str = "top1") -> Side:
    result = AccuracyResult(metric=metric, count=count, reference=count, variant=right)
    return _with(side, variant={"accuracy": result})


def test_accuracy_may_drop_up_to_its_bound(side: Side) -> None:
    old, new = _scored(side, 90), _scored(side, 88)
    assert _gate(old, new, accuracy=0.03) == []
    (told,) = _gate(old, new, accuracy=0.01)
    assert told.endswith("90/100 -> 88/100, a drop of 0.0200, allowed are 0.01")
    assert _gate(new, old, accuracy=0.0) == []


@pytest.mark.parametrize("change", [{"count": 99}, {"metric": "top5"}])
def test_accuracies_over_other_samples_break_the_gate(side: Side, change: dict[str, Any]) -> None:
    (told,) = _gate(_scored(side, 90), _scored(side, 95, **change), accuracy=0.5)
    assert "are not comparable" in told


def test_an_accuracy_that_was_not_measured_breaks_its_gate(side: Side) -> None:
    assert "not measured in A" in _gate(side, _scored(side, 9), accuracy=0.5)[0]
    assert "not measured in B" in _gate(_scored(side, 9), side, accuracy=0.5)[0]


def _apart(side: Side, difference: float) -> Side:
    case = ParityCase(case="batch 1", max_abs=difference, max_excess=0.0)
    return _with(side, variant={"parity": (case,)})


def test_parity_may_grow_by_its_factor_and_rounding_does_not_count(side: Side) -> None:
    assert _gate(_apart(side, 1e-4), _apart(side, 1.9e-4), parity=2.0) == []
    (told,) = _gate(_apart(side, 1e-4), _apart(side, 3e-4), parity=2.0)
    assert told.endswith("largest difference 0.0001 -> 0.0003 (3 times), allowed are 2 times")
    assert _gate(_apart(side, 0.0), _apart(side, 9e-7), parity=1.0) == []
    assert len(_gate(_apart(side, 0.0), _apart(side, 2e-6), parity=1.0)) == 1


@pytest.mark.parametrize("gate", ["latency", "size", "accuracy", "parity"])
def test_a_variant_that_b_lacks_breaks_every_gate(side: Side, gate: str) -> None:
    other = _with(side, variant={"name": "new", "target": "new"})
    assert f"A's variant {NAME} is not in B" in _gate(side, other, **{gate: 9.0})[0]


CHANGES: list[tuple[str, Callable[[Side], Side]]] = [
    ("opset", lambda side: _graph(side, opset=9)),
    ("exporter", lambda side: _graph(side, exporter="dynamo")),
    ("precision", lambda side: _with(side, variant={"precision": "int8"})),
    ("nodes", lambda side: _graph(side, nodes={"Relu": 1})),
    ("parameters", lambda side: _graph(side, parameters=1)),
    ("toolchain", lambda side: _with(side, manifest={"toolchain": {}})),
]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_what_must_be_the_same_breaks_its_gate_alone(
    side: Side, name: str, change: Callable[[Side], Side]
) -> None:
    (told,) = _gate(side, change(side), same=tuple(SAME))
    assert told.startswith(f"same {name}: ")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("inputs: {X: {shape: [batch, 3]}}", {"inputs", "spec"}),
        ("outputs: {Y: {shape: [batch, 2]}}", {"outputs", "spec"}),
        ("dynamic_axes: {batch: {max: 4}}", {"inputs", "outputs", "spec"}),
        ("description: x", {"spec"}),
        ("export: {opset: 9}", {"opset", "spec"}),
        ("targets: [{engine: onnxruntime, precision: fp16}]", {"precision", "spec"}),
    ],
)
def test_specs_are_held_to_what_they_tell(
    line: str, names: set[str], tmp_path: Path, root: Path
) -> None:
    spec = root / "specs" / "linear_regression.yaml"
    (tmp_path / "models").symlink_to(root / "specs" / "models")
    data = {**yaml.safe_load(spec.read_text()), **yaml.safe_load(line)}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    told = _gate(read_side(spec), read_side(tmp_path / "b.yaml"), same=tuple(SAME))
    unknown = {"nodes", "parameters", "toolchain"}
    assert {text.split()[1].rstrip(":") for text in told} == names | unknown
    assert all("does not tell" in text for text in told if text.split()[1].rstrip(":") in unknown)


def test_figures_cannot_be_asked_of_specs(root: Path) -> None:
    spec = read_side(root / "specs" / "linear_regression.yaml")
    told = _gate(spec, spec, latency=9.0, size=9.0, accuracy=0.5, parity=9.0)
    assert len(told) == 4
    assert all("build both" in text for text in told)


# --- the command


def test_the_command_exits_0_whatever_differs_unless_it_is_asked(root: Path) -> None:
    a, b = root / "specs" / "resnet50.yaml", root / "specs" / "resnet50_bs1.yaml"
    told = _run(a, b)
    assert told.exit_code == 0
    assert "dynamic_axes.batch.max" in told.stdout
    assert _run(a, b, "--exit-code").exit_code == 1
    assert _run(a, a, "--exit-code").exit_code == 0
    assert "no difference" in _run(a, a).stdout


def test_a_broken_gate_exits_1_and_says_why_on_stderr(root: Path) -> None:
    a, b = root / "specs" / "resnet50.yaml", root / "specs" / "resnet50_bs1.yaml"
    held = _run(a, b, "--same", "opset, precision,exporter")
    assert (held.exit_code, held.stderr) == (0, "")
    gone = _run(a, b, "--same", "inputs")
    assert gone.exit_code == 1
    assert gone.stderr == "error: same inputs: they differ, see the table\n"


def test_json_holds_differences_notes_and_what_is_broken(
    linear_artifact: Path, tmp_path: Path
) -> None:
    other = _measured(linear_artifact, tmp_path / "b")
    done = _run(linear_artifact, other, "--json", "--max-latency-regression", "5%")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["kind"], found["differences"]) == (1, "artifact", [])
    assert "latency: not measured in" in found["notes"][0]
    assert found["broken"][0].startswith(f"latency of {NAME}: not measured in {linear_artifact}")


def test_the_command_compares_measured_artifacts(linear_artifact: Path, tmp_path: Path) -> None:
    old = _measured(linear_artifact, tmp_path / "old")
    points = (_point(1, 1.0), _point(8, 6.0))
    new = _measured(linear_artifact, tmp_path / "new", points=points)
    held = _run(old, new, "--max-latency-regression", "60%", "--max-size-growth", "0%")
    assert held.exit_code == 0, held.stderr
    assert f"{NAME}: batch 8 dynamic: p50" in held.stdout
    assert "+50.0%" in held.stdout
    done = _run(old, new, "--max-latency-regression", "0.49")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: latency of {NAME}, batch 8 dynamic, p50: 4 -> 6 ms")


@pytest.mark.parametrize("share", ["5", "x", "-1%", "nan", "nan%", "inf", "1.0", ""])
def test_a_share_that_is_none_is_wrong_usage(share: str, root: Path) -> None:
    spec = root / "specs" / "digits.yaml"
    done = _run(spec, spec, "--max-size-growth", share)
    assert done.exit_code == 2
    assert "write 5% or 0.05" in done.stderr


def test_a_name_that_nothing_has_is_wrong_usage_and_the_nearest_is_named(root: Path) -> None:
    spec = root / "specs" / "digits.yaml"
    done = _run(spec, spec, "--same", "opst")
    assert (done.exit_code, "did you mean 'opset'?" in done.stderr) == (2, True)
