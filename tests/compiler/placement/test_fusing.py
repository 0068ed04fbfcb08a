# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from compiler.placement.fusing import Fusion, fuse, fused_steps
from specs.schema import Spec
from tests.processing_specs import SMALL

SPEC: dict[str, Any] = SMALL


def mean_of_channels(input_name: str = "input", output_name: str = "output") -> onnx.ModelProto:
    """A model that gives each channel's mean."""
    node = helper.make_node("ReduceMean", [input_name, "axes"], [output_name], keepdims=0)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, **inputs: Any) -> dict[str, Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_all_steps_but_decoding_and_naming_are_in_the_graph() -> None:
    fusion = Fusion(Spec.model_validate(SPEC), 18)
    assert fused_steps(fusion) == "resize, center_crop, normalize, layout, softmax, top_k"
    model, outputs = fuse(mean_of_channels(), fusion)
    assert [info.name for info in model.graph.input] == ["image"]
    assert {n: (o.dtype, o.shape) for n, o in outputs.items()} == {
        "values": ("float32", ("batch", 2)),
        "indices": ("int64", ("batch", 2)),
    }


def test_the_graph_takes_pictures_of_any_size_and_gives_probabilities() -> None:
    model, _ = fuse(mean_of_channels(), Fusion(Spec.model_validate(SPEC), 18))
    for height, width in ((30, 50), (16, 16), (200, 31)):
        image = np.zeros((2, height, width, 3), np.uint8)
        image[..., 1] = 255
        found = run(model, image=image)
        logits = (np.array([0, 1, 0]) - [0.4, 0.4, 0.5]) / [0.2, 0.2, 0.3]
        powers = np.exp(logits - logits.max())
        assert found["indices"].tolist() == [[1, 2]] * 2
        assert np.allclose(found["values"][0], sorted(powers / powers.sum())[:0:-1], atol=1e-5)


def test_steps_after_one_without_nodes_stay_in_python() -> None:
    python = {"file": "mine.py", "function": "f"}
    steps = [*SPEC["preprocess"][:2], {"python": python}, *SPEC["preprocess"][2:]]
    spec = Spec.model_validate(SPEC | {"preprocess": steps})
    fusion = Fusion(spec, 18)
    assert fusion.first == 3


def test_without_an_image_only_the_steps_behind_the_model_are_in_the_graph() -> None:
    fusion = Fusion(Spec.model_validate(SPEC | {"preprocess": []}), 18)
    assert fusion.pre is None
    model, _ = fuse(mean_of_channels(), fusion)
    assert [info.name for info in model.graph.input] == ["input"]
    found = run(model, input=np.ones((1, 3, 16, 16), np.float32))
    assert np.allclose(found["values"], 1 / 3)


@pytest.mark.parametrize(("given", "result"), [("image", "output"), ("input", "values")])
def test_names_that_the_model_has_already_are_not_mixed_up(given: str, result: str) -> None:
    changes = {
        "inputs": {given: SPEC["inputs"]["input"]},
        "outputs": {result: SPEC["outputs"]["output"]},
    }
    spec = Spec.model_validate(SPEC | changes)
    model, _ = fuse(mean_of_channels(given, result), Fusion(spec, 18))
    found = run(model, image=np.zeros((1, 20, 20, 3), np.uint8))
    assert found["indices"].tolist() == [[2, 0]]


def test_the_engine_is_told_the_ranges_of_the_images_sides() -> None:
    limits = {"side": 4000}
    fusion = Fusion(Spec.model_validate(SPEC | {"limits": limits}), 18)
    _, outputs = fuse(mean_of_channels(), fusion)
    spec = fusion.for_engine(outputs)
    assert spec.inputs["image"].shape == ("batch", "image_height", "image_width", 3)
    axis = spec.dynamic_axes["image_width"]
    assert (axis.min, axis.opt, axis.max) == (1, 512, 4000)


def test_the_portable_graph_is_not_changed() -> None:
    model = mean_of_channels()
    before = model.SerializeToString(deterministic=True)
    fuse(model, Fusion(Spec.model_validate(SPEC), 18))
    assert model.SerializeToString(deterministic=True) == before
