"""Reads checkpoints safely and fits them to a module, or says key by key why they do not fit."""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from specs.errors import WeightsError
from specs.schema import Rename, StateDict

__all__ = ["fit", "read_state_dict"]

USUAL_KEYS = ("state_dict", "model", "params_ema", "params", "model_state_dict", "net", "ema")
SHOWN = 5
"""How many keys of each kind a message lists."""
TRIED = 5
"""How many guesses at a rename are tried out."""
NO_PICKLE = "Unsupported operand"
"""What torch's unpickler says of bytes that are no pickle, and of newer ones than its own."""

TensorMap = dict[str, torch.Tensor]


def read_state_dict(file: Path, adapt: StateDict) -> TensorMap:
    """The tensors of a checkpoint, found and renamed as ``adapt`` says.

    Nothing in the file is executed: pickles are read with ``weights_only=True``.

    Raises:
        WeightsError: the file is no checkpoint, holds other Python objects, or has no such key.
    """
    value = _dig(_read(file), adapt.key, file)
    tensors = _tensors(value)
    if not tensors:
        raise _no_tensors(file, value, adapt.key)
    return _rename(tensors, adapt, file)


def _read(file: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        if file.suffix == ".safetensors":
            return load_file(str(file))
        _refuse_torchscript(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old pickles, which are read all right
            # Given outright: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment undoes defaults.
            return torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # readers of broken files raise dozens of kinds
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> WeightsError:
    if isinstance(error, pickle.UnpicklingError) and NO_PICKLE not in str(error):
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({named[1]})" if named else ""
        message = f"{file.name} holds Python objects that are not tensors{what}: "
        message += "loading them could run code"
        hint = "load it where you trust it, and save its state_dict() as .safetensors"
        return WeightsError(message, hint=hint, code="weights_unsafe")
    lines = [line for line in str(error).splitlines() if line.strip()]
    cause = type(error).__name__
    if lines and not isinstance(error, pickle.UnpicklingError):
        cause += f": {lines[0]}"
    message = f"{file.name} cannot be read as a checkpoint ({cause})"
    hint = "expected what torch.save wrote, or .safetensors; a download may have brought a web page"
    return WeightsError(message, hint=hint, code="weights_format")


def _refuse_torchscript(file: Path) -> None:
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            message = f"{file.name} is a TorchScript archive, not a checkpoint"
            hint = "use model: {torchscript: FILE}, or save its state_dict()"
            raise WeightsError(message, hint=hint, code="weights_format")


def _dig(value: Any, key: str, file: Path) -> dict[str, Any]:  # noqa: ANN401 - see _read
    """The mapping under ``key`` (dots go deeper)."""
    for part in key.split(".") if key else ():
        if not isinstance(value, Mapping) or part not in value:
            names = list(cast("Mapping[object, Any]", value)) if isinstance(value, Mapping) else []
            known = ", ".join(map(str, names[:SHOWN])) or "no keys"
            more = f" … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            message = f"{file.name} has no key '{key}'; it has {known}{more}"
            raise WeightsError(message, hint="correct weights.state_dict.key", code="weights_key")
        value = cast("Mapping[str, Any]", value)[part]
    if not isinstance(value, Mapping):
        found = type(value).__name__
        message = f"{file.name} holds a {found}, expected a mapping of names to tensors"
        raise WeightsError(message, code="weights_format")
    return {str(name): item for name, item in cast("Mapping[object, Any]", value).items()}


def _tensors(state: Mapping[str, Any]) -> TensorMap:
    """The tensors; those of a quantised layer are a tuple, and get its key with ``.0``, ``.1``."""
    found: TensorMap = {}
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            found[key] = value
        elif isinstance(value, tuple):
            parts = enumerate(cast("tuple[object, ...]", value))
            found |= {f"{key}.{n}": part for n, part in parts if isinstance(part, torch.Tensor)}
    return found


def _no_tensors(file: Path, value: dict[str, Any], key: str) -> WeightsError:
    nested = [name for name, item in value.items() if isinstance(item, Mapping) and item]
    best = next((name for name in USUAL_KEYS if name in nested), nested[0] if nested else "")
    best = f"{key}.{best}" if key and best else best
    where = f"under '{key}'" if key else "at its top"
    hint = f"add weights: {{state_dict: {{key: {best}}}}}" if best else ""
    found = ", ".join(list(value)[:SHOWN]) or "nothing"
    message = f"{file.name} has no tensors {where}, only {found}"
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


def fit(module: torch.nn.Module, tensors: TensorMap, adapt: StateDict) -> list[str]:
    """Load ``tensors`` into ``module``.

    Args:
        module: the model, on the CPU.
        tensors: the checkpoint's tensors under the module's names.
        adapt: says whether a missing or unexpected key is an error; a wrong shape always is.

    Returns:
        What did not fit but was let pass.

    Raises:
        WeightsError: with the keys, and the rename that would fix them where it can be guessed.
    """
    own = _own(module)
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
    none = not tensors.keys() & own.keys()
    if wrong or none or (adapt.strict and (missing or extra)):
        hint = _guess(own, tensors, adapt) or "check that the weights are this model's"
        message = "the weights do not fit the model:\n  " + "\n  ".join(told)
        raise WeightsError(message, hint=hint, code="weights_fit")
    _load(module, tensors)
    return told


def _own(module: torch.nn.Module) -> TensorMap:
    """The module's tensors; it may keep other things in its state as well."""
    own = _tensors(module.state_dict())
    lazy = [key for key, value in own.items() if torch.nn.parameter.is_lazy(value)]
    if lazy:
        message = f"the model has parameters without a shape yet: {', '.join(lazy[:SHOWN])}"
        hint = "make its modules with all their sizes, not nn.Lazy ones"
        raise WeightsError(message, hint=hint, code="weights_fit")
    return own


def _load(module: torch.nn.Module, tensors: TensorMap) -> None:
    # The module's own state brings what a file of tensors lacks: the versions of its layers'
    # formats, which some insist on, and what a quantised layer keeps besides its tensors.
    state = module.state_dict()
    for key, value in list(state.items()):
        if isinstance(value, tuple):
            parts = enumerate(cast("tuple[object, ...]", value))
            state[key] = tuple(tensors.get(f"{key}.{n}", part) for n, part in parts)
    state.update(tensors)
    try:
        module.load_state_dict(state, strict=False)
    except Exception as error:  # of parameters without a shape yet, or the module's own hooks
        message = f"the model refuses the weights: {error}"
        raise WeightsError(message, code="weights_fit") from error


def _listed(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" … and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{what} ({len(keys)}): " + ", ".join(keys[:SHOWN]) + more


def _guess(own: TensorMap, tensors: TensorMap, adapt: StateDict) -> str:
    """The prefix to strip or to add under which the most tensors fit, as a line of the spec."""
    best, most = None, _fitting(tensors, own, None)
    for rule in _candidates(own.keys() - tensors.keys(), tensors.keys() - own.keys()):
        count = _fitting(tensors, own, rule)
        if count > most:
            best, most = rule, count
    if best is None:
        return ""
    whole = adapt.model_copy(update={"rename": (*adapt.rename, best)})
    data = {"state_dict": whole.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
    told = yaml.safe_dump(data, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return f"add weights: {told}"


def _candidates(missing: Iterable[str], extra: Iterable[str]) -> list[Rename]:
    """The prefixes by which the most missing and unexpected keys differ."""
    unexpected = sorted(extra)
    prefixes: Counter[tuple[str, str]] = Counter()
    for key in sorted(missing):
        prefixes.update((k[: -len(key)], "") for k in unexpected if k.endswith(f".{key}"))
        prefixes.update(("", key[: -len(k)]) for k in unexpected if key.endswith(f".{k}"))
    rules = [
        {"from": f"^{re.escape(strip)}", "to": add.replace("\\", r"\\")}
        for (strip, add), _ in prefixes.most_common(TRIED)
    ]
    return [Rename.model_validate(rule) for rule in rules]


def _fitting(tensors: TensorMap, own: TensorMap, rule: Rename | None) -> int:
    """How many tensors have the name and shape of one of the model's."""
    names = {re.sub(rule.from_, rule.to, k) if rule else k: v for k, v in tensors.items()}
    return sum(key in own and own[key].shape == v.shape for key, v in names.items())
