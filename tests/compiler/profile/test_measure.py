"""A process a point: real ones, on a real artifact; speed itself is never judged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.profile import measure, worker
from compiler.profile.inputs import batch_axis, find_inputs, held_sizes
from compiler.profile.measure import Settings, ask, profile_variant
from compiler.profile.task import Answer, Task
from compiler.progress import Reporter
from runtime.artifact import read_manifest
from runtime.engines import Engine, EngineSession, get_engine
from runtime.machine import machine
from specs.axes import AxisRange
from specs.engines import Device
from specs.errors import EngineError
from specs.manifest import Manifest
from specs.profile import Form, Point

VARIANT = "onnxruntime-cpu-fp32"
MakeTask = Callable[..., Task]
MakePoint = Callable[..., Point]


@pytest.fixture
def task(linear_artifact: Path) -> MakeTask:
    """A point of a small artifact, measured for next to no time."""

    def make(batch: int = 2, form: Form = "dynamic", folder: Path = linear_artifact) -> Task:
        return Task(folder=folder, variant=VARIANT, batch=batch, form=form, seconds=0.02)

    return make


@pytest.fixture
def manifest(linear_artifact: Path) -> Manifest:
    """The small artifact's."""
    return read_manifest(linear_artifact)


@pytest.mark.parametrize("form", ["dynamic", "fixed"])
def test_a_point_comes_from_a_process_of_its_own(task: MakeTask, form: Form) -> None:
    answer = ask(task(3, form), 60)
    assert answer.cause is None
    point = answer.point
    assert point is not None
    assert (point.batch, point.form) == (3, form)
    assert 0 < point.p50_ci.low <= point.p50_ms <= point.p95_ms <= point.p99_ms
    assert point.rate == pytest.approx(3e3 / point.p50_ms)
    assert point.samples >= 10
    assert point.warmup > 1
    assert 2**20 < point.peak_memory_bytes < machine().memory_bytes
    assert point.gpu_memory_bytes is None
    assert "CPUExecutionProvider" in answer.details["providers"]
    assert answer.inputs == "golden case random"


def test_a_session_that_was_opened_for_one_size_refuses_another(linear_artifact: Path) -> None:
    # Else "fixed" would be measured on the dynamic form.
    open_session = get_engine("onnxruntime").open
    session = open_session(linear_artifact / "model.onnx", "cpu", {}, {"batch": 2})
    session.run({"X": np.zeros((2, 2), np.float32)})
    with pytest.raises(EngineError):
        session.run({"X": np.zeros((3, 2), np.float32)})


@pytest.mark.parametrize(("form", "held"), [("dynamic", None), ("fixed", {"batch": 3})])
def test_the_fixed_form_alone_holds_the_batch(
    task: MakeTask, monkeypatch: pytest.MonkeyPatch, form: Form, held: dict[str, int] | None
) -> None:
    seen: list[object] = []

    def watching(name: str) -> type[Engine]:
        class Watched(get_engine(name)):
            @classmethod
            def open(
                cls,
                file: Path,
                device: Device,
                options: dict[str, Any],
                sizes: Mapping[str, int] | None = None,
            ) -> EngineSession:
                seen.append(sizes)
                return super().open(file, device, options, sizes)

        return Watched

    monkeypatch.setattr(worker, "get_engine", watching)
    assert worker.answer(task(3, form)).point is not None
    assert seen == [held]


def test_a_graph_with_a_fixed_batch_is_measured_in_the_fixed_form_alone(
    linear_artifact: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, point: MakePoint
) -> None:
    def law(task: Task, _timeout: float) -> Answer:
        return Answer(point=point(task.batch, 1.0, task.form))

    monkeypatch.setattr(measure, "ask", law)
    fixed = manifest.model_copy(update={"batch": AxisRange(min=4, opt=4, max=4)})
    found = profile_variant(
        linear_artifact, fixed, manifest.variants[0], Settings(), Reporter(quiet=True)
    )
    assert [(each.form, each.batch) for each in found.points] == [("fixed", 4)]
    assert found.advice.form == "fixed"


def test_a_variant_that_cannot_be_loaded_is_a_cause_with_the_engines_code(
    task: MakeTask, linear_artifact: Path, tmp_path: Path
) -> None:
    shutil.copytree(linear_artifact, tmp_path / "net")
    (tmp_path / "net" / "model.onnx").write_bytes(b"no graph")
    answer = ask(task(folder=tmp_path / "net"), 60)
    assert answer.point is None
    assert answer.cause is not None
    assert answer.cause.code == "engine_load"


def test_a_point_that_takes_too_long_is_ended(task: MakeTask) -> None:
    answer = ask(task(), 0.01)
    assert answer.cause is not None
    assert answer.cause.code == "point_timeout"
    assert "0.01 s" in answer.cause.message
    assert "--timeout" in answer.cause.hint


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "out_of_memory", "killed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "point_crashed", "SIGSEGV"),
        ("import sys; sys.exit('the driver is gone')", "point_crashed", "the driver is gone"),
        ("print('{}', 'and more')", "point_crashed", "exit status 0"),
    ],
)
def test_a_process_that_ends_without_an_answer_is_a_cause(
    task: MakeTask, monkeypatch: pytest.MonkeyPatch, code: str, expected: str, text: str
) -> None:
    monkeypatch.setattr(measure, "WORKER", ("-c", code))
    answer = ask(task(), 60)
    assert answer.cause is not None
    assert answer.cause.code == expected
    assert text in answer.cause.message


def test_what_an_engine_prints_does_not_spoil_the_answer(task: MakeTask) -> None:
    script = (
        "import os, sys; from compiler.profile import worker; found = worker.answer\n"
        "def noisy(task):\n os.write(1, b'NOISE'); print('NOISE'); return found(task)\n"
        "worker.answer = noisy; worker._main()"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, input=task().model_dump_json(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("{")
    assert "NOISE" not in done.stdout
    assert "NOISE" in done.stderr


def test_measuring_needs_neither_torch_nor_onnx(task: MakeTask) -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'matplotlib', 'jinja2')))\n"
        "import compiler.profile.cli, compiler.profile.store\n"
        "from compiler.profile.worker import answer; from compiler.profile.task import Task\n"
        "print(answer(Task.model_validate_json(sys.stdin.read())).point.batch)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, input=task().model_dump_json(), capture_output=True, text=True, check=False
    )
    assert done.stdout == "2\n", done.stderr


def test_a_failed_size_is_a_row_and_the_others_are_measured(
    linear_artifact: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measure.ask

    def failing(task: Task, timeout: float) -> Answer:
        return real(task, 0.01 if task.form == "fixed" and task.batch == 2 else timeout)

    monkeypatch.setattr(measure, "ask", failing)
    settings = Settings(batches=(1, 2), seconds=0.02, slo_ms=1e6)
    found = profile_variant(
        linear_artifact, manifest, manifest.variants[0], settings, Reporter(quiet=True)
    )
    assert [(point.form, point.batch) for point in found.points] == [
        ("dynamic", 1),
        ("dynamic", 2),
        ("fixed", 1),
    ]
    assert [(f.form, f.batch, f.code) for f in found.failures] == [("fixed", 2, "point_timeout")]
    assert found.advice.slo == 2
    assert found.machine == machine()


def test_where_no_size_can_be_measured_the_first_cause_is_raised(
    linear_artifact: Path, manifest: Manifest
) -> None:
    variant = manifest.variants[0].model_copy(update={"name": "gone"})
    with pytest.raises(EngineError, match=r"gone cannot be measured here: .*no variant 'gone'"):
        profile_variant(linear_artifact, manifest, variant, Settings(), Reporter(quiet=True))


def test_a_batch_repeats_golden_items(linear_artifact: Path, manifest: Manifest) -> None:
    batch, what = find_inputs(linear_artifact / "golden", manifest, 20)
    with np.load(linear_artifact / "golden" / "case0.npz") as arrays:
        items = arrays["inputs/X"]
    assert what == "golden case random"
    assert batch["X"].shape == (20, 2)
    np.testing.assert_array_equal(batch["X"], np.resize(items, (20, 2)))


def test_without_a_golden_case_at_opt_items_are_drawn_from_a_seed(
    linear_artifact: Path, manifest: Manifest
) -> None:
    wide = manifest.inputs["X"].model_copy(update={"shape": ("batch", "width"), "dtype": "int64"})
    axes = {**manifest.axes, "width": AxisRange(min=2, opt=5, max=9)}
    other = manifest.model_copy(update={"inputs": {"X": wide}, "axes": axes})
    first, what = find_inputs(linear_artifact / "golden", other, 3)
    again, _ = find_inputs(linear_artifact / "golden", other, 3)
    assert what == "random tensors, seed 0"
    assert (first["X"].shape, first["X"].dtype) == ((3, 5), np.int64)
    np.testing.assert_array_equal(first["X"], again["X"])
    assert held_sizes(other) == {"width": 5}


def test_a_batch_that_the_graph_fixes_has_no_axis(manifest: Manifest) -> None:
    assert batch_axis(manifest) == "batch"
    fixed = manifest.model_copy(update={"batch": AxisRange(min=4, opt=4, max=4)})
    assert batch_axis(fixed) is None


def test_without_a_list_the_sizes_are_swept_and_both_forms_are_measured_at_each(
    linear_artifact: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, point: MakePoint
) -> None:
    def law(task: Task, _timeout: float) -> Answer:
        return Answer(point=point(task.batch, 1.0 + max(task.batch, 4), task.form))

    monkeypatch.setattr(measure, "ask", law)
    settings = Settings()
    found = profile_variant(
        linear_artifact, manifest, manifest.variants[0], settings, Reporter(quiet=True)
    )
    sizes = [each.batch for each in found.of("dynamic")]
    assert {1, 2, 4, 8, 16} <= set(sizes)
    assert sizes == [each.batch for each in found.of("fixed")]
    assert found.advice.throughput == 12
