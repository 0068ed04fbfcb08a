from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from specs.ops import GEOMETRY, Graph, Libraries
from specs.ops._geometry import cropped, padded, resized, whole_image
from specs.ops.mask_to_image import MaskToImage, paint, voc_palette
from specs.ops.threshold import Threshold
from specs.values import FlowError, Value

RunStep = Callable[..., Any]
SCORES = Value("tensor", "float32", ("batch", 3, "height", "width"))
NUMBERS = Value("tensor", "int64", ("batch", "height", "width"))
COLOURS = [[0, 0, 0], [255, 0, 0], [0, 255, 1]]


def test_every_class_gets_its_colour_and_the_first_of_equal_ones_wins(run_step: RunStep) -> None:
    x = np.array([[[[1, 5]], [[2, 5]], [[9, 4]]]], np.float32)
    op = MaskToImage.model_validate({"mask_to_image": {"palette": COLOURS}})
    assert run_step(op, SCORES, x).tolist() == [[[[0, 255, 1], [0, 0, 0]]]]


def test_the_palette_is_pascal_vocs() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 7: (128, 128, 128), 15: (192, 128, 128)}
    assert {index: tuple(voc_palette()[index]) for index in known} == known
    assert len(np.unique(voc_palette(), axis=0)) == 256


def test_a_number_without_a_colour_is_black() -> None:
    painted = paint(np.array([[-1, 0, 2, 300]]), np.array([[9, 9, 9], [8, 8, 8], [7, 7, 7]]))
    assert painted[0, :, 0].tolist() == [0, 9, 7, 0]


@pytest.mark.parametrize(
    ("batch", "palette"), [(1, None), (3, None), (1, tuple(map(tuple, COLOURS)))]
)
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
def test_every_execution_draws_the_same(
    executions: RunStep, batch: int, palette: Any, layout: Any, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    sizes = (3, 5, 1) if layout == "CHW" else (5, 1, 3)
    x = rng.integers(0, 4, (batch, *sizes)).astype(dtype)
    op = MaskToImage(palette=palette, layout=layout)
    found = executions(op, Value("tensor", dtype, ("batch", *sizes)), x)
    for name in ("python", "graph"):
        assert found[name].dtype == np.uint8, name
        assert found[name].shape == (batch, 5, 1, 3), name
        assert (found[name] == found["reference"]).all(), name


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "int64"])
@pytest.mark.parametrize("shape", [(2, 4, 6), (2, 1, 4, 6)])
def test_class_numbers_are_drawn_as_they_are(
    executions: RunStep, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    top = {"bool": 2, "uint8": 256, "int8": 128}.get(dtype, 400)
    x = rng.integers(0 if top in (2, 256) else -3, top, shape).astype(dtype)
    found = executions(MaskToImage(), Value("tensor", dtype, ("batch", *shape[1:])), x)
    assert found.keys() == {"python", "reference"}
    assert found["python"].shape == (2, 4, 6, 3)
    assert (found["python"] == found["reference"]).all()


def _geometry(kind: str) -> NDArray[Any]:
    """Where the pixels of a 20 x 30 input of an image of 332 x 250 are."""
    at = whole_image(np.empty((332, 250, 3)))
    if kind == "stretched":
        return resized(at, (20, 30))
    if kind == "letterbox":
        return padded(resized(at, (20, 15)), (0, 7), (20, 30))
    return cropped(resized(at, (53, 40)), (16, 5), (20, 30))


@pytest.mark.parametrize("sides", [(20, 30), (5, 9), (1, 1), (41, 61)])
def test_at_the_images_size_it_is_pillows_affine_transform(
    libraries: Libraries, rng: np.random.Generator, sides: tuple[int, int]
) -> None:
    from compiler.processing.executions import run_fused, run_python

    x = rng.normal(size=(3, 4, *sides)).astype(np.float32)
    x[:, 0] -= 9  # class 0 is only where the model did not look
    geometry = np.stack([_geometry(kind) for kind in ("stretched", "letterbox", "cropped")])
    op, beside = MaskToImage(size="image"), {GEOMETRY: geometry}
    wanted = op.at_image(x, SCORES.but(shape=("batch", 4, *sides)), libraries, geometry)
    for run in (run_python, run_fused):
        found = run(op, SCORES.but(shape=("batch", 4, *sides)), x, beside)
        assert [picture.shape for picture in found] == [(332, 250, 3)] * 3
        for picture, want in zip(found, wanted, strict=True):
            # These sides put no centre on an edge, where Pillow's running sum is not exact.
            assert (picture == want).all()


def test_what_the_model_did_not_see_is_class_0_and_the_rest_comes_back_where_it_was() -> None:
    from compiler.processing.executions import run_python

    at = cropped(resized(whole_image(np.empty((8, 8, 3))), (4, 4)), (1, 1), (2, 2))
    x = np.array([[[1, 2], [2, 1]]])
    op = MaskToImage(size="image", palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    (picture,) = run_python(op, NUMBERS, x, {GEOMETRY: at[None]})
    wanted = np.zeros((8, 8), int)
    wanted[2:6, 2:6] = np.kron([[1, 2], [2, 1]], np.ones((2, 2), int))
    assert (picture[:, :, 0] == wanted).all()


def test_one_byte_for_each_pixel_leaves_the_graph() -> None:
    graph = Graph(18, "")
    MaskToImage(size="image").fuse(graph, "x", SCORES)
    assert graph.nodes[-1].attributes["to"] == 2


def test_a_mask_of_a_threshold_can_be_drawn_and_its_sides_are_known() -> None:
    one = SCORES.but(shape=("batch", 1, "height", "width"))
    value = MaskToImage().flow(Threshold(at=0, mask=True).flow(one))
    assert (value.kind, value.shape) == ("answer_image", ("batch", "height", "width", 3))
    image = MaskToImage(size="image").flow(SCORES)
    assert image.shape == ("batch", "image_height", "image_width", 3)


@pytest.mark.parametrize(
    ("options", "value", "message"),
    [
        ({}, SCORES.but(shape=("batch", 3)), "takes scores"),
        ({}, NUMBERS.but(dtype="float32"), "takes integers as class numbers, found float32"),
        ({}, SCORES.but(shape=("batch", 1, 8, 8)), "takes integers as class numbers"),
        ({}, SCORES.but(shape=("batch", 500, 500, 21)), "has 256 colours, found 500 classes"),
        ({"palette": [[0, 0, 0], [1, 1, 1]]}, SCORES, "has 2 colours, found 3 classes"),
    ],
)
def test_what_is_no_mask_is_refused(options: Any, value: Value, message: str) -> None:
    with pytest.raises(FlowError, match=message):
        MaskToImage(**options).flow(value)


@pytest.mark.parametrize("palette", [[], [[0, 0]], [[0, 0, 256]], [[1, 1, 1], [1, 1, 1]]])
def test_a_palette_is_a_list_of_different_colours(palette: Any) -> None:
    with pytest.raises(ValueError, match="palette"):
        MaskToImage(palette=palette)


def test_the_images_size_needs_an_image(problems: RunStep) -> None:
    (problem,) = problems(
        outputs="{output: {shape: [batch, 3, 8, 8]}}", postprocess="[{mask_to_image: image}]"
    )
    assert problem.code == "no_geometry"
