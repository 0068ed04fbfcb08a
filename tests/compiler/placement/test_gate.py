from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from compiler.placement.check import check
from compiler.placement.gate import Reference, python_gate
from compiler.placement.golden_images import GOLDEN_IMAGES, golden_images
from compiler.processing import PROCESSING, generate
from runtime.golden import Case, Golden
from runtime.processing import load_processing
from runtime.tensors import Tensors
from specs.digests import text_sha256
from specs.errors import ProcessingError
from specs.gate import CHAIN, Gate, StepGap
from specs.ops import Emitted, Libraries, Op, Stage
from specs.schema import Spec
from specs.values import Value
from tests.processing_specs import SMALL

SPEC: dict[str, Any] = SMALL | {"outputs": {"output": {"shape": ["batch", 5]}}}


def reference_of(spec: Spec, folder: Path, items: dict[str, Any] | None = None) -> Reference:
    text = generate(spec, {}).text
    (folder / PROCESSING).write_text(text, "utf-8")
    processing = load_processing(folder / PROCESSING, text_sha256(text))
    rng = np.random.default_rng(0)
    outputs: Tensors = {"output": rng.normal(0, 3, (3, 5)).astype(np.float32)}
    inputs: Tensors = {"input": rng.normal(0, 1, (3, 3, 16, 16)).astype(np.float32)}
    golden = Golden(Case("random", inputs, (1,)), outputs)
    return Reference(spec, processing, golden_images() if items is None else items, [golden])


def test_generated_python_gives_the_references_pixels_on_every_kind_of_image(
    tmp_path: Path,
) -> None:
    gate = python_gate(reference_of(Spec.model_validate(SPEC), tmp_path))
    steps = {(gap.stage, gap.step) for gap in gate.gaps}
    assert {("preprocess", name) for name in ("resize", "center_crop", CHAIN)} <= steps
    assert {("postprocess", name) for name in ("softmax", "top_k")} <= steps
    assert gate.items == len(GOLDEN_IMAGES) + 1
    assert not gate.refused
    check(gate)


def test_what_preprocess_refuses_is_told_and_not_compared(tmp_path: Path) -> None:
    spec = Spec.model_validate(SPEC | {"limits": {"pixels": 20_000}})
    gate = python_gate(reference_of(spec, tmp_path))
    assert "photo_large.jpg: too_large" in gate.refused
    assert gate.items + len(gate.refused) == len(GOLDEN_IMAGES) + 1


class Brighter(Op):
    """Adds more in Python than its reference does."""

    name: ClassVar[str] = "brighter"
    stages: ClassVar[frozenset[Stage]] = frozenset({"preprocess"})
    by: int = 3

    def flow(self, value: Value) -> Value:
        return value

    def emit(self, value: Value) -> Emitted:
        return Emitted(f"{{x}} + np.uint8({self.by})", "Brighten.")

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        return x + np.uint8(1)


@pytest.mark.parametrize(("by", "worst"), [(2, 1.0), (3, 2.0)])
def test_a_step_that_differs_by_more_than_a_level_fails_and_is_named(
    tmp_path: Path, by: int, worst: float
) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(file, "PNG")
    spec = Spec.model_validate(SPEC)
    reference = reference_of(spec, tmp_path, {"gray.png": file.getvalue()})
    steps = (spec.preprocess[0], Brighter(by=by), *spec.preprocess[1:])
    reference.spec = spec.model_copy(update={"preprocess": steps})
    gate = python_gate(reference)
    found = {gap.step: gap.worst for gap in gate.gaps}
    assert found["brighter"] == worst
    if worst <= 1:
        return
    with pytest.raises(ProcessingError, match="step 'brighter' in generated Python") as caught:
        check(gate)
    assert "2 grey levels on 'gray.png'" in caught.value.message


def test_the_chain_is_held_as_well() -> None:
    gap = StepGap(stage="preprocess", step=CHAIN, worst=2.5, mean=0.1, item="photo.jpg")
    gate = Gate(execution="graph", where="trt-fp16", bound=2, items=1, gaps=(gap,))
    with pytest.raises(ProcessingError, match="all steps together in the graph on trt-fp16"):
        check(gate)
    check(gate.model_copy(update={"bound": 2.5}))


def test_golden_images_are_the_same_in_every_run_and_open_as_what_they_are_called() -> None:
    first, again = golden_images(), golden_images()
    assert first == again
    for name, content in first.items():
        with Image.open(io.BytesIO(content)) as image:
            kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(name.rpartition(".")[2])
            assert image.format == (kind or name.rpartition(".")[2].upper()), name


def test_golden_images_hold_what_goes_wrong() -> None:
    opened = {name: Image.open(io.BytesIO(c)) for name, c in golden_images().items()}
    assert {image.mode for image in opened.values()} >= {"RGB", "L", "CMYK", "P", "LA", "RGBA", "1"}
    assert opened["sixteen_bit.png"].mode.startswith("I")
    assert opened["rotated.jpg"].getexif()[0x0112] == 6
    assert opened["progressive.jpg"].info["progressive"]
    assert getattr(opened["animated.gif"], "n_frames", 1) == 3
    assert {1} <= {min(image.size) for image in opened.values()}
