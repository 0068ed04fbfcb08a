"""What fuzzing found stays refused; and every test run fuzzes for a few seconds more."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compiler.placement.golden_images import golden_images
from compiler.placement.golden_sounds import golden_sounds
from runtime.body import read_items
from serve import oip_json, oip_messages
from serve.messages import Call

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
SECONDS = {"image": 6, "sound": 3, "request": 4, "infer": 3}
"""Of fuzzing by coverage in a test run; ``fuzz.py`` takes any time by hand."""


def _harness() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz", HERE / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HARNESS = _harness()
CHECKS: dict[str, tuple[Callable[[bytes], None], list[ModuleType]]] = {
    kind: HARNESS.checks(kind) for kind in SECONDS
}
IMAGES = golden_images()
SOUNDS = golden_sounds()


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _requests() -> dict[str, bytes]:
    """Honest bodies: what the model takes, the content type, and what is sent."""
    takes = ("image", "audio", "text", "tensors")
    kinds = {kind.partition(";")[0]: number for number, kind in enumerate(HARNESS.TYPES)}
    picture = base64.b64encode(IMAGES["one_pixel.png"]).decode()
    sound = base64.b64encode(min(SOUNDS.values(), key=len)).decode()
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nhello\r\n'
    numbers = {"x": [[1, 2, 3]], "y": [4]}
    bodies = [
        ("image", "application/json", json.dumps([{"base64": picture}]).encode()),
        ("image", "application/json", json.dumps({"image": [[[1, 2, 3]]]}).encode()),
        ("image", "application/x-npy", _npy(np.zeros((2, 3, 3, 3), np.uint8))),
        ("image", "multipart/form-data", part + part + b"--x--\r\n"),
        ("audio", "application/json", json.dumps({"audio": sound}).encode()),
        ("text", "application/json", b'["hello", "\\u00e9\\ud83d\\ude00"]'),
        ("text", "text/plain", "h\u00e9llo".encode()),
        ("tensors", "application/json", json.dumps(numbers).encode()),
        ("tensors", "application/x-npy", _npy(np.zeros((2, 3), np.float32))),
    ]
    own = b"\x00" + bytes([len(kinds)]) + b' boundary="x"\n' + part + b"--x--\r\n"
    return {"own_parameters": own} | {
        f"{number}-{kind}": bytes((takes.index(kind), kinds[said])) + body
        for number, (kind, said, body) in enumerate(bodies)
    }


def _infers() -> dict[str, bytes]:
    """Honest requests of the Open Inference Protocol."""
    numbers = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2.5, 3]}
    texts = {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
    raw = np.ones(3, np.float32).tobytes()
    behind = dict(numbers, parameters={"binary_data_size": len(raw)})
    del behind["data"]
    output = {"name": "y", "parameters": {"binary_data": True}}
    head = json.dumps({"id": "1", "inputs": [behind], "outputs": [output]}).encode()
    whole = {"inputs": [numbers, texts], "parameters": {"timeout": 5000, "priority": 1}}
    message: Any = oip_messages.parse("ModelInferRequest", b"")
    message.model_name = "m"
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    message.raw_input_contents.append(raw)
    typed: Any = oip_messages.parse("ModelInferRequest", b"")
    typed.inputs.add(name="x", datatype="INT32", shape=[2]).contents.int_contents.extend([1, 2])
    return {
        "json": bytes(3) + json.dumps(whole).encode(),
        "json_and_raw": b"\0" + len(head).to_bytes(2, "big") + head + raw,
        "raw_message": b"\1\0\0" + message.SerializeToString(),
        "typed_message": b"\1\0\0" + typed.SerializeToString(),
    }


SEEDS = {"image": IMAGES, "sound": SOUNDS, "request": _requests(), "infer": _infers()}
FILES = {(kind, name): content for kind, files in SEEDS.items() for name, content in files.items()}


@pytest.mark.parametrize("file", FOUND, ids=lambda path: path.name)
def test_what_was_found_is_refused_or_taken(file: Path) -> None:
    one, _ = CHECKS[file.parent.name]
    one(file.read_bytes())


@pytest.mark.parametrize("name", sorted(SEEDS["request"]))
def test_the_requests_that_are_damaged_are_honest_ones(name: str) -> None:
    content = SEEDS["request"][name]
    form, module = HARNESS.takers()[content[0]]
    said = (*HARNESS.TYPES, 'multipart/form-data; boundary="x"')[content[1]]
    body = content[2:] if content[1] < len(HARNESS.TYPES) else content.partition(b"\n")[2]
    items = read_items(Call(body, said), form)
    if "multipart" not in said and form.takes != "tensors":  # their parts are no pictures
        for item in items.values:
            module.preprocess(item)


@pytest.mark.parametrize("name", sorted(SEEDS["infer"]))
def test_the_inference_requests_that_are_damaged_are_honest_ones(name: str) -> None:
    content = SEEDS["infer"][name]
    length = int.from_bytes(content[1:3], "big") or None
    body = content[3:]
    read = oip_messages.decode(body) if content[0] else oip_json.decode(body, length)
    assert read.inputs


@pytest.mark.parametrize(("kind", "name"), sorted(FILES))
def test_no_file_cut_short_raises_anything_but_a_refusal(kind: str, name: str) -> None:
    content = FILES[kind, name]
    one, _ = CHECKS[kind]
    for cut in (0, 1, 2, 8, 30, len(content) // 3, len(content) // 2, len(content) - 1):
        one(content[:cut])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    file=st.sampled_from(sorted(FILES)),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_no_damaged_file_raises_anything_but_a_refusal(
    file: tuple[str, str], edits: list[tuple[int, int]]
) -> None:
    content = bytearray(FILES[file])
    for place, value in edits:
        content[place % len(content)] = value
    one, _ = CHECKS[file[0]]
    one(bytes(content))


def test_the_harness_tells_a_finding_from_a_refusal() -> None:
    broken = ModuleType("broken")

    def preprocess(_: bytes) -> dict[str, Any]:
        raise ZeroDivisionError

    vars(broken).update(preprocess=preprocess, BadInput=CHECKS["image"][1][0].BadInput)
    with pytest.raises(ZeroDivisionError):
        HARNESS.check(broken, b"")

    def small(_: bytes) -> dict[str, Any]:
        return {"input": np.zeros((3, 8, 8))}

    vars(broken).update(preprocess=small)
    with pytest.raises(AssertionError):
        HARNESS.check(broken, b"")


@pytest.mark.parametrize("kind", sorted(SECONDS))
def test_fuzzing_by_coverage_finds_nothing_in_a_few_seconds(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("atheris")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for name, content in SEEDS[kind].items():
        if len(content) < 20_000:
            (seeds / name).write_bytes(content)
    done = subprocess.run(
        [
            sys.executable,
            HERE / "fuzz.py",
            kind,
            seeds,
            f"-max_total_time={SECONDS[kind]}",
            f"-artifact_prefix={tmp_path}/",
            "-timeout=20",
            # libFuzzer reads the peak from getrusage, which counts this process's memory as well.
            "-rss_limit_mb=0",
            "-max_len=20000",
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS[kind] * 10 + 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("crash-*")), done.stderr[-3000:]
