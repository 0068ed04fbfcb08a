"""Answers from artifacts: any number of items, any shapes, nothing heavy imported."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import runtime
from runtime.predictor import Predictor
from runtime.tensors import Rows, Tensors, unstack
from specs.errors import EngineError, InputError

Artifact = Callable[[str], Path]
Sizes = list[int]


def _items(count: int, width: int = 3) -> list[Any]:
    return [np.full(width, number, np.float32) for number in range(count)]


def _answers(answers: list[dict[str, Any]]) -> list[Any]:
    return [answer["outputs"]["y"].tolist() for answer in answers]


def _spied(predictor: Predictor) -> Sizes:
    """The batch sizes that reach the engine from now on."""
    session = predictor._session  # pyright: ignore[reportPrivateUsage]
    run, sizes = session.run, cast("Sizes", [])

    def spy(inputs: Tensors) -> Tensors:
        sizes.append(len(next(iter(inputs.values()))))
        return run(inputs)

    session.run = spy
    return sizes


@pytest.mark.parametrize(
    ("kind", "count", "sizes"),
    [
        ("twice", 0, []),
        ("twice", 1, [1]),
        ("twice", 4, [4]),
        ("twice", 11, [4, 4, 3]),
        ("fixed", 1, [4]),
        ("fixed", 6, [4, 4]),
        ("least", 1, [3]),
        ("least", 6, [5, 3]),
    ],
)
def test_any_number_of_items_is_split_at_the_maximum_and_padded_to_the_minimum(
    artifact: Artifact, kind: str, count: int, sizes: Sizes
) -> None:
    with runtime.load(artifact(kind)) as predictor:
        seen = _spied(predictor)
        answers = predictor.predict(_items(count))
    assert _answers(answers) == [[2.0 * number] * 3 for number in range(count)]
    assert seen == sizes


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_a_batch_of_any_size_is_answered_row_by_row(artifact: Artifact, count: int) -> None:
    for kind in ("twice", "fixed", "least"):
        with runtime.load(artifact(kind)) as predictor:
            found = predictor.predict_batch({"x": np.stack(_items(count))})["y"]
        assert found.tolist() == [[2.0 * number] * 3 for number in range(count)]


@pytest.mark.parametrize(("kind", "sizes"), [("twice", [4, 4, 3]), ("fixed", [4, 4, 4])])
def test_rows_are_computed_as_blocks_and_give_rows(
    artifact: Artifact, kind: str, sizes: Sizes
) -> None:
    with runtime.load(artifact(kind)) as predictor:
        seen = _spied(predictor)
        outputs = predictor.run(Rows({"x": np.stack(_items(11))}))
    assert isinstance(outputs, Rows)
    assert [output["y"].tolist() for output in outputs] == [[2.0 * n] * 3 for n in range(11)]
    assert seen == sizes


def test_items_of_mixed_shapes_are_answered_in_their_order(artifact: Artifact) -> None:
    items = [np.arange(width, dtype=np.float32) for width in (2, 5, 2, 6, 5)]
    with runtime.load(artifact("wide")) as predictor:
        seen = _spied(predictor)
        answers = predictor.predict(items)
    assert _answers(answers) == [(2 * item).tolist() for item in items]
    assert seen == [2, 2, 1]


def test_several_inputs_and_outputs_come_by_name(artifact: Artifact) -> None:
    item = {"a": np.ones(3, np.float32), "b": np.array([1, 2])}
    with runtime.load(artifact("two")) as predictor:
        answer = predictor.predict([item])[0]["outputs"]
    assert answer["total"].tolist() == [4, 4, 4]
    assert (answer["double"].tolist(), str(answer["double"].dtype)) == ([2, 4], "int64")


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "wrong_input"),
        ({"z": np.ones((1, 3), np.float32)}, "wrong_input"),
        ({"x": np.ones((1, 3))}, "wrong_dtype"),
        ({"x": np.ones(3, np.float32)}, "wrong_shape"),
        ({"x": np.ones((1, 4), np.float32)}, "wrong_shape"),
        ({"x": np.ones((0, 3), np.float32)}, "wrong_shape"),
        ({"x": np.array(1, np.float32)}, "wrong_shape"),
    ],
)
def test_a_batch_that_is_not_what_the_graph_takes_is_refused(
    artifact: Artifact, inputs: Tensors, code: str
) -> None:
    with runtime.load(artifact("twice")) as predictor, pytest.raises(InputError) as caught:
        predictor.predict_batch(inputs)
    assert caught.value.code == code


def test_inputs_of_different_batches_are_refused(artifact: Artifact) -> None:
    inputs: Tensors = {"a": np.ones((2, 3), np.float32), "b": np.ones((3, 2), np.int64)}
    with runtime.load(artifact("two")) as predictor, pytest.raises(InputError):
        predictor.predict_batch(inputs)


def test_one_bad_item_is_an_error_with_its_code(artifact: Artifact) -> None:
    with runtime.load(artifact("twice")) as predictor, pytest.raises(InputError) as caught:
        predictor.predict([np.ones(4, np.float32)])
    assert caught.value.code == "wrong_shape"


def test_leaving_the_context_closes_and_closing_twice_is_harmless(artifact: Artifact) -> None:
    with runtime.load(artifact("twice")) as predictor:
        predictor.predict(_items(1))
    predictor.close()
    with pytest.raises(EngineError, match="closed"):
        predictor.predict(_items(1))


def test_items_may_be_prepared_in_many_threads(artifact: Artifact) -> None:
    with runtime.load(artifact("twice")) as predictor:
        found: dict[int, Tensors] = {}

        def prepare(number: int) -> None:
            found[number] = predictor.preprocess(_items(number + 1)[number])

        threads = [threading.Thread(target=prepare, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outputs = predictor.run([found[number] for number in range(8)])
    assert _answers(predictor.postprocess(outputs)) == [[2.0 * n] * 3 for n in range(8)]


def test_what_the_engine_says_of_itself_names_its_provider(artifact: Artifact) -> None:
    with runtime.load(artifact("twice")) as predictor:
        assert predictor.details["providers"] == "CPUExecutionProvider"
        assert predictor.max_batch == 4
        assert predictor.variant.name == "onnxruntime-cpu-fp32"


PROBE = """
import sys
import runtime
from pathlib import Path
with runtime.load(sys.argv[1]) as predictor:
    print(predictor.predict([Path(sys.argv[2]).read_bytes()])[0]["classes"][0]["label"])
heavy = {"torch", "torchvision", "onnx", "onnxscript", "ray", "compiler", "serve"}
print(sorted(heavy & set(sys.modules)))
"""


def test_importing_and_answering_leaves_torch_onnx_and_ray_alone(
    digits_artifact: Path, root: Path
) -> None:
    image = root / "specs" / "samples" / "digits" / "digit_3.png"
    command = [sys.executable, "-c", PROBE, str(digits_artifact), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[1] == "[]"


def test_an_input_that_the_engine_hands_on_is_copied_since_its_memory_is_used_again(
    artifact: Artifact,
) -> None:
    with runtime.load(artifact("twice")) as predictor:
        session = predictor._session  # pyright: ignore[reportPrivateUsage]
        session.run = lambda inputs: {"y": inputs["x"][:, ::1]}
        item: Tensors = {"x": np.ones(3, np.float32)}
        (output,) = predictor.run([item])
        block: Tensors = {"x": np.ones((2, 3), np.float32)}
        given = unstack(block)
        first, _ = predictor.run(given)
        block["x"][:] = 7
        assert output["y"].tolist() == first["y"].tolist() == [1, 1, 1]
