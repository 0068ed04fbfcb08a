"""Whole chains of steps: every execution agrees, and the geometry follows the pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.processing.nodes import model_of, typed_outputs
from specs.ops import Graph, Libraries, Op
from specs.ops._geometry import whole_image
from specs.ops.cast import Cast
from specs.ops.center_crop import CenterCrop
from specs.ops.color_order import ColorOrder
from specs.ops.five_crop import FiveCrop
from specs.ops.identity import Identity
from specs.ops.layout import Layout
from specs.ops.normalize import Normalize
from specs.ops.pad import Pad
from specs.ops.resize import Resize
from specs.ops.scale import Scale
from specs.ops.to_float import ToFloat
from specs.values import FlowError, Value

Follow = Callable[[Op, Value, Any], Any]
FILTERS = ("bilinear", "hamming", "bicubic", "lanczos", "area")
START = Value("image", "uint8", ("height", "width", 3), "HWC", "RGB", 0, 255, step=1.0)

length = st.integers(1, 40)
sides = st.tuples(length, length)
filters = st.sampled_from(FILTERS)
resizes = st.one_of(
    st.builds(Resize, shorter_side=length, interpolation=filters),
    st.builds(Resize, longer_side=length, interpolation=filters),
    st.builds(Resize, size=sides, interpolation=filters),
    st.builds(Resize, letterbox=sides, interpolation=filters),
    st.builds(Resize, size=sides, antialias=st.just(value=False)),
)
moves = st.one_of(
    resizes,
    st.builds(CenterCrop, size=sides),
    st.builds(Pad, left=length, top=length, mode=st.sampled_from(("reflect", "edge"))),
    st.builds(Pad, all=length, to_multiple_of=length, fill=st.integers(0, 255)),
)
values = st.one_of(
    st.builds(FiveCrop, size=sides),
    st.builds(ColorOrder, to=st.sampled_from(("RGB", "BGR", "GRAY"))),
    st.builds(Layout, to=st.sampled_from(("CHW", "HWC"))),
    st.builds(Normalize, scale=st.just(255), mean=st.just((0.4, 0.5, 0.6)), std=st.just(0.25)),
    st.builds(Scale, factor=st.just(-0.5), offset=st.just(3)),
    st.builds(Cast, dtype=st.just("float32")),
    st.builds(ToFloat),
    st.builds(Identity),
)


def fitting(steps: list[Op], value: Value) -> list[tuple[Op, Value]]:
    """The steps that fit, each with what it takes; one resize at most."""
    chain: list[tuple[Op, Value]] = []
    for step in steps:
        again = isinstance(step, Resize) and any(isinstance(each, Resize) for each, _ in chain)
        try:
            result = step.flow(value)
        except FlowError:
            continue
        if not again:
            chain.append((step, value))
            value = result
    return chain


def in_graph(chain: list[tuple[Op, Value]], x: Any, resize: Literal["product", "native"]) -> Any:
    """All steps in one graph, on ONNX Runtime."""
    import onnxruntime as ort

    graph, last = Graph(18, "chain/", resize), "x"
    for step, value in chain:
        fused = step.fuse(graph, last, value)
        assert fused
        assert isinstance(fused.result, str)
        last = fused.result
    last = graph.add("Identity", last)
    inputs: Any = {"x": ("uint8", (None, None, None, 3))}
    proto = model_of(graph, inputs, typed_outputs(graph, inputs, [last])).SerializeToString()
    session: Any = ort.InferenceSession(proto, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x[None]})[0][0]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.tuples(st.lists(moves, max_size=3), st.lists(values, max_size=4)), sides)
def test_any_chain_gives_the_same_in_every_execution(
    run_step: Follow,
    libraries: Libraries,
    steps: tuple[list[Op], list[Op]],
    size: tuple[int, int],
) -> None:
    x: Any = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), np.uint8)
    chain = fitting([*steps[0], *steps[1]], START)
    python = reference = x
    value = START
    try:
        for step, value in chain:
            python = run_step(step, value, python)
    except ValueError as error:
        assert getattr(error, "code", "") == "too_small"  # noqa: PT017 - five_crop's refusal
        return
    for step, value in chain:
        reference = step.reference(np.ascontiguousarray(reference), value, libraries)
    level = value.step if not chain else chain[-1][0].flow(value).step
    assert level
    for resize in ("product", "native"):
        graph = in_graph(chain, x, resize)
        assert python.shape == reference.shape == graph.shape
        assert python.dtype == reference.dtype == graph.dtype
        assert np.abs(python.astype(float) - reference).max() <= 1.001 * level
        # In enlarged noise two exact halves may meet in one pixel.
        far = np.abs(graph.astype(float) - reference)
        assert far.max() <= 2.001 * level
        assert (far > 1.001 * level).mean() < 0.01


def gradient(height: int, width: int) -> Any:
    """An image whose pixels say where their middles are: row, column, nothing."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.float32)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(moves, min_size=1, max_size=4), st.tuples(st.integers(30, 90), st.integers(30, 90)))
def test_the_geometry_says_where_every_pixel_came_from(
    run_step: Follow, follow: Follow, steps: list[Op], size: tuple[int, int]
) -> None:
    value = START.but(dtype="float32")
    x = gradient(*size)
    inside = np.ones((*size, 1), np.float32)
    at, smallest = whole_image(x), np.ones(2)
    for step in steps:
        plain = step.model_copy(update={"interpolation": "bilinear", "fill": 0.0})
        plain = plain.model_copy(update={"mode": "constant"}) if isinstance(step, Pad) else plain
        after = follow(plain, value, at)
        if isinstance(step, Resize):
            inside = without_edge(inside, np.ceil(1.5 * np.maximum(1, at[:2] / after[:2])))
        x, inside = run_step(plain, value, x), run_step(plain, value, inside)
        at, smallest = after, np.minimum(smallest, after[:2])
    assert at[6:].tolist() == list(x.shape[:2])
    assert at[4:6].tolist() == list(size)
    where = (np.mgrid[: x.shape[0], : x.shape[1]] + 0.5 - at[2:4, None, None]) / at[:2, None, None]
    for axis in range(2):
        far = np.abs(x[..., axis] - where[axis])[inside[..., 0] > 0.999]
        assert far.max(initial=0) < 0.15 / smallest[axis]


def without_edge(inside: Any, width: Any) -> Any:
    """Near an edge a filter sees nothing on one side, and the mean moves inwards."""
    rows, columns = (int(n) for n in width)
    inner = np.zeros_like(inside)
    inner[rows:-rows, columns:-columns] = inside[rows:-rows, columns:-columns]
    return inner


def test_the_corners_of_a_letterboxed_image_are_where_the_geometry_says(
    run_step: Follow, follow: Follow
) -> None:
    image = np.full((30, 60, 3), 200, np.uint8)
    op = Resize(letterbox=(40, 40), fill=0)
    at = follow(op, START, whole_image(image))
    rows, columns = np.nonzero(run_step(op, START, image)[..., 0])
    top, left = at[2:4]
    bottom, right = at[:2] * at[4:6] + at[2:4]
    assert (top, left) == (rows.min(), columns.min()) == (10, 0)
    assert (bottom, right) == (rows.max() + 1, columns.max() + 1) == (30, 40)


def test_a_step_that_moves_no_pixel_leaves_the_geometry(follow: Follow) -> None:
    at = whole_image(gradient(4, 5))
    for step in (ToFloat(), Layout(to="CHW"), ColorOrder(to="BGR"), Identity()):
        assert follow(step, START, at) is at


@pytest.mark.parametrize("step", [Resize(size=(3, 4)), Pad(all=1), CenterCrop(size=3)])
def test_a_step_that_moves_pixels_says_so(step: Op) -> None:
    assert step.emit(START).geometry
