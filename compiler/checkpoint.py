"""Reads checkpoints safely and fits them to a module, or says key by key why they do not fit."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from specs.errors import WeightsError
from specs.schema import StateDict

__all__ = ["fit", "read_state_dict"]

USUAL_KEYS = ("state_dict", "model", "params_ema", "params", "model_state_dict", "net", "ema")
SHOWN = 5
"""How many keys of each kind a message lists."""

TensorMap = dict[str, torch.Tensor]


def read_state_dict(file: Path, adapt: StateDict) -> TensorMap:
    """The tensors of a checkpoint, found and renamed as ``adapt`` says.

    Nothing in the file is executed: pickles are read with ``weights_only=True``.

    Raises:
        WeightsError: the file is no checkpoint, holds other Python objects, or has no such key.
    """
    value = _dig(_read(file), adapt.key, file)
    tensors = {key: item for key, item in value.items() if isinstance(item, torch.Tensor)}
    if not tensors:
        raise _no_tensors(file, value, adapt.key)
    return _rename(tensors, adapt, file)


def _read(file: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        if file.suffix == ".safetensors":
            return load_file(str(file))
        if _is_torchscript(file):
            message = f"{file.name} is a TorchScript archive, not a checkpoint"
            hint = "use model: {torchscript: FILE}, or save its state_dict()"
            raise WeightsError(message, hint=hint, code="weights_format")
        # Given outright: the environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD undoes defaults.
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = f"{file.name} holds Python objects that are not tensors: loading could run code"
        hint = "load it where you trust it, and save its state_dict() as .safetensors"
        raise WeightsError(message, hint=hint, code="weights_unsafe") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{file.name} cannot be read as a checkpoint: {cause}"
        raise WeightsError(message, code="weights_format") from error


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _dig(value: Any, key: str, file: Path) -> dict[str, Any]:  # noqa: ANN401 - see _read
    """The mapping under ``key`` (dots go deeper)."""
    for part in key.split(".") if key else ():
        if not isinstance(value, Mapping) or part not in value:
            known = (
                ", ".join(str(each) for each in cast("Mapping[str, Any]", value))
                if isinstance(value, Mapping)
                else "no keys"
            )
            message = f"{file.name} has no key '{key}'; it has {known}"
            raise WeightsError(message, hint="correct weights.state_dict.key", code="weights_key")
        value = cast("Mapping[str, Any]", value)[part]
    if not isinstance(value, Mapping):
        found = type(value).__name__
        message = f"{file.name} holds a {found}, expected a mapping of names to tensors"
        raise WeightsError(message, code="weights_format")
    return {str(name): item for name, item in cast("Mapping[object, Any]", value).items()}


def _no_tensors(file: Path, value: dict[str, Any], key: str) -> WeightsError:
    nested = [name for name, item in value.items() if isinstance(item, Mapping)]
    best = next((name for name in USUAL_KEYS if name in nested), nested[0] if nested else "")
    where = f"under '{key}'" if key else "at its top"
    hint = f"add weights: {{state_dict: {{key: {best}}}}}" if best else ""
    message = f"{file.name} has no tensors {where}, only {', '.join(value)}"
    return WeightsError(message, hint=hint, code="weights_key")


def _rename(tensors: TensorMap, adapt: StateDict, file: Path) -> TensorMap:
    renamed: TensorMap = {}
    for key, tensor in tensors.items():
        name = key
        for rule in adapt.rename:
            name = re.sub(rule.from_, rule.to, name)
        if name in renamed:
            message = f"after weights.state_dict.rename two keys of {file.name} are '{name}'"
            raise WeightsError(message, hint="narrow the pattern", code="weights_rename")
        renamed[name] = tensor
    return renamed


def fit(module: torch.nn.Module, tensors: TensorMap, *, strict: bool) -> list[str]:
    """Load ``tensors`` into ``module``.

    Args:
        module: the model, on the CPU.
        tensors: the checkpoint's tensors under the module's names.
        strict: whether a missing or unexpected key is an error; a wrong shape always is.

    Returns:
        What did not fit but was let pass.

    Raises:
        WeightsError: with the keys, and the rename that would fix them where it can be guessed.
    """
    own = module.state_dict()
    wrong = [
        f"{key}: the file has {list(tensors[key].shape)}, the model {list(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    # Counters of batches seen, which torch itself lets be absent.
    missing = [k for k in own if k not in tensors and not k.endswith("num_batches_tracked")]
    extra = [key for key in tensors if key not in own]
    told = [
        _listed("wrong shape", wrong),
        _listed("missing in the file", missing),
        _listed("unexpected in the file", extra),
    ]
    told = [text for text in told if text]
    if wrong or (strict and (missing or extra)):
        hint = _guess(missing, extra) or "check that the weights are this model's"
        message = "the weights do not fit the model:\n  " + "\n  ".join(told)
        raise WeightsError(message, hint=hint, code="weights_fit")
    module.load_state_dict(tensors, strict=False)
    return told


def _listed(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" … and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{what} ({len(keys)}): " + ", ".join(keys[:SHOWN]) + more


def _guess(missing: list[str], extra: list[str]) -> str:
    """The rename that turns most unexpected keys into missing ones, as a line of the spec."""
    strip = Counter(k[: -len(m)] for m in missing for k in extra if k.endswith("." + m))
    add = Counter(m[: -len(k)] for m in missing for k in extra if m.endswith("." + k))
    if strip and strip.most_common(1)[0][1] >= add.total():
        prefix = re.escape(strip.most_common(1)[0][0])
        return f"add weights: {{state_dict: {{rename: [{{from: '^{prefix}', to: ''}}]}}}}"
    if add:
        prefix = add.most_common(1)[0][0]
        return f"add weights: {{state_dict: {{rename: [{{from: '^', to: '{prefix}'}}]}}}}"
    return ""
