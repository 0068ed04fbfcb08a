"""What the targets of a spec come to."""

from __future__ import annotations

from typing import Any

import pytest

from compiler.targets import LADDER, chosen, int8_possible, ladders
from specs.engines import engine_languages
from specs.errors import SpecError
from specs.schema import Spec, Target

JUDGED = {"samples": "*.png", "tolerance": {"int8": {"atol": 1, "rtol": 1}}}


def _spec(*targets: dict[str, Any], **parts: Any) -> Spec:
    return Spec.model_validate(
        {
            "version": 1,
            "name": "net",
            "model": {"onnx": "net.onnx"},
            "inputs": {"x": {"shape": ["batch", 4]}},
            "outputs": {"y": {"shape": ["batch", 3]}},
            "dynamic_axes": {"batch": {"min": 1, "max": 8}},
            "targets": list(targets) or [{"engine": "onnxruntime"}],
            **parts,
        }
    )


def _names(target: Target, spec: Spec) -> list[list[str]]:
    return [[rung.name for rung in ladder.rungs] for ladder in ladders(target, spec)]


def test_a_plain_target_is_one_ladder_with_one_rung() -> None:
    spec = _spec({"engine": "onnxruntime", "options": {"parallel": True}})
    (ladder,) = ladders(spec.targets[0], spec)
    (rung,) = ladder.rungs
    assert (rung.name, rung.device, rung.precision) == ("onnxruntime-cpu-fp32", "cpu", "fp32")
    assert rung.options == {"parallel": True}


def test_a_targets_own_name_is_the_variants() -> None:
    spec = _spec({"engine": "onnxruntime", "name": "quick"})
    assert _names(spec.targets[0], spec) == [["quick"]]


def test_a_target_without_a_device_gets_its_engines_first() -> None:
    for name, engine in engine_languages().items():
        target = Target(engine=name)
        assert target.devices == (engine.devices[0],)


def test_precision_auto_climbs_from_int8_to_fp32_where_int8_can_be_judged() -> None:
    target = {"engine": "onnxruntime", "device": "cuda", "precision": "auto"}
    spec = _spec(target, verify=JUDGED)
    assert _names(spec.targets[0], spec) == [[f"onnxruntime-cuda-{each}" for each in LADDER]]


def test_precision_auto_leaves_out_what_the_engine_has_no_kernels_for_on_the_device() -> None:
    spec = _spec({"engine": "onnxruntime", "precision": "auto"}, verify=JUDGED)
    names = [f"onnxruntime-cpu-{each}" for each in ("int8", "fp16", "fp32")]
    assert _names(spec.targets[0], spec) == [names]


@pytest.mark.parametrize(
    ("verify", "mode", "possible"),
    [
        ({}, "static", False),
        ({"samples": "*.png"}, "static", False),
        ({"tolerance": JUDGED["tolerance"]}, "static", False),
        ({"tolerance": JUDGED["tolerance"]}, "dynamic", True),
        (JUDGED, "static", True),
    ],
)
def test_int8_is_tried_only_with_a_judge_and_items_to_calibrate_with(
    verify: dict[str, Any], mode: str, possible: bool
) -> None:
    target = {"engine": "onnxruntime", "precision": "auto", "quantize": {"mode": mode}}
    spec = _spec(target, verify=verify)
    assert int8_possible(spec.targets[0], spec) is possible
    (names,) = _names(spec.targets[0], spec)
    assert ("onnxruntime-cpu-int8" in names) is possible


def test_engine_auto_is_a_ladder_for_every_engine_on_every_device_that_it_runs_on() -> None:
    spec = _spec({"engine": "auto"})
    expected = {
        f"{name}-{device}-fp32"
        for name, engine in engine_languages().items()
        for device in engine.devices
    }
    assert {name for (name,) in _names(spec.targets[0], spec)} == expected


def test_engine_auto_on_a_named_device_stays_on_it() -> None:
    spec = _spec({"engine": "auto", "device": "cpu"})
    assert all("-cpu-" in name for (name,) in _names(spec.targets[0], spec))
    assert spec.targets[0].variant == "auto-cpu-fp32"


def test_targets_are_chosen_by_name_in_the_specs_order() -> None:
    spec = _spec({"engine": "onnxruntime", "name": "a"}, {"engine": "onnxruntime", "name": "b"})
    assert [target.name for target in chosen(spec, [])] == ["a", "b"]
    assert [target.name for target in chosen(spec, ["b", "a"])] == ["a", "b"]
    assert [target.name for target in chosen(spec, ["b"])] == ["b"]
    with pytest.raises(SpecError, match="no target 'c'"):
        chosen(spec, ["c"])
