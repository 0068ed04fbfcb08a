"""Real weights and pictures: MobileNetV2 in every precision."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false
# torch's and torchvision's functions are typed in part.
from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from compiler.compare import Tolerance, worst_gap
from compiler.precision import Request, convert
from compiler.precision.emulate import emulate_file
from compiler.precision.share import compute_shares
from specs.engines import Precision
from specs.precision import Quantize

pytestmark = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def net(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 graph with the real weights."""
    import torch
    import torchvision

    model = torchvision.models.mobilenet_v2(weights=None)
    weights = data / "weights" / "mobilenet_v2_imagenet.pth"
    model.load_state_dict(torch.load(weights, weights_only=True))
    file = tmp_path_factory.mktemp("mobilenet") / "net.onnx"
    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 3, 224, 224),),
        str(file),
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        opset_version=18,
        dynamo=False,
    )
    return file


@pytest.fixture(scope="module")
def pictures(data: Path) -> tuple[Any, Any]:
    """60 pictures as the net's input, and their classes."""
    folder = data / "imagenet_samples"
    rows = list(csv.DictReader((folder / "labels.csv").open()))
    inputs = np.stack([_preprocess(folder / row["file"]) for row in rows])
    return inputs, np.array([int(row["class_index"]) for row in rows])


def _preprocess(file: Path) -> Any:
    picture = Image.open(file).convert("RGB")
    width, height = picture.size
    short = min(width, height)
    size = (256 * width // short, 256 * height // short)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    array = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return ((array - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)


def _run(file: Path, inputs: Any) -> Any:
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs})[0]


def _request(net: Path, folder: Path, precision: Precision, inputs: Any, atol: float) -> Request:
    reference = {"": _run(net, inputs[:4])}

    def excess(file: Path) -> float:
        found = {"": _run(file, inputs[:4])}
        return worst_gap(found, reference, Tolerance(atol, atol)).excess

    def items() -> Any:
        return ({"input": item[None]} for item in inputs[::3])

    return Request(net, folder, precision, "onnxruntime", Quantize(), items, excess)


@pytest.mark.parametrize(("precision", "atol"), [("fp16", 0.05), ("bf16", 0.5)])
def test_a_real_net_computes_in_a_narrow_type_alone_and_agrees(
    net: Path, pictures: tuple[Any, Any], tmp_path: Path, precision: Precision, atol: float
) -> None:
    inputs, classes = pictures
    result = convert(_request(net, tmp_path, precision, inputs, atol))
    file = tmp_path / result.file
    assert result.kept == ()
    assert compute_shares(file, {"batch": 1}) == {precision: 1.0}
    assert file.stat().st_size < 0.51 * net.stat().st_size
    emulate_file(file, tmp_path / "emulated.onnx")
    found, expected = (_run(of, inputs[:20]) for of in (tmp_path / "emulated.onnx", net))
    assert (found.argmax(1) == classes[:20]).sum() >= (expected.argmax(1) == classes[:20]).sum() - 1


def test_a_real_net_in_int8_keeps_its_accuracy(
    net: Path, pictures: tuple[Any, Any], tmp_path: Path
) -> None:
    inputs, classes = pictures
    result = convert(_request(net, tmp_path, "int8", inputs, 0))
    file = tmp_path / result.file
    assert compute_shares(file, {"batch": 1}) == {"int8": 1.0}
    assert file.stat().st_size < 0.3 * net.stat().st_size
    before, after = _run(net, inputs), _run(file, inputs)
    assert not np.array_equal(before, after)
    assert (before.argmax(1) == classes).sum() == 52
    assert (after.argmax(1) == classes).sum() >= 50
    assert onnx.load(str(file)).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
