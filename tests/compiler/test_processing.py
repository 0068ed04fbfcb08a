from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from PIL import Image

from compiler.processing import GeneratedProcessing, copying, generate, parts, read_labels
from compiler.processing.copying import Copied
from compiler.processing.layout import statement
from specs.errors import SpecError
from specs.ops import OPS
from specs.ops.decode_image import decode_image
from tests.processing_specs import (
    CLASSIFY,
    MEAN,
    PIXELS,
    STD,
    VARIANTS,
    image_spec,
    make_spec,
    tensors_spec,
)

torch: Any = pytest.importorskip("torch")
transforms: Any = pytest.importorskip("torchvision.transforms")

SPECS = Path(__file__).parents[2] / "specs"


def load(generated: GeneratedProcessing, folder: Path | None = None) -> ModuleType:
    """The generated file as a module; ``folder`` gets the label files."""
    module = ModuleType("processing")
    if folder:
        for name, text in generated.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, path in generated.copies.items():
            own = "def same(x):\n    return x\n"
            content = own if path == "mine.py" else (SPECS / path).read_text(encoding="utf-8")
            (folder / name).write_text(content, encoding="utf-8")
        module.__file__ = str(folder / "processing.py")
    exec(compile(generated.text, "processing.py", "exec"), vars(module))  # noqa: S102
    return module


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    ).resize((width, height))


def code_of(module: ModuleType, item: object) -> str:
    with pytest.raises(module.BadInput) as caught:
        module.preprocess(item)
    assert caught.value.message
    assert caught.value.hint
    return caught.value.code


SYNTHETIC = {
    "landscape": encode(noise(80, 120), "JPEG"),
    "portrait": encode(noise(200, 90)),
    "strip": encode(noise(2, 300)),
    "column of one pixel": encode(noise(150, 1)),
    "one pixel": encode(noise(1, 1)),
    "grey": encode(noise(70, 90).convert("L"), "JPEG"),
    "CMYK": encode(noise(70, 90).convert("CMYK"), "JPEG"),
    "palette": encode(noise(70, 90).convert("P"), "GIF"),
    "transparent": encode(noise(70, 90).convert("RGBA")),
    "16 bit": encode(Image.fromarray(np.arange(70 * 90, dtype=np.uint16).reshape(70, 90))),
    "1 bit": encode(noise(70, 90).convert("1")),
}


@pytest.mark.parametrize("data", SYNTHETIC.values(), ids=SYNTHETIC.keys())
def test_pixels_equal_torchvisions(data: bytes) -> None:
    image = {"input": {"shape": ["batch", 3, 56, 56], "dtype": "uint8"}}
    steps = ["decode_image", *PIXELS, {"layout": "CHW"}]
    module = load(generate(make_spec(inputs=image, preprocess=steps), {}))
    reference = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(56)])
    expected = np.asarray(reference(Image.open(io.BytesIO(data)).convert("RGB")))
    pixels = module.preprocess(data)["input"]
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels.transpose(1, 2, 0), expected)


@pytest.mark.parametrize("data", SYNTHETIC.values(), ids=SYNTHETIC.keys())
def test_the_whole_chain_equals_torchvisions(data: bytes) -> None:
    module = load(generate(make_spec(), {}))
    reference = transforms.Compose(
        [
            transforms.Resize(64),
            transforms.CenterCrop(56),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    expected = reference(Image.open(io.BytesIO(data)).convert("RGB")).numpy()
    tensor = module.preprocess(data)["input"]
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert np.array_equal(tensor, expected)


@pytest.mark.parametrize("last", ["layout", "normalize"])
def test_the_result_is_written_where_there_is_room_for_it(last: str) -> None:
    first = [*CLASSIFY[:-2], CLASSIFY[-1], CLASSIFY[-2]]
    steps = {"layout": CLASSIFY, "normalize": first}[last]
    module = load(generate(make_spec(preprocess=steps), {}))
    data = SYNTHETIC["landscape"]
    fresh = module.preprocess(data)["input"]
    room = np.empty_like(fresh)
    assert module.preprocess(data, {"input": room})["input"] is room
    assert np.array_equal(room, fresh)


def imagenet_samples() -> Path:
    folder = os.environ.get("DEPLOYC_TEST_DATA", "")
    if not folder:
        pytest.skip("DEPLOYC_TEST_DATA is not set: no real pictures")
    return Path(folder) / "imagenet_samples"


def test_real_pictures_equal_torchvisions() -> None:
    folder = imagenet_samples()
    inputs = {"input": {"shape": ["batch", 3, 224, 224]}}
    steps = ["decode_image", {"resize": {"shorter_side": 256}}, {"center_crop": 224}, *CLASSIFY[3:]]
    module = load(generate(make_spec(inputs=inputs, preprocess=steps), {}))
    reference = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    for name in names:
        data = (folder / name).read_bytes()
        expected = reference(Image.open(io.BytesIO(data)).convert("RGB")).numpy()
        assert np.array_equal(module.preprocess(data)["input"], expected), name
    assert len(names) == 60


def test_postprocess_equals_torchs_softmax_and_topk(tmp_path: Path) -> None:
    labels = {"en": ["a", "b", "c", "d"], "zh": ["甲", "乙", "丙", "丁"]}
    steps = ["softmax", {"top_k": {"k": 3, "labels": {"en": "e.txt", "zh": "z.txt"}}}]
    module = load(generate(make_spec(postprocess=steps), labels), tmp_path)
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    values, indices = torch.topk(torch.softmax(torch.from_numpy(logits), -1), 3)
    answers = module.postprocess({"output": logits})
    assert len(answers) == 5
    for answer, best, places in zip(answers, values.tolist(), indices.tolist(), strict=True):
        assert [entry["index"] for entry in answer["classes"]] == places
        assert np.allclose([entry["probability"] for entry in answer["classes"]], best, atol=1e-6)
        named: list[dict[str, str]] = [
            {"en": labels["en"][i], "zh": labels["zh"][i]} for i in places
        ]
        assert [entry["label"] for entry in answer["classes"]] == named
    json.dumps(answers)


def test_one_file_of_labels_gives_plain_names(tmp_path: Path) -> None:
    spec = make_spec(postprocess=[{"top_k": {"k": 1, "labels": "names.txt"}}])
    (tmp_path / "names.txt").write_bytes("\ufeffa\r\nb\r\nc \r\nd\r\n".encode())
    generated = generate(spec, read_labels(spec, tmp_path))
    assert generated.labels == {"labels.txt": "a\nb\nc\nd\n"}
    answer = load(generated, tmp_path).postprocess({"output": np.eye(4, dtype="f4")[2:3]})
    assert answer == [{"classes": [{"index": 2, "label": "c", "score": 1.0}]}]


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, "labels_missing", "No such file"),
        (b"a\nb\nc\n\xff\n", "labels_encoding", "byte 6 is 0xff"),
        (b"a\nb\n", "labels_count", "has 2 lines, the output has 4 classes"),
        (b"a\nb\nc\nd\n\n", "labels_count", "has 5 lines"),
    ],
)
def test_a_faulty_label_file_is_named(
    tmp_path: Path, content: bytes | None, code: str, words: str
) -> None:
    spec = make_spec(postprocess=[{"top_k": {"k": 1, "labels": {"en": "names.txt"}}}])
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_labels(spec, tmp_path)
    assert caught.value.code == code
    assert caught.value.problems[0].path == "postprocess[0].top_k.labels.en"
    assert words in str(caught.value)


def test_what_is_taken_and_answered_is_told() -> None:
    kinds = [
        (make_spec(), "image", "classes"),
        (make_spec(postprocess=["identity"]), "image", "tensors"),
        (tensors_spec(), "tensors", "tensors"),
        (image_spec(), "image", "image"),
    ]
    for spec, takes, answer in kinds:
        generated = generate(spec, {})
        assert (generated.takes, generated.answer) == (takes, answer)


def test_a_picture_goes_through_unchanged() -> None:
    module = load(generate(image_spec(), {}))
    pixels = np.asarray(noise(7, 9))
    tensors = module.preprocess(pixels)
    assert tensors["input"].shape == (3, 7, 9)
    assert np.array_equal(module.preprocess(pixels.astype(float))["input"], tensors["input"])
    (answer,) = module.postprocess({"output": tensors["input"][None]})
    assert np.array_equal(answer["image"], pixels)


def test_a_picture_outside_the_range_of_an_open_axis_is_refused() -> None:
    module = load(generate(image_spec(), {}))
    assert code_of(module, encode(noise(17, 9))) == "wrong_shape"
    assert code_of(module, encode(noise(3, 9))) == "wrong_shape"


def test_floats_are_rounded_where_the_model_takes_pixels() -> None:
    inputs = {"input": {"shape": ["batch", 1, 2, 1], "dtype": "uint8"}}
    steps = [{"decode_image": "L"}, {"resize": {"size": [1, 2]}}]
    module = load(generate(make_spec(inputs=inputs, preprocess=steps), {}))
    assert module.preprocess(np.array([[1.6, 254.5]]))["input"].ravel().tolist() == [2, 254]


def test_tensors_come_by_name_and_are_converted_where_nothing_is_lost() -> None:
    module = load(generate(tensors_spec(), {}))
    tensors = module.preprocess({"ids": [1.0, 2.0], "mask": np.array([0.1, 1], np.float64)})
    assert {name: str(tensor.dtype) for name, tensor in tensors.items()} == {
        "ids": "int32",
        "mask": "float32",
    }
    answers = module.postprocess({"a": np.zeros((2, 3)), "b": np.ones(2)})
    assert [list(answer["outputs"]) for answer in answers] == [["a", "b"], ["a", "b"]]
    assert answers[1]["outputs"]["b"] == 1


GOOD: dict[str, Any] = {"ids": [1, 2, 3], "mask": [1, 1, 1]}


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (b"bytes", "wrong_input"),
        (None, "wrong_input"),
        ({"ids": [1, 2, 3]}, "wrong_input"),
        (GOOD | {3: [1]}, "wrong_input"),
        (GOOD | {"ids": [1.5, 2, 3]}, "wrong_dtype"),
        (GOOD | {"ids": [2**40, 2, 3]}, "wrong_dtype"),
        (GOOD | {"ids": [2**70, 2, 3]}, "wrong_dtype"),
        (GOOD | {"ids": ["1", "2", "3"]}, "wrong_dtype"),
        (GOOD | {"mask": [1e300, 1, 1]}, "wrong_dtype"),
        (GOOD | {"mask": [float("nan"), 1, 1]}, "not_finite"),
        (GOOD | {"mask": [[1, 1, 1]]}, "wrong_shape"),
        (GOOD | {"mask": [1, 1]}, "wrong_shape"),
        ({"ids": [1], "mask": [1]}, "wrong_shape"),
        ({"ids": [1] * 5, "mask": [1] * 5}, "wrong_shape"),
        (GOOD | {"mask": [[1], [1, 2]]}, "wrong_shape"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(item: object, code: str) -> None:
    assert code_of(load(generate(tensors_spec(), {})), item) == code


def test_a_lone_input_comes_without_its_name_and_signs_are_kept() -> None:
    spec = tensors_spec(
        inputs={"x": {"shape": ["batch", "n"], "dtype": "uint8"}}, preprocess=[{"cast": "uint8"}]
    )
    module = load(generate(spec, {}))
    assert module.preprocess(np.array([1, 2]))["x"].dtype == np.uint8
    assert module.preprocess({"x": [1, 2]})["x"].tolist() == [1, 2]
    assert code_of(module, np.array([-1, 2], np.int8)) == "wrong_dtype"
    assert code_of(module, [[1, 2]]) == "wrong_shape"


def test_a_model_of_single_numbers_takes_one() -> None:
    spec = tensors_spec(
        inputs={"x": {"shape": ["batch"]}}, dynamic_axes={"batch": {"opt": 1, "max": 2}}
    )
    assert load(generate(spec, {})).preprocess(2)["x"].shape == ()


@settings(max_examples=300, deadline=None)
@given(arrays(scalar_dtypes(), array_shapes(min_dims=0, max_side=4)), st.binary(max_size=40))
def test_no_item_raises_anything_but_bad_input(array: np.ndarray[Any, Any], data: bytes) -> None:
    for module in MODULES:
        for item in (array, data, {"ids": array, "mask": array}, {"ids": data}):
            try:
                module.preprocess(item)
            except module.BadInput as error:
                assert error.hint  # noqa: PT017


MODULES = [load(generate(spec, {})) for spec in (make_spec(), tensors_spec(), image_spec())]


def test_the_limits_are_the_specs() -> None:
    module = load(generate(make_spec(limits={"bytes": 5000, "pixels": 100}), {}))
    assert code_of(module, bytes(5001)) == "too_large"
    assert code_of(module, encode(noise(10, 11))) == "too_large"


def test_every_op_is_in_one_of_these_specs() -> None:
    specs = [spec for spec, _ in VARIANTS.values()]
    used = {type(step) for spec in specs for step in (*spec.preprocess, *spec.postprocess)}
    assert used == set(OPS)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_is_formatted_and_passes_ruff(name: str, tmp_path: Path) -> None:
    (tmp_path / "processing.py").write_text(generate(*VARIANTS[name]).text, encoding="utf-8")
    for command in (["format", "--diff"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "."]
        done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_runs_alone_with_numpy_and_pillow(name: str, tmp_path: Path) -> None:
    load(generate(*VARIANTS[name]), tmp_path)
    code = (
        "import runpy, sys\n"
        f"names = runpy.run_path({str(tmp_path / 'processing.py')!r})\n"
        "assert callable(names['preprocess']) and callable(names['postprocess'])\n"
        "print([m for m in ('torch', 'onnx', 'pydantic', 'specs') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_spec_gives_the_same_file_in_every_process(name: str) -> None:
    spec, labels = VARIANTS[name]
    raw = spec.model_dump_json(by_alias=True)
    code = (
        "import hashlib, json, sys; from compiler.processing import generate\n"
        "from specs.schema import Spec\n"
        "spec, labels = sys.stdin.read().split('\\n')\n"
        "text = generate(Spec.model_validate_json(spec), json.loads(labels)).text\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=f"{raw}\n{json.dumps(labels)}",
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_file_tells_what_it_is_and_nothing_of_this_machine() -> None:
    text = generate(make_spec(), {}).text
    assert text.startswith("# Processing of 'net', generated by deployc ")
    assert "/" + "home" not in text
    assert str(Path(__file__).parents[2]) not in text
    assert "noqa" not in text


def test_only_what_is_read_of_the_spec_is_in_the_digest() -> None:
    assert parts(make_spec(serving={"gpus": 1})) == parts(make_spec())
    assert parts(make_spec(limits={"pixels": 9})) != parts(make_spec())


def test_two_steps_of_one_kind_keep_their_own_constants() -> None:
    text = generate(*VARIANTS["every op"]).text
    assert "MEAN_2 = np.array([1.5, 2.5, 3.5], np.float32)" in text
    assert "normalize(x, 1.0, MEAN_2, STD_2)" in text


def test_code_that_imports_more_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PACKAGES", frozenset({"numpy"}))
    with pytest.raises(TypeError, match=r"decode_image uses PIL in copied code: only numpy"):
        Copied().add(decode_image)


def test_one_name_cannot_have_two_meanings() -> None:
    copied = Copied()
    copied.add_import("elsewhere", "io", "io")
    with pytest.raises(TypeError, match="'io' is defined by both elsewhere and io: rename one"):
        copied.add(decode_image)


def test_short_statements_stay_on_one_line_and_long_ones_break_as_ruff_breaks_them() -> None:
    assert statement("x = ", "f(x, 1)", 4) == "    x = f(x, 1)"
    long = ", ".join(f"argument_{i}" for i in range(9))
    half = long[: long.index(", argument_6")]
    head = "a_longer_name = "
    assert statement(head, f"f({half})").splitlines() == [f"{head}f(", f"    {half}", ")"]
    assert statement("x = ", f"f({long})").splitlines()[:2] == ["x = f(", "    argument_0,"]
    listed = statement(head, f"({half}, b)").splitlines()
    assert listed[:2] == [f"{head}(", "    argument_0,"]
