"""Where weights come from, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compiler.weights import parse_override
from specs.errors import DeploycError, SpecError, WeightsError

Make = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]


def _save(folder: Path, name: str = "net.pth", seed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    torch.save({"linear.weight": weight, "linear.bias": torch.zeros(3)}, folder / name)
    return folder / name


def test_weights_by_a_path_relative_to_the_spec_are_named_by_hash(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    _save(tmp_path / "sub")
    origin = build_spec(spec(weights={"path": "sub/net.pth"})).manifest.weights
    assert (origin.origin, origin.location, len(origin.sha256)) == ("path", "net.pth", 64)


def test_a_missing_weights_file_is_one_error_with_the_ways_out(
    spec: Make, refused: Refused
) -> None:
    error = refused(spec(weights={"path": "lost.pth"}))
    assert error.code == "weights_missing"
    assert "--weights random:0" in error.hint


def test_a_name_too_long_for_the_disk_is_a_missing_file(spec: Make, refused: Refused) -> None:
    assert refused(spec(weights={"path": "x" * 300})).code == "weights_missing"


def test_a_hash_is_checked_for_a_path_too(spec: Make, refused: Refused, tmp_path: Path) -> None:
    _save(tmp_path)
    error = refused(spec(weights={"path": "net.pth", "sha256": "0" * 64}))
    assert error.code == "weights_hash"
    assert "0" * 64 in error.message


def test_weights_from_a_url_need_a_hash(spec: Make, refused: Refused) -> None:
    error = refused(spec(weights={"url": "https://example.org/net.pth"}))
    assert isinstance(error, SpecError)
    assert error.problems[0].code == "sha256_missing"


def test_random_weights_are_the_same_for_one_seed_and_others_for_another(
    spec: Make, build_spec: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bytes] = []
    for number, seed in enumerate((3, 3, 4)):
        monkeypatch.setenv("DEPLOYC_CACHE", str(tmp_path / f"cache{number}"))
        build_spec(spec(weights={"random": {"seed": seed}}))
        found.append((tmp_path / "artifact" / "model.onnx").read_bytes())
    assert found[0] == found[1] != found[2]


def test_the_manifest_and_its_warnings_say_that_weights_are_random(
    spec: Make, build_spec: Build
) -> None:
    manifest = build_spec(spec(weights={"random": {"seed": 7}})).manifest
    assert (manifest.weights.origin, manifest.weights.seed) == ("random", 7)
    assert manifest.warnings() == ("weights are RANDOM (seed 7): the answers mean nothing",)


def test_a_file_or_random_weights_take_the_place_of_the_specs(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    other = _save(tmp_path, "other.pth", seed=1)
    data = spec(weights={"url": "http://127.0.0.1:1/net.pth", "sha256": "0" * 64})
    by_file = build_spec(data, weights=parse_override(str(other)))
    assert by_file.manifest.weights.location == "other.pth"
    at_random = build_spec(data, weights=parse_override("random:5"))
    assert at_random.manifest.weights.seed == 5


def test_the_specs_state_dict_holds_for_a_file_in_its_place(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    tensors = torch.load(_save(tmp_path), weights_only=True)
    torch.save({"ema": tensors}, tmp_path / "nested.pth")
    data = spec(weights={"path": "lost.pth", "state_dict": {"key": "ema"}})
    assert build_spec(data, weights=parse_override(str(tmp_path / "nested.pth"))).written


def test_a_source_that_holds_its_weights_takes_no_others(
    spec: Make, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "net.onnx").touch()
    data = spec(model={"onnx": "net.onnx"}, export=None)
    error = refused(data, weights=parse_override("random:0"))
    assert (error.code, error.hint) == ("weights_unused", "leave --weights out")


@pytest.mark.parametrize(
    "text",
    ["", "random", "random:", "random:-1", "random:x", "random:²", "random:99999999999999999999"],
)
def test_a_bad_form_of_the_option_is_one_clear_error(text: str) -> None:
    with pytest.raises(WeightsError) as caught:
        parse_override(text)
    assert caught.value.code == "weights_option"
    assert "random:0" in caught.value.hint


def test_a_file_is_taken_from_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_override("net.pth").path == str(tmp_path / "net.pth")
    assert parse_override("a:b").path == str(tmp_path / "a:b")


def test_weights_that_a_python_source_makes_itself_are_announced(
    build_spec: Any, tmp_path: Path
) -> None:
    text = "import torch\n\n\ndef net():\n    return torch.nn.Linear(2, 1)\n"
    (tmp_path / "net.py").write_text(text, "utf-8")
    spec = {
        "version": 1,
        "name": "own",
        "model": {"python": {"file": "net.py", "object": "net"}},
        "inputs": {"x": {"shape": [1, 2]}},
        "outputs": {"y": {"shape": [1, 1]}},
    }
    (warning,) = build_spec(spec).manifest.warnings()
    assert "made by net.py: RANDOM unless it loads its own" in warning
