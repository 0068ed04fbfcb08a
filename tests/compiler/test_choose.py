"""``auto``: what is possible is built, proven and measured, and the table says why one is first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from compiler import choose
from compiler.cli import build_command
from runtime.predictor import Predictor
from specs.errors import DeploycError, EngineError
from specs.manifest import Candidate, Choice, Manifest

BuildSpec = Callable[..., Any]
Spec = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU's variants would make other rows; and what another test measured is not taken."""
    monkeypatch.setenv("DEPLOYC_CACHE", str(tmp_path / "cache"))

    def missing() -> None:
        raise EngineError("no NVIDIA driver here: libcuda.so.1 is missing", code="device_missing")

    monkeypatch.setattr(choose, "_require_driver", missing)


def _clock(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> None:
    """Give every engine a time per batch, in milliseconds, in place of this machine's noise."""

    def measured(predictor: Predictor, _golden: Path, sizes: Sequence[int]) -> dict[str, float]:
        return {str(size): times[predictor.variant.engine] * size for size in sizes}

    monkeypatch.setattr(choose, "time_batches", measured)


def _choice(manifest: Manifest) -> tuple[Choice, dict[str, Candidate]]:
    (choice,) = manifest.choices
    return choice, {row.variant: row for row in choice.candidates}


CPU = {"engine": "auto", "device": "cpu"}


@pytest.mark.parametrize("fast", ["onnxruntime", "openvino"])
def test_the_fastest_that_holds_is_preferred_and_all_stay_in_the_artifact(
    spec: Spec, build_spec: BuildSpec, monkeypatch: pytest.MonkeyPatch, fast: str
) -> None:
    times = {"onnxruntime": 2.0, "openvino": 2.0, "torch": 3.0, fast: 1.0}
    _clock(monkeypatch, times)
    manifest = build_spec(spec(targets=[CPU])).manifest
    choice, rows = _choice(manifest)
    assert manifest.variants[0].name == f"{fast}-cpu-fp32"
    assert {variant.engine for variant in manifest.variants} == set(times)
    assert rows[f"{fast}-cpu-fp32"].outcome == "chosen"
    assert [row.outcome for row in rows.values()].count("chosen") == 1
    assert rows["torch-cpu-fp32"].outcome == "slower"
    assert rows["torch-cpu-fp32"].latency_ms == 12.0
    assert "batch 4, the batch axis's opt" in choice.rule


def test_a_device_that_is_not_here_is_not_run_and_never_passed(
    spec: Spec, build_spec: BuildSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clock(monkeypatch, {"onnxruntime": 1.0, "openvino": 2.0, "torch": 3.0})
    manifest = build_spec(spec(targets=[{"engine": "auto"}])).manifest
    _, rows = _choice(manifest)
    row = rows["tensorrt-cuda-fp32"]
    assert (row.outcome, row.rate) == ("not_run", None)
    assert "libcuda.so.1 is missing" in row.reason
    assert all(variant.device == "cpu" for variant in manifest.variants)


def test_with_an_slo_each_is_measured_at_the_largest_batch_that_takes_half_of_it(
    spec: Spec, build_spec: BuildSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clock(monkeypatch, {"onnxruntime": 2.0, "openvino": 5.0, "torch": 30.0})
    serving = {"slo": {"p99_ms": 20}}
    choice, rows = _choice(build_spec(spec(targets=[CPU], serving=serving)).manifest)
    assert rows["onnxruntime-cpu-fp32"].batch == 4
    assert rows["openvino-cpu-fp32"].batch == 2
    assert rows["torch-cpu-fp32"].reason == "misses the SLO at batch 1"
    assert "at most 10 ms, half of the SLO of 20 ms" in choice.rule


def test_a_second_build_chooses_the_same_without_measuring_again(
    spec: Spec, build_spec: BuildSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_spec(spec(targets=[CPU]))
    _clock(monkeypatch, {})  # a KeyError, were it asked
    second = build_spec(spec(targets=[CPU]))
    assert (second.written, second.manifest) == (False, first.manifest)


def test_where_nothing_holds_every_reason_is_told(
    spec: Spec, build_spec: BuildSpec, tmp_path: Path
) -> None:
    target = {"engine": "onnxruntime", "precision": "auto"}
    # sums of 512 products, which no two libraries add up in the same order
    wide = "    wide = [nn.Linear(4, 512), nn.GELU(), nn.Linear(512, 3)]\n"
    net = f"\n\ndef wide():\n{wide}    return nn.Sequential(*wide)\n"
    with (tmp_path / "net.py").open("a", encoding="utf-8") as file:
        file.write(net)
    tight = {"atol": 0.0, "rtol": 0.0}
    verify = {**tight, "tolerance": {"fp16": tight, "bf16": tight}}
    with pytest.raises(DeploycError) as caught:
        build_spec(
            spec(
                model={"python": {"file": "net.py", "object": "wide"}},
                targets=[target],
                verify=verify,
            )
        )
    assert caught.value.code == "auto_none"
    for precision in ("fp16", "fp32"):
        assert f"onnxruntime-cpu-{precision}: " in caught.value.message
    assert not (tmp_path / "artifact").exists()


def test_the_command_prints_the_table_that_shows_why(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clock(monkeypatch, {"onnxruntime": 1.0, "openvino": 2.0, "torch": 3.0})
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(spec(targets=[CPU])), "utf-8")
    arguments = [str(tmp_path / "net.yaml"), "-q", "-o", str(tmp_path / "artifact")]
    done = CliRunner().invoke(build_command, arguments)
    assert done.exit_code == 0, done.output
    assert "auto-cpu-fp32: most items per second at batch 4" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["onnxruntime-cpu-fp32", "chosen", "4", "4", "1000"] in rows
    assert ["torch-cpu-fp32", "slower", "4", "12", "333.3"] in rows
