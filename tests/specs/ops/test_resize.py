from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from specs.ops import Graph, Op
from specs.ops._source import BadInput
from specs.ops.resize import Resize, resize_plain
from specs.values import FlowError, Value

torch: Any = pytest.importorskip("torch")
transforms: Any = pytest.importorskip("torchvision.transforms")

RunStep = Callable[..., Any]
MODES = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


def noise(height: int, width: int, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "size", [(61, 40), (40, 61), (20, 20), (1, 50), (300, 2), (1, 1), (24, 24), (24, 40), (40, 24)]
)
def test_the_shorter_side_is_torchvisions_pixel_for_pixel(
    run_step: RunStep, image: Value, mode: Any, size: tuple[int, int]
) -> None:
    x = noise(*size)
    expected = transforms.Resize(24, transforms.InterpolationMode(mode))(Image.fromarray(x))
    result = run_step(Resize(shorter_side=24, interpolation=mode), image, x)
    assert np.array_equal(result, np.asarray(expected))


@pytest.mark.parametrize("mode", MODES)
def test_the_size_is_height_and_width(run_step: RunStep, image: Value, mode: Any) -> None:
    x = noise(50, 30)
    expected = transforms.Resize((20, 70), transforms.InterpolationMode(mode))(Image.fromarray(x))
    result = run_step(Resize(size=(20, 70), interpolation=mode), image, x)
    assert np.array_equal(result, np.asarray(expected))


def test_grey_images_keep_their_one_channel(run_step: RunStep, image: Value) -> None:
    gray = image.but(shape=("height", "width", 1), color="L")
    x = noise(50, 30, 1)
    expected = Image.fromarray(x[..., 0]).resize((10, 20), Image.Resampling.BILINEAR)
    result = run_step(Resize(size=(20, 10)), gray, x)
    assert np.array_equal(result[..., 0], np.asarray(expected))


@pytest.mark.parametrize("mode", MODES)
def test_what_has_the_wanted_size_stays_as_it_is(
    run_step: RunStep, image: Value, mode: Any
) -> None:
    step = Resize(size=(20, 10), interpolation=mode)
    for x in (noise(20, 10), noise(20, 10).astype(np.float32) / 3):
        kept = x.copy()
        assert np.array_equal(run_step(step, image, x), kept)
        assert np.array_equal(x, kept)


def test_floats_are_resized_without_rounding(run_step: RunStep, image: Value) -> None:
    x = noise(50, 30)
    exact = run_step(Resize(size=(20, 10)), image, x.astype(np.float32))
    assert exact.dtype == np.float32
    assert np.abs(exact - run_step(Resize(size=(20, 10)), image, x)).max() <= 1


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(20, 10), (90, 101), (1, 7), (50, 30)])
@pytest.mark.parametrize("shape", [(50, 30), (1, 40), (3, 1)])
def test_without_antialias_it_is_pytorchs_interpolate(
    run_step: RunStep, image: Value, mode: Any, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    x = noise(*shape)
    tensor = torch.from_numpy(x.transpose(2, 0, 1)[None]).float()
    expected = torch.nn.functional.interpolate(tensor, size, mode=mode, align_corners=False)
    op = Resize(size=size, interpolation=mode, antialias=False)
    exact = run_step(op, image, x.astype(np.float32))
    rounded = run_step(op, image, x)
    assert np.abs(exact - expected[0].permute(1, 2, 0).numpy()).max() < 0.01
    assert rounded.dtype == np.uint8
    assert np.abs(rounded - expected[0].permute(1, 2, 0).clip(0, 255).numpy()).max() < 0.52


def test_antialias_makes_a_difference_that_is_not_hidden(run_step: RunStep, image: Value) -> None:
    x = noise(60, 60)
    smooth = run_step(Resize(size=(10, 10)), image, x).astype(int)
    assert np.abs(smooth - run_step(Resize(size=(10, 10), antialias=False), image, x)).max() > 40


def test_a_strip_that_would_grow_huge_is_refused(run_step: RunStep, image: Value) -> None:
    with pytest.raises(ValueError, match="resized, the image would have 11468800x224 pixels"):
        run_step(Resize(shorter_side=224), image, noise(1, 51_200))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of shorter_side, longer_side, size and letterbox, found none"),
        ({"shorter_side": 8, "size": [8, 8]}, "found shorter_side, size"),
        ({"shorter_side": 8, "interpolation": "lanczos", "antialias": False}, "antialias: false"),
        ({"size": [8, 8], "interpolation": "area", "antialias": False}, "antialias: false"),
        ({"longer_side": 8, "max_size": 9}, "max_size goes with shorter_side"),
        ({"shorter_side": 8, "max_size": 8}, "max_size must be above shorter_side"),
        ({"size": [8, 8], "fill": 0}, "fill and placement go with letterbox"),
        ({"size": [8, 8], "placement": "top_left"}, "fill and placement go with letterbox"),
        ({"shorter_side": 0}, "greater than or equal to 1"),
        ({"size": [8]}, "Field required"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resize.model_validate({"resize": options})


def test_known_sizes_are_followed(image: Value) -> None:
    known = image.but(shape=(100, 50, 3))
    assert Resize(shorter_side=20).flow(known).shape == (40, 20, 3)
    assert Resize(shorter_side=20).flow(image).shape == ("height", "width", 3)


def test_it_stands_before_layout_and_before_casts(image: Value) -> None:
    resize = Resize(shorter_side=20)
    with pytest.raises(FlowError) as caught:
        resize.flow(image.but(layout="CHW", shape=(3, "height", "width")))
    assert caught.value.hint == "put resize before - layout: CHW"
    with pytest.raises(FlowError, match="found int32"):
        resize.flow(image.but(dtype="int32"))
    with pytest.raises(FlowError, match="found tensor float32"):
        resize.flow(Value("tensor", "float32", (3, 8, 8)))


GOALS: list[dict[str, Any]] = [
    {"shorter_side": 24},
    {"shorter_side": 24, "max_size": 40},
    {"longer_side": 30},
    {"size": (20, 33)},
    {"letterbox": (32, 48), "fill": (1, 2, 3)},
    {"letterbox": (33, 20), "placement": "top_left"},
]
FILTERS = [
    ("bilinear", True),
    ("bilinear", False),
    ("hamming", True),
    ("bicubic", True),
    ("bicubic", False),
    ("lanczos", True),
    ("area", True),
]


EACH = [(goal, *FILTERS[0]) for goal in GOALS] + [(GOALS[3], *each) for each in FILTERS[1:]]


@pytest.mark.parametrize(("goal", "mode", "antialias"), EACH)
def test_every_execution_gives_the_same_within_one_grey_level(
    executions: RunStep, image: Value, mode: Any, antialias: bool, goal: dict[str, Any]
) -> None:
    op = Resize(interpolation=mode, antialias=antialias, **goal)
    for size in ((61, 40), (1, 50), (70, 2)):
        found = executions(op, image, noise(*size))
        assert found["graph"].dtype == found["python"].dtype == np.uint8
        # Pillow's own pixels, but for what is not Pillow's.
        bound = 0 if antialias and mode != "area" else 1
        assert apart(found["python"], found["reference"]) <= bound
        # Enlarged noise has many exact halves; several of them can meet in one pixel.
        far = np.abs(found["graph"].astype(int) - found["reference"])
        assert far.max() <= (1 if size == (61, 40) else 2)
        assert (far > 1).mean() < 1e-3


@pytest.mark.parametrize(("mode", "antialias"), FILTERS)
def test_every_execution_gives_the_same_on_floats(
    executions: RunStep, image: Value, mode: Any, antialias: bool
) -> None:
    op = Resize(interpolation=mode, antialias=antialias, size=(20, 33))
    found = executions(op, image.but(dtype="float32"), noise(61, 17).astype(np.float32))
    assert found["graph"].dtype == np.float32
    assert apart(found["python"], found["reference"]) < 0.01
    assert apart(found["graph"], found["reference"]) < 0.01


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(200, 90), (90, 200), (199, 20)])
def test_the_graph_takes_pillows_passes_in_pillows_order(
    executions: RunStep, image: Value, mode: Any, size: tuple[int, int]
) -> None:
    # Black and white overshoot most, and what is cut off hangs on which pass comes first.
    x = (noise(*size) > 127).astype(np.uint8) * 255
    found = executions(Resize(interpolation=mode, size=(21, 50)), image, x)
    assert apart(found["graph"], found["reference"]) <= 1


@pytest.mark.parametrize("floats", [False, True])
def test_openvino_computes_the_same(image: Value, floats: bool) -> None:
    openvino: Any = pytest.importorskip("openvino")
    for op in (Resize(shorter_side=24), Resize(letterbox=(33, 20), fill=(9, 8, 7))):
        x = noise(61, 40)
        expected = run_on_ort(op, image, x)
        proto, feed = graph_model(op, image, x, floats=floats)
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        model = core.compile_model(core.read_model(proto), "CPU", exact)
        assert apart(model(feed)[0][0], expected) <= 1


def graph_model(op: Op, value: Value, x: Any, **options: Any) -> tuple[bytes, dict[str, Any]]:
    """The step as a model's bytes, and what to feed it."""
    from compiler.processing.nodes import model_of, typed_outputs

    floats = options.pop("floats", False)
    graph = Graph(18, "step/", whole_floats=floats, **options)
    fused = op.fuse(graph, "x", value)
    assert fused
    assert isinstance(fused.result, str)
    dtype = "float32" if floats else str(x.dtype)
    inputs: Any = {"x": (dtype, (None, None, None, x.shape[2]))}
    proto = model_of(graph, inputs, typed_outputs(graph, inputs, [fused.result]))
    return proto.SerializeToString(), {"x": x[None].astype(dtype)}


def run_on_ort(op: Op, value: Value, x: Any, **options: Any) -> Any:
    import onnxruntime as ort

    proto, feed = graph_model(op, value, x, **options)
    session: Any = ort.InferenceSession(proto, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0][0]


def apart(one: Any, other: Any) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(np.float64) - other).max())


def test_onnxs_own_resize_is_taken_where_it_is_asked_for(image: Value) -> None:
    x = noise(61, 40)
    op = Resize(shorter_side=24)
    for each in (op, Resize(size=(20, 70)), Resize(size=(20, 70), interpolation="bicubic")):
        pillow = run_on_ort(each, image, x)
        assert apart(run_on_ort(each, image, x, resize="native"), pillow) <= 1
    for step, kind in ((op, "Resize"), (Resize(shorter_side=24, interpolation="area"), "MatMul")):
        graph = Graph(18, "step/", resize="native")
        step.fuse(graph, "x", image)
        assert {node.op for node in graph.nodes} & {"Resize", "MatMul"} == {kind}


def test_whole_floats_leave_no_uint8_in_the_graph(image: Value) -> None:
    op, x = Resize(letterbox=(20, 31)), noise(61, 40)
    graph = Graph(18, "step/", whole_floats=True)
    op.fuse(graph, "x", image)
    assert 2 not in [node.attributes.get("to") for node in graph.nodes]
    assert apart(run_on_ort(op, image, x, floats=True), run_on_ort(op, image, x)) == 0


@pytest.mark.parametrize("mode", ["nearest", "box"])
def test_filters_that_jump_stay_in_python(image: Value, mode: Any) -> None:
    assert Resize(size=(8, 8), interpolation=mode).fuse(Graph(18, ""), "x", image) is None


def test_a_letterbox_keeps_the_whole_image_and_its_shape(run_step: RunStep, image: Value) -> None:
    x = np.full((30, 60, 3), 200, np.uint8)
    op = Resize.model_validate({"resize": {"letterbox": [40, 40], "fill": [1, 2, 3]}})
    result = run_step(op, image, x)
    assert op.flow(image).shape == result.shape == (40, 40, 3)
    assert (result[10:30] == 200).all()
    assert (result[:10] == (1, 2, 3)).all()
    assert (result[30:] == (1, 2, 3)).all()
    top = run_step(Resize(letterbox=(40, 40), placement="top_left"), image, x)
    assert (top[:20] == 200).all()
    assert (top[20:] == 114).all()


def test_a_fill_that_the_image_cannot_hold_is_refused(image: Value) -> None:
    with pytest.raises(FlowError, match="2 fill values, the image has 3 channels"):
        Resize(letterbox=(8, 8), fill=(1, 2)).flow(image)
    with pytest.raises(FlowError, match=r"fills a uint8 image with 0\.5"):
        Resize(letterbox=(8, 8), fill=0.5).flow(image)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(2, [[15, 35]]), (3, [[12.5, 25, 37.5]]), (8, [[10, 10, 20, 20, 30, 30, 40, 40]])],
)
def test_area_is_the_mean_of_what_a_pixel_covers(length: int, expected: Any) -> None:
    x = np.array([10, 20, 30, 40], np.float32).reshape(1, 4, 1)
    result = resize_plain(x, (1, length), "area")[..., 0]
    assert np.allclose(result, expected, atol=1e-5)


def test_a_size_that_would_be_huge_is_refused_before_the_graph_makes_it(
    follow: RunStep, image: Value
) -> None:
    with pytest.raises(BadInput, match="would have 11468800x224 pixels"):
        follow(Resize(shorter_side=224), image, np.array([1, 1, 0, 0, 1, 51200, 1, 51200.0]))


@pytest.mark.parametrize(("size", "inner"), [((10, 7), (5, 4)), ((2, 1), (5, 2))])
def test_half_a_pixel_of_a_letterbox_goes_to_the_even_neighbour(
    executions: RunStep, image: Value, size: tuple[int, int], inner: tuple[int, int]
) -> None:
    op = Resize(letterbox=(5, 5))
    assert op.fit(size) == inner
    found = executions(op, image, noise(*size) // 2)
    for name in ("python", "graph"):
        columns = (found[name] != 114).any((0, 2)).sum()
        assert columns == inner[1], name
        assert apart(found[name], found["reference"]) <= 1
