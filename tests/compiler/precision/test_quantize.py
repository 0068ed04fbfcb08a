"""int8, static and dynamic."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from specs.errors import ExportError

node = helper.make_node


def _close(net: Any, share: float) -> None:
    """The answer lies within a share of the largest value of the fp32 graph's."""
    from onnx.reference import ReferenceEvaluator

    expected = next(iter(ReferenceEvaluator(str(net.graph)).run(None, net.items[0])))
    found = next(iter(net.answer().values()))
    assert np.abs(found - expected).max() <= share * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def _weights(net: Any) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in net.proto.graph.initializer}


def _zero_points(net: Any) -> list[Any]:
    weights = _weights(net)
    return [
        weights[item.input[2]]
        for item in net.proto.graph.node
        if item.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "tensorrt"])
def test_a_quantized_graph_answers_nearly_the_same(
    small_net: Any, engine: str, method: str
) -> None:
    small_net.run("int8", engine=engine, method=method)
    _close(small_net, 0.05)


def test_edges_opset_and_ir_version_stay_and_the_batch_stays_dynamic(small_net: Any) -> None:
    small_net.run("int8")
    proto, before = small_net.proto, onnx.load(str(small_net.graph))
    for side in ("input", "output"):
        found, wanted = getattr(proto.graph, side), getattr(before.graph, side)
        assert [(v.name, v.type) for v in found] == [(v.name, v.type) for v in wanted]
    assert list(proto.opset_import) == list(before.opset_import)
    assert proto.ir_version == before.ir_version
    batch = np.concatenate([item["x"] for item in small_net.items])
    small_net.items = [{"x": batch}]
    assert small_net.answer()["y"].shape == (4, 10)


def test_per_channel_gives_a_scale_per_output_channel(small_net: Any) -> None:
    small_net.run("int8")
    assert _weights(small_net)["w2_scale"].shape == (16,)
    small_net.run("int8", per_channel=False)
    assert _weights(small_net)["w2_scale"].shape == ()


def test_on_the_cpu_activations_are_uint8_and_biases_int32(small_net: Any) -> None:
    small_net.run("int8")
    assert {point.dtype.name for point in _zero_points(small_net)} == {"uint8", "int8", "int32"}


@pytest.mark.parametrize("place", [{"engine": "tensorrt"}, {"device": "cuda"}])
def test_on_a_gpu_all_is_int8_around_zero_and_biases_are_float(
    small_net: Any, place: dict[str, str]
) -> None:
    small_net.run("int8", **place)
    points = _zero_points(small_net)
    assert {point.dtype.name for point in points} == {"int8"}
    assert not any(point.any() for point in points)
    assert _weights(small_net)["b1"].dtype == np.float32


def test_seven_bit_weights_where_they_are_asked_for(small_net: Any) -> None:
    small_net.run("int8", reduce_range=True)
    assert np.abs(_weights(small_net)["w1_quantized"]).max() <= 64


@pytest.mark.parametrize(
    ("saturates", "place", "largest"),
    [
        (True, {}, 64),
        (True, {"engine": "openvino"}, 64),
        (True, {"engine": "tensorrt"}, 127),
        (True, {"device": "cuda"}, 127),
        (True, {"reduce_range": False}, 127),
        (False, {}, 127),
    ],
)
def test_without_vnni_weights_have_seven_bits_and_the_build_says_so(
    small_net: Any,
    monkeypatch: pytest.MonkeyPatch,
    saturates: bool,
    place: dict[str, Any],
    largest: int,
) -> None:
    monkeypatch.setattr("compiler.precision.quantize.int8_saturates", lambda: saturates)
    result = small_net.run("int8", **place)
    assert (np.abs(_weights(small_net)["w1_quantized"]).max() <= 64) == (largest == 64)
    assert any("7 bits" in note for note in result.notes) == (largest == 64)


def test_excluded_nodes_stay_in_fp32_and_are_told(small_net: Any) -> None:
    result = small_net.run("int8", exclude=["conv1", "lin.*"], reduce_range=False)
    assert result.notes == ("not quantized, as quantize.exclude asks: conv1, linear",)
    assert _weights(small_net)["w1"].dtype == np.float32


def test_an_exclude_that_matches_no_node_names_the_nearest(small_net: Any) -> None:
    with pytest.raises(ExportError, match="'conv3' matches no node") as caught:
        small_net.run("int8", exclude=["conv3"])
    assert "conv" in caught.value.hint


def test_a_pattern_must_match_the_whole_name(small_net: Any) -> None:
    with pytest.raises(ExportError, match="matches no node"):
        small_net.run("int8", exclude=["conv"])


def test_the_same_items_give_the_same_bytes(small_net: Any, tmp_path: Any) -> None:
    small_net.mark(str(tmp_path))
    small_net.run("int8", method="entropy")
    first = small_net.file.read_bytes()
    small_net.folder = tmp_path / "elsewhere"
    small_net.run("int8", method="entropy")
    assert small_net.file.read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert b"/tmp" not in first


def test_a_batch_norm_is_folded_before_it_is_quantized(conversion: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    net = conversion(
        [
            node("Conv", ["x", "w"], ["c"], name="conv"),
            node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], name="norm"),
        ],
        {
            "w": rng.standard_normal((4, 3, 1, 1)).astype(np.float32),
            "g": np.full(4, 2, np.float32),
            "b": np.ones(4, np.float32),
            "m": np.zeros(4, np.float32),
            "v": np.ones(4, np.float32),
        },
        {"x": ["batch", 3, 4, 4]},
        {"y": ["batch", 4, 4, 4]},
        [{"x": rng.standard_normal((1, 3, 4, 4)).astype(np.float32)}],
    )
    net.run("int8")
    assert "BatchNormalization" not in net.ops()
    assert net.node("conv").output[0]
    _close(net, 0.05)
    assert [item.domain for item in net.proto.opset_import] == [""]


def test_an_old_opset_is_raised_to_13_and_told(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [node("MatMul", ["x", "w"], ["y"], name="product")],
        {"w": np.eye(3, dtype=np.float32)},
        {"x": ["batch", 3]},
        {"y": ["batch", 3]},
        [{"x": np.array([[0.11, 0.5, 1]], np.float32)}],
        opset=11,
    )
    result = net.run("int8")
    assert net.proto.opset_import[0].version == 13
    assert "opset raised from 11 to 13: quantized graphs need it" in result.notes


def test_dynamic_quantisation_needs_no_items_and_quantizes_products(overflow: Any) -> None:
    overflow.items, items = [], overflow.items
    overflow.run("int8", mode="dynamic")
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= set(overflow.ops())
    overflow.items = items
    _close(overflow, 0.05)


def test_dynamic_quantisation_takes_a_gemm_with_turned_weights(small_net: Any) -> None:
    proto = onnx.load(str(small_net.graph))
    described = helper.make_tensor_value_info("w3", TensorProto.FLOAT, [10, 16])
    proto.graph.value_info.append(described)  # as torch's exporter does
    onnx.save(proto, str(small_net.graph))
    result = small_net.run("int8", mode="dynamic")
    assert "MatMulInteger" in small_net.ops()
    assert result.notes[0].endswith("constant weights: conv1, conv2")
    _close(small_net, 0.05)


def test_an_excluded_gemm_is_not_quantized_dynamically(small_net: Any) -> None:
    with pytest.raises(ExportError, match="nothing in the graph could be quantized"):
        small_net.run("int8", mode="dynamic", exclude=["linear"])


@pytest.mark.parametrize("engine", ["openvino", "tensorrt", "torch"])
def test_dynamic_quantisation_is_refused_for_engines_without_its_kernels(
    overflow: Any, engine: str
) -> None:
    with pytest.raises(ExportError, match=f"{engine} cannot run dynamically") as caught:
        overflow.run("int8", mode="dynamic", engine=engine)
    assert caught.value.code == "quantize"
    assert "mode: static" in caught.value.hint


def test_a_graph_without_anything_to_quantize_is_an_error(conversion: Callable[..., Any]) -> None:
    net = conversion(
        [node("Exp", ["x"], ["y"])], {}, {"x": ["n", 2]}, {"y": ["n", 2]},
        [{"x": np.ones((1, 2), np.float32)}],
    )  # fmt: skip
    with pytest.raises(ExportError, match="nothing in the graph could be quantized"):
        net.run("int8")


def test_the_quantizers_exceptions_become_ours(
    small_net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    def fail(_: Any) -> None:
        message = "no such thing\nat all"
        raise KeyError(message)

    monkeypatch.setattr(QDQQuantizer, "quantize_model", fail)
    with pytest.raises(ExportError, match="the graph cannot be quantized: ") as caught:
        small_net.run("int8")
    assert caught.value.code == "quantize"
    assert "\n" not in caught.value.message


def test_nothing_is_printed_and_logging_is_as_before(
    small_net: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.root.manager.disable
    small_net.run("int8")
    small_net.run("int8", mode="dynamic")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.root.manager.disable == before


def test_types_that_shape_inference_needs_are_left_to_it(small_net: Any) -> None:
    small_net.run("int8")
    graph = onnx.shape_inference.infer_shapes(small_net.proto, strict_mode=True).graph
    assert all(v.type.tensor_type.elem_type != TensorProto.UNDEFINED for v in graph.value_info)
