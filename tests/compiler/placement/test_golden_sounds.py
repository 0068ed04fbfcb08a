"""Golden sounds, and the gate over a pipeline that takes some."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchvision")

from compiler.placement.check import check
from compiler.placement.gate import Reference, python_gate
from compiler.placement.golden_items import golden_files
from compiler.placement.golden_sounds import GOLDEN_SOUNDS, golden_sounds
from compiler.processing import PROCESSING, generate
from runtime.processing import load_processing
from specs.digests import text_sha256
from specs.errors import ProcessingError
from specs.gate import CHAIN
from specs.ops._wav import IEEE_FLOAT, PCM, open_wav
from specs.ops.pad_or_trim import PadOrTrim
from specs.schema import Spec
from tests.processing_specs import SMALL

MEL = {"mel_spectrogram": {"n_fft": 256, "n_mels": 32, "log": "db", "floor": 1e-6}}
SPEC: dict[str, Any] = SMALL | {
    "inputs": {"input": {"shape": ["batch", 32, 32]}},
    "preprocess": [{"decode_audio": 8_000}, {"pad_or_trim": 4_000}, MEL],
    "postprocess": [],
}


def reference_of(spec: Spec, folder: Path) -> Reference:
    text = generate(spec, {}).text
    (folder / PROCESSING).write_text(text, "utf-8")
    processing = load_processing(folder / PROCESSING, text_sha256(text))
    return Reference(spec, processing, golden_sounds(), [])


def test_generated_python_gives_the_references_numbers_on_every_kind_of_sound(
    tmp_path: Path,
) -> None:
    gate = python_gate(reference_of(Spec.model_validate(SPEC), tmp_path))
    steps = {gap.step: gap.worst for gap in gate.gaps}
    assert set(steps) == {"decode_audio", "pad_or_trim", "mel_spectrogram", CHAIN}
    assert max(steps.values()) < 0.1
    assert (gate.unit, gate.bound) == ("tolerance", 1)
    assert (gate.items, gate.refused) == (len(GOLDEN_SOUNDS), ())
    check(gate)


def test_a_sound_that_is_too_short_is_told_and_not_compared(tmp_path: Path) -> None:
    changes = {
        "preprocess": [{"decode_audio": 8_000}, MEL],
        "inputs": {"input": {"shape": ["batch", 32, "frames"]}},
        "dynamic_axes": {"batch": {"max": 4}, "frames": {"max": 500}},
    }
    gate = python_gate(reference_of(Spec.model_validate(SPEC | changes), tmp_path))
    assert gate.refused == ("one_sample.wav: too_short", "short.wav: too_short")


class Louder(PadOrTrim):
    """A ten thousandth louder in Python than in its reference."""

    def emit(self, value: Any) -> Any:
        emitted = super().emit(value)
        changed = f"np.float32(1.001) * {emitted.expression}"
        return type(emitted)(changed, emitted.comment, emitted.functions)


def test_a_step_that_differs_by_more_than_the_tolerance_fails_and_is_named(tmp_path: Path) -> None:
    spec = Spec.model_validate(SPEC)
    reference = reference_of(spec, tmp_path)
    steps = (spec.preprocess[0], Louder(samples=4_000), *spec.preprocess[2:])
    reference.spec = spec.model_copy(update={"preprocess": steps})
    with pytest.raises(ProcessingError, match=r"differs from its reference by .* times") as caught:
        check(python_gate(reference))
    assert "grey" not in caught.value.message


def test_golden_sounds_are_the_same_in_every_run_and_small() -> None:
    first = golden_files("audio")
    assert first == golden_sounds()
    assert sum(map(len, first.values())) < 300_000
    assert golden_files("text") == {}


def test_golden_sounds_hold_what_goes_wrong() -> None:
    opened = {name: open_wav(content) for name, content in golden_sounds().items()}
    kinds = {(each.encoding, each.bits) for each in opened.values()}
    assert kinds == {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (IEEE_FLOAT, 32), (IEEE_FLOAT, 64)}
    assert {each.channels for each in opened.values()} == {1, 2, 6}
    assert {8_000, 12_345, 16_000, 44_100, 48_000} <= {each.rate for each in opened.values()}
    assert opened["one_sample.wav"].frames == 1
    clipped = np.frombuffer(golden_sounds()["clipped.wav"][44:], "<i2")
    assert (np.abs(clipped.astype(int)) >= 32767).mean() > 0.3
    declared = struct.unpack_from("<I", golden_sounds()["streamed.wav"], 40)
    assert declared == (2**32 - 1,)
