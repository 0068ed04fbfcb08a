"""Checkpoints of every kind, read without running them, and fitted or explained."""

# pyright: reportUnknownMemberType=false
# torch's functions are typed in part.
from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

from compiler.checkpoint import fit, read_state_dict
from specs.errors import DeploycError, WeightsError
from specs.schema import StateDict

Make = Callable[..., dict[str, Any]]
Refused = Callable[..., DeploycError]
Build = Callable[..., Any]

PLAIN = StateDict()


def _tensors() -> dict[str, torch.Tensor]:
    return {"linear.weight": torch.ones(3, 4), "linear.bias": torch.zeros(3)}


def _adapt(**parts: Any) -> StateDict:
    return StateDict.model_validate(parts)


class _Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)


class _Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


# --- reading


def _write_zip(file: Path) -> None:
    torch.save(_tensors(), file)


def _write_legacy(file: Path) -> None:
    torch.save(_tensors(), file, _use_new_zipfile_serialization=False)


def _write_safetensors(file: Path) -> None:
    save_file(_tensors(), file)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("net.pth", _write_zip),
        ("net.th", _write_legacy),
        ("net.safetensors", _write_safetensors),
        ("checkpoint", _write_zip),
    ],
)
def test_every_format_is_read(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    found = read_state_dict(tmp_path / name, PLAIN)
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "linear.weight": (3, 4),
        "linear.bias": (3,),
    }


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickled_object_is_refused_and_never_run(
    tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The variable would make torch.load run the pickle where weights_only is left to its default.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trap, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
    value = {"a": _Trap(sprung), **_tensors()}
    torch.save(value, trap, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(trap, PLAIN)
    assert caught.value.code == "weights_unsafe"
    assert not sprung.exists()
    torch.load(trap, weights_only=False)
    assert sprung.exists()  # the trap does work


def test_a_whole_pickled_module_is_refused_with_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"not tensors \(torch\.nn\.modules\.linear\.Linear\)"):
        read_state_dict(tmp_path / "net.pth", PLAIN)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>\n",
        b"PK\x03\x04 cut",
        pickle.dumps([1, 2], 2),
        pickle.dumps({"a": np.float64(1)}, 5),
        bytes(1000),
    ],
)
def test_what_is_no_checkpoint_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / name, PLAIN)
    assert caught.value.code == "weights_format"
    assert caught.value.message.startswith(f"{name} cannot be read as a checkpoint")
    assert "\n" not in caught.value.message


def test_a_checkpoint_cut_short_is_one_clear_error(tmp_path: Path) -> None:
    _write_zip(tmp_path / "net.pth")
    content = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "net.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
        read_state_dict(tmp_path / "net.pth", PLAIN)


def test_a_torchscript_archive_is_told_from_a_checkpoint(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(_Module()), str(tmp_path / "net.pth"))
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / "net.pth", PLAIN)
    assert "is a TorchScript archive" in caught.value.message
    assert "model: {torchscript: FILE}" in caught.value.hint


def test_a_checkpoint_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="holds a list, expected a mapping"):
        read_state_dict(tmp_path / "net.pth", PLAIN)


def test_a_key_digs_as_deep_as_it_has_dots(tmp_path: Path) -> None:
    torch.save({"model": {"ema": _tensors()}, "epoch": 3}, tmp_path / "net.pth")
    assert len(read_state_dict(tmp_path / "net.pth", _adapt(key="model.ema"))) == 2


def test_an_unknown_key_is_told_with_those_there_are(tmp_path: Path) -> None:
    torch.save({f"key{number}": 1 for number in range(9)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / "net.pth", _adapt(key="model"))
    told = "has no key 'model'; it has key0, key1, key2, key3, key4 … and 4 more"
    assert told in caught.value.message


def test_renaming_two_keys_to_one_is_refused(tmp_path: Path) -> None:
    _write_zip(tmp_path / "net.pth")
    adapt = _adapt(rename=[{"from": r"\..*", "to": ""}])
    with pytest.raises(WeightsError, match=r"two keys of net\.pth are 'linear'"):
        read_state_dict(tmp_path / "net.pth", adapt)


# --- fitting


def _fit(tensors: dict[str, torch.Tensor], adapt: StateDict = PLAIN) -> list[str]:
    return fit(_Module(), tensors, adapt)


def test_fitting_tensors_are_loaded() -> None:
    module = _Module()
    assert fit(module, _tensors(), PLAIN) == []
    assert module.linear.weight.sum() == 12


def test_missing_unexpected_and_wrongly_shaped_keys_are_listed_together() -> None:
    with pytest.raises(WeightsError) as caught:
        _fit({"linear.weight": torch.ones(4, 3), "other.bias": torch.ones(3)})
    assert caught.value.message.splitlines()[1:] == [
        "  wrong shape (1): linear.weight: the file has [4, 3], the model [3, 4]",
        "  missing in the file (1): linear.bias",
        "  unexpected in the file (1): other.bias",
    ]


def test_long_lists_are_cut_and_say_how_long_they_are() -> None:
    with pytest.raises(WeightsError, match=r"unexpected in the file \(9\): .* … and 4 more"):
        _fit({**_tensors(), **{f"x{number}": torch.ones(1) for number in range(9)}})


def test_without_strictness_missing_and_unexpected_keys_pass_and_are_told() -> None:
    loose = _adapt(strict=False)
    told = _fit({"linear.weight": torch.ones(3, 4), "more": torch.ones(1)}, loose)
    assert told == ["missing in the file (1): linear.bias", "unexpected in the file (1): more"]


def test_without_strictness_a_wrong_shape_and_a_file_of_another_model_do_not_pass() -> None:
    loose = _adapt(strict=False)
    with pytest.raises(WeightsError, match="wrong shape"):
        _fit({"linear.weight": torch.ones(9)}, loose)
    with pytest.raises(WeightsError, match="unexpected"):
        _fit({"other.weight": torch.ones(9)}, loose)


def test_counters_of_batches_may_be_absent() -> None:
    module = torch.nn.BatchNorm1d(2)
    tensors = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    assert fit(module, tensors, PLAIN) == []


def test_a_module_without_shapes_yet_is_one_clear_error() -> None:
    with pytest.raises(WeightsError):
        fit(torch.nn.LazyLinear(3), {"weight": torch.ones(3, 4), "bias": torch.ones(3)}, PLAIN)


def test_what_passed_though_it_does_not_fit_is_noted_by_the_build(
    spec: Make, build_spec: Build, tmp_path: Path
) -> None:
    import io

    from rich.console import Console

    from compiler.progress import Reporter

    torch.save({"linear.weight": torch.ones(3, 4)}, tmp_path / "part.pth")
    told = io.StringIO()
    weights = {"path": "part.pth", "state_dict": {"strict": False}}
    build_spec(spec(weights=weights), reporter=Reporter(Console(file=told, width=200)))
    assert "! missing in the file (1): linear.bias" in told.getvalue()


# --- the guess


def _merge(left: Any, right: Any) -> Any:
    if isinstance(left, dict) and isinstance(right, dict):
        both: dict[str, Any] = {**left, **right}
        return {key: _merge(left.get(key, both[key]), both[key]) for key in both}
    return right


@pytest.mark.parametrize(
    ("prefix_of_file", "nested", "given"),
    [
        ("module.", "", {}),
        ("generator.net+1.", "", {}),
        ("", "state_dict", {}),
        ("module.", "state_dict", {"key": "state_dict"}),
        ("a.module.", "", {"rename": [{"from": "^a\\.", "to": ""}]}),
        ("", "outer.inner", {"key": "outer"}),
    ],
)
def test_the_rename_or_key_that_is_guessed_works_when_it_is_put_into_the_spec(  # noqa: PLR0913, PLR0917
    spec: Make,
    refused: Refused,
    build_spec: Build,
    tmp_path: Path,
    prefix_of_file: str,
    nested: str,
    given: dict[str, Any],
) -> None:
    value: Any = {f"{prefix_of_file}{key}": tensor for key, tensor in _tensors().items()}
    for key in reversed(nested.split(".") if nested else []):
        value = {"epoch": 3, key: value}
    torch.save(value, tmp_path / "net.pth")
    data = spec(weights={"path": "net.pth", "state_dict": given})
    hint = refused(data).hint
    assert hint.startswith("add weights: ")
    pasted = _merge(data, yaml.safe_load(hint.removeprefix("add ")))
    assert build_spec(pasted).written


def test_a_prefix_that_the_file_lacks_is_guessed_too(
    spec: Make, refused: Refused, build_spec: Build, tmp_path: Path
) -> None:
    torch.save({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, tmp_path / "net.pth")
    data = spec(weights={"path": "net.pth"})
    hint = refused(data).hint
    assert hint == "add weights: {state_dict: {rename: [{from: ^, to: linear.}]}}"
    pasted = _merge(data, yaml.safe_load(hint.removeprefix("add ")))
    assert build_spec(pasted).written


def test_nothing_is_guessed_where_no_prefix_makes_more_tensors_fit() -> None:
    with pytest.raises(WeightsError) as caught:
        _fit({"other.weight": torch.ones(7, 7), "more.bias": torch.ones(9)})
    assert caught.value.hint == "check that the weights are this model's"


# --- layers with formats of their own


class _Insists(torch.nn.Linear):
    _version = 2

    def _load_from_state_dict(
        self, state_dict: Any, prefix: Any, local_metadata: Any, *args: Any, **kwargs: Any
    ) -> None:
        if local_metadata.get("version") != 2:
            raise ValueError("version should be set to 2")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args, **kwargs)


class _Refuses(torch.nn.Linear):
    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise KeyError("scale")


def test_a_layer_that_insists_on_the_version_of_its_format_gets_it() -> None:
    module = _Insists(4, 3)
    fit(module, {"weight": torch.ones(3, 4), "bias": torch.zeros(3)}, PLAIN)
    assert module.weight.detach().eq(1).all()


def test_what_a_layer_raises_on_loading_is_an_error_of_the_weights() -> None:
    with pytest.raises(WeightsError, match="the model refuses the weights: 'scale'"):
        fit(_Refuses(4, 3), {"weight": torch.ones(3, 4), "bias": torch.zeros(3)}, PLAIN)


def test_the_packed_weights_of_a_quantised_layer_are_loaded(tmp_path: Path) -> None:
    made, loaded = (torch.ao.nn.quantized.Linear(4, 3) for _ in range(2))
    weight = torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8)
    made.set_weight_bias(weight, torch.ones(3))
    torch.save(made.state_dict(), tmp_path / "int8.pth")
    assert fit(loaded, read_state_dict(tmp_path / "int8.pth", PLAIN), PLAIN) == []
    assert torch.equal(loaded.weight().dequantize(), weight.dequantize())
    assert torch.equal(loaded.bias(), torch.ones(3))


def test_a_quantised_layer_without_its_packed_weights_does_not_fit() -> None:
    state = {"scale": torch.tensor(1.0), "zero_point": torch.tensor(0)}
    with pytest.raises(WeightsError, match=r"missing in the file \(2\): _packed_params"):
        fit(torch.ao.nn.quantized.Linear(4, 3), state, PLAIN)
