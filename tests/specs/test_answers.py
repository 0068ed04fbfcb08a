from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.answers import to_json
from runtime.processing import load_processing
from specs.answers import answer_schema
from specs.digests import text_sha256
from specs.flow import postprocess_start, walk
from specs.loader import LoadedSpec
from specs.schema import Spec
from specs.values import Value

Load = Callable[..., LoadedSpec]
Json = dict[str, Any]
LABELS = {"a.txt": "abcdefghij", "b.txt": "零一二三四五六七八九"}


@pytest.fixture(autouse=True)
def label_files(tmp_path: Path) -> None:
    """The files that specs here name, beside the spec."""
    for name, lines in LABELS.items():
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")


def _schema(spec: Spec) -> Json:
    value = postprocess_start(spec)
    for _, _, result in walk(spec.postprocess, value):
        value = result
    schema = answer_schema(value, spec.outputs)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def _answers(loaded: LoadedSpec, outputs: dict[str, NDArray[Any]], folder: Path) -> list[Json]:
    """What the generated code answers, as JSON."""
    from compiler.processing import generate, read_labels

    generated = generate(loaded.spec, read_labels(loaded.spec, loaded.folder))
    for name, content in generated.files.items():
        (folder / name).write_text(content, encoding="utf-8")
    path = folder / "processing.py"
    processing = load_processing(path, text_sha256(path.read_text(encoding="utf-8")))
    return [to_json(answer) for answer in processing.postprocess(outputs)]


def _fits(answer: Json, schema: Json) -> bool:
    validator: Any = jsonschema.Draft202012Validator(schema)
    return validator.is_valid(answer)


def _logits(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(0).normal(0, 4, shape).astype(np.float32)


CLASSES = [
    "[softmax, {top_k: {k: 3, labels: {en: a.txt, zh: b.txt}}}]",
    "[{top_k: {k: 10, labels: a.txt}}]",
    "[sigmoid, {threshold: 0.5}]",
    "[{threshold: {at: -50, labels: a.txt}}]",
    "[{argmax: {labels: {en: a.txt, zh: b.txt}}}]",
    "[argmax]",
]


@pytest.mark.parametrize("postprocess", CLASSES)
def test_classes_fit_their_schema_and_the_schema_holds_nothing_more(
    load: Load, tmp_path: Path, postprocess: str
) -> None:
    loaded = load(postprocess=postprocess)
    schema = _schema(loaded.spec)
    x = _logits(3, 10)
    x[0, 4] = np.nan
    for answer in _answers(loaded, {"output": x}, tmp_path):
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)
        for entry in answer["classes"]:
            for key in entry:
                broken = {"classes": [{k: v for k, v in entry.items() if k != key}]}
                assert not _fits(broken, schema)
            assert not _fits({"classes": [entry | {"more": 1}]}, schema)
        assert _fits({"classes": answer["classes"] * 11}, schema) == (not answer["classes"])
        assert not _fits(answer | {"image": 1}, schema)


def test_a_label_is_a_text_or_one_text_for_each_language(load: Load) -> None:
    def label(postprocess: str) -> Json:
        entries = _schema(load(postprocess=postprocess).spec)["properties"]["classes"]
        return entries["items"]["properties"]["label"]

    assert label(CLASSES[1]) == {"type": "string"}
    assert label(CLASSES[4])["required"] == ["en", "zh"]


def test_a_probability_lies_between_0_and_1_and_a_score_anywhere(load: Load) -> None:
    def number(postprocess: str) -> Json:
        entries = _schema(load(postprocess=postprocess).spec)["properties"]["classes"]
        return entries["items"]["properties"]

    assert number(CLASSES[0])["probability"]["maximum"] == 1
    assert number(CLASSES[1])["score"] == {"type": ["number", "null"]}


def test_so_many_entries_as_were_asked_for(load: Load) -> None:
    def bounds(postprocess: str) -> tuple[int | None, int | None]:
        entries = _schema(load(postprocess=postprocess).spec)["properties"]["classes"]
        return entries.get("minItems"), entries.get("maxItems")

    assert [bounds(CLASSES[n]) for n in (0, 2, 5)] == [(3, 3), (None, 10), (1, 1)]


@pytest.mark.parametrize(
    ("shape", "postprocess", "size"),
    [
        ("[batch, 3, 5, 4]", "[to_image]", {"const": 4}),
        ("[batch, 3, rows, columns]", "[mask_to_image]", {"type": "integer", "minimum": 1}),
    ],
)
def test_a_picture_fits_its_schema(
    load: Load, tmp_path: Path, shape: str, postprocess: str, size: Json
) -> None:
    loaded = load(outputs=f"{{output: {{shape: {shape}}}}}", postprocess=postprocess)
    schema = _schema(loaded.spec)
    assert schema["properties"]["image"]["properties"]["width"] == size
    for answer in _answers(loaded, {"output": _logits(2, 3, 5, 4)}, tmp_path):
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)
        assert not _fits({"image": answer["image"] | {"format": "jpeg"}}, schema)
        assert not _fits({"image": answer["image"] | {"width": 0}}, schema)


OUTPUTS = (
    "{a: {shape: [batch, 2, 3]}, b: {shape: [batch], dtype: int64},"
    " c: {shape: [batch, n], dtype: bool}, d: {shape: [batch, 1], dtype: uint8}}"
)
ARRAYS: dict[str, NDArray[Any]] = {
    "a": np.array([[[1, 2, np.nan], [np.inf, 5, 6]]] * 2, np.float32),
    "b": np.array([-7, 2**40]),
    "c": np.array([[True, False, True]] * 2),
    "d": np.array([[3], [255]], np.uint8),
}


@pytest.mark.parametrize("postprocess", ["[]", "[identity]"])
def test_arrays_fit_their_schema_also_where_a_number_is_no_json(
    load: Load, tmp_path: Path, postprocess: str
) -> None:
    loaded = load(outputs=OUTPUTS, postprocess=postprocess)
    schema = _schema(loaded.spec)
    answers = _answers(loaded, ARRAYS, tmp_path)
    for answer in answers:
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)
    for name, wrong in [("a", [[1, 2, 3]]), ("b", 1.5), ("c", [1]), ("d", [256]), ("d", [-1])]:
        assert not _fits({"outputs": answers[0]["outputs"] | {name: wrong}}, schema)
    assert not _fits({"outputs": {"a": answers[0]["outputs"]["a"]}}, schema)


@pytest.mark.parametrize(
    ("postprocess", "name"), [("[{select: b}]", "b"), ("[{select: {output: a, index: 1}}]", "a")]
)
def test_one_of_several_outputs_is_answered_by_its_own_name(
    load: Load, tmp_path: Path, postprocess: str, name: str
) -> None:
    loaded = load(outputs=OUTPUTS, postprocess=postprocess)
    schema = _schema(loaded.spec)
    for answer in _answers(loaded, ARRAYS, tmp_path):
        assert list(answer["outputs"]) == [name]
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("labels", [None, {"": "a"}, {"en": "a", "zh": "b"}])
def test_detections_fit_their_schema(labels: dict[str, str] | None) -> None:
    from specs.ops._boxes import detection_entries

    languages = tuple(key for key in labels or () if key)
    names: list[Any] | None = ["x", "y"] if labels else None
    if languages:
        names = [dict.fromkeys(languages, "x")] * 2
    value = Value("detections", "float32", ("batch", 2), boxes="xyxy", units="image")
    value = value.but(labels=labels is not None, languages=languages)
    schema = answer_schema(value, ["output"])
    jsonschema.Draft202012Validator.check_schema(schema)
    found: Json = {
        "boxes": np.array([[0, 1, 2.5, 3], [1, 1, 9, 9]], np.float32),
        "scores": np.array([0.9, 0.5], np.float32),
        "classes": np.array([1, 0]),
    }
    entries = detection_entries(found | ({"labels": names} if names else {}))
    for some in (entries, entries[:1], []):
        assert _fits(to_json({"detections": some}), schema)
    assert not _fits(to_json({"detections": entries * 2}), schema)
    assert not _fits(to_json({"detections": [entries[0] | {"box": [1, 2, 3]}]}), schema)
    told = schema["properties"]["detections"]["items"]["properties"]["box"]["description"]
    assert told == "left, top, right, bottom in pixels of the image that was sent"


def test_candidate_boxes_are_no_answer() -> None:
    with pytest.raises(ValueError, match="no answer is made of boxes"):
        answer_schema(Value("boxes", "float32", ("batch", 9, 2)), ["output"])
