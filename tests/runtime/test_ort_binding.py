"""Buffers that stay on a device from run to run; exercised on the CPU's memory."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper

from runtime.engines._ort_binding import Binder
from runtime.engines._probe import TINY_ONNX
from runtime.engines.ort import OrtSession
from runtime.tensors import Tensors
from specs.errors import EngineError
from tests.ort_graphs import FLOAT, INT64, opened, proto


def pair() -> ModelProto:
    """Outputs of a known size, of a size that only a run tells, and a scalar; two inputs."""
    return proto(
        [
            helper.make_node("NonZero", ["a"], ["places"]),
            helper.make_node("Add", ["a", "a"], ["double"]),
            helper.make_node("ReduceSum", ["b"], ["total"], keepdims=0),
        ],
        [("a", FLOAT, ["n"]), ("b", INT64, ["m", 2])],
        [("places", INT64, [1, "k"]), ("double", FLOAT, ["n"]), ("total", INT64, [])],
    )


def feed(*values: float) -> Tensors:
    return {"b": np.array([[1, 2], [3, 4]]), "a": np.array(values, np.float32)}


def test_kept_buffers_give_what_a_plain_run_gives_in_the_sessions_order() -> None:
    session = opened(pair())
    binder = Binder(session, "cpu", 0)
    for values in ((1, 0, 0, 2), (1, 2, 3, 0), (0, 0, 0, 0), (5.0,), (1, 2, 3, 4)):
        found, expected = binder.run(feed(*values)), session.run(None, feed(*values))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_an_output_of_unknown_rank_is_not_taken_for_a_scalar() -> None:
    model = proto(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", FLOAT, ["n"]), ("shape", INT64, ["rank"])],
        [("y", FLOAT, [])],
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    binder = Binder(opened(model), "cpu", 0)
    x = np.arange(6, dtype=np.float32)
    for shape in ([2, 3], [3, 2], [6, 1]):
        assert binder.run({"x": x, "shape": np.array(shape)})[0].shape == tuple(shape)


def test_answers_do_not_change_with_the_next_run() -> None:
    binder = Binder(opened(pair()), "cpu", 0)
    first = binder.run(feed(1, 0, 1, 0))
    binder.run(feed(9, 9, 9, 9))
    np.testing.assert_array_equal(first[0], [[0, 2]])
    np.testing.assert_array_equal(first[1], [2, 0, 2, 0])


def test_buffers_are_made_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[int]] = []
    make = ort.OrtValue.ortvalue_from_shape_and_type

    def counting(shape: list[int], *rest: Any) -> ort.OrtValue:
        made.append(shape)
        return make(shape, *rest)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", counting)
    binder = Binder(opened(TINY_ONNX), "cpu", 0)
    for size in (2, 3, 2, 3, 2):
        binder.run({"x": np.ones((size, 2), np.float32)})
    assert made == [[2, 2], [2, 2], [3, 2], [3, 2]]


def test_the_least_recently_used_shape_makes_room() -> None:
    binder = Binder(opened(TINY_ONNX), "cpu", 0, kept=2)
    for size in (1, 2, 1, 3):
        binder.run({"x": np.ones((size, 2), np.float32)})
    assert binder.shapes == [((1, 2),), ((3, 2),)]
    binder.clear()
    assert not binder.shapes


def test_an_input_of_another_type_is_refused_since_its_bytes_would_be_taken() -> None:
    binder = Binder(opened(TINY_ONNX), "cpu", 0)
    with pytest.raises(EngineError, match="'x' is float64, expected float32"):
        binder.run({"x": np.ones((2, 2))})
    with pytest.raises(EngineError, match=r"found the inputs \['z'\], expected \['x'\]"):
        binder.run({"z": np.ones((2, 2), np.float32)})


def test_an_input_in_any_memory_order_is_taken_by_value() -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4).T
    np.testing.assert_array_equal(Binder(opened(TINY_ONNX), "cpu", 0).run({"x": x})[0], x + x)


def test_a_shape_that_the_graph_does_not_take_keeps_no_buffers() -> None:
    binder = Binder(opened(TINY_ONNX), "cpu", 0)
    session = OrtSession(opened(TINY_ONNX), binder=binder)
    with pytest.raises(EngineError, match="invalid dimensions"):
        session.run({"x": np.ones((2, 3), np.float32)})
    assert not binder.shapes
    assert session.run({"x": np.ones((2, 2), np.float32)})["y"].sum() == 8
    session.close()


def test_every_shape_has_a_cuda_graph_of_its_own_whose_number_is_never_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids: list[str] = []
    released: list[int] = []
    run = ort.InferenceSession.run_with_iobinding

    def recording(session: Any, binding: Any, options: ort.RunOptions | None = None) -> None:
        ids.append(options.get_run_config_entry("gpu_graph_id") if options else "")
        run(session, binding, options)

    def release(_session: object, number: int) -> None:
        released.append(number)

    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", recording)
    monkeypatch.setattr(ort.InferenceSession, "release_captured_graph", release)
    binder = Binder(opened(TINY_ONNX), "cpu", 0, graphs=True, kept=1)
    for size in (2, 2, 3, 2):
        binder.run({"x": np.ones((size, 2), np.float32)})
    binder.clear()
    assert (ids, released) == (["1", "1", "2", "3"], [1, 2, 3])


def test_sizes_that_only_a_run_tells_get_a_fixed_buffer_before_a_graph_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound: list[str] = []
    bind = ort.IOBinding.bind_ortvalue_output

    def recording(binding: ort.IOBinding, name: str, value: ort.OrtValue) -> None:
        bound.append(name)
        bind(binding, name, value)

    monkeypatch.setattr(ort.IOBinding, "bind_ortvalue_output", recording)
    binder = Binder(opened(pair()), "cpu", 0, graphs=True)
    first = binder.run(feed(1, 0, 1, 0))
    assert sorted(bound) == ["double", "places", "total"]

    def refuse(*_: object) -> None:
        raise AssertionError("a replayed graph writes where it was recorded")

    monkeypatch.setattr(ort.IOBinding, "bind_output", refuse)
    monkeypatch.setattr(ort.IOBinding, "bind_ortvalue_output", refuse)
    second = binder.run(feed(0, 1, 0, 1))
    np.testing.assert_array_equal(first[0], [[0, 2]])
    np.testing.assert_array_equal(second[0], [[1, 3]])
