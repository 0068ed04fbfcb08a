"""What the protocol tells of a model, out of its card (``GET /models``). Pure functions.

Each artifact is two models: ``<name>`` takes an item in each element of a BYTES tensor and answers
JSON; ``<name>.tensors`` has the graph's own inputs and outputs, with the batch dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from serve.oip_tensors import BYTES, DATATYPES

__all__ = [
    "ANSWER",
    "ITEM",
    "TENSORS",
    "config",
    "graph",
    "index",
    "metadata",
    "server_metadata",
    "statistics",
    "version_of",
]

TENSORS = ".tensors"
"""Behind the name of the model that has the graph's own inputs and outputs."""
ITEM = {"image": "image", "audio": "audio", "text": "text", "tensors": "item"}
"""The BYTES input by what the model takes: an image or sound file, a text, a JSON document."""
ANSWER = "answer"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics", "schedule_policy")
_DATATYPES = {dtype: name for name, dtype in DATATYPES.items()}
_TYPES = {name: f"TYPE_{name}" for name in DATATYPES} | {BYTES: "TYPE_STRING"}
NANOSECONDS = 1e9
MILLISECONDS = 1e3

Card = Mapping[str, Any]
Json = dict[str, Any]


def server_metadata() -> Json:
    """``GET /v2``."""
    try:
        number = version("deployc")
    except PackageNotFoundError:  # run from the sources
        number = "0"
    return {"name": "deployc", "version": number, "extensions": list(EXTENSIONS)}


def version_of(card: Card) -> str:
    """The version of a model."""
    return str(card.get("version", "1"))


def graph(card: Card) -> tuple[Card, Card]:
    """The graph's inputs and outputs: name -> ``{"shape", "dtype"}``, the batch first."""
    of = card.get("graph", card)
    return of["inputs"], of["outputs"]


def metadata(card: Card, *, tensors: bool) -> Json:
    """``GET /v2/models/{name}``; sizes that a request chooses are -1."""
    inputs, outputs = _described(card, tensors=tensors)
    return {
        "name": _name(card, tensors=tensors),
        "versions": [version_of(card)],
        "platform": card["variant"]["engine"],
        "inputs": inputs,
        "outputs": outputs,
    }


def _name(card: Card, *, tensors: bool) -> str:
    return card["name"] + (TENSORS if tensors else "")


def _described(card: Card, *, tensors: bool) -> tuple[list[Json], list[Json]]:
    if tensors:
        inputs, outputs = graph(card)
        return _tensors(inputs), _tensors(outputs)
    item = {"name": ITEM[card["takes"]], "datatype": BYTES, "shape": [-1]}
    return [item], [{"name": ANSWER, "datatype": BYTES, "shape": [-1]}]


def _tensors(given: Card) -> list[Json]:
    """A fixed batch is -1, too: the server pads what is smaller and splits what is larger."""
    return [
        {
            "name": name,
            "datatype": _DATATYPES[tensor["dtype"]],
            "shape": [-1, *(d if isinstance(d, int) else -1 for d in tensor["shape"][1:])],
        }
        for name, tensor in given.items()
    ]


def config(card: Card, *, tensors: bool) -> Json:
    """``GET /v2/models/{name}/config``, as far as Triton's clients read it.

    ``max_batch_size`` above 0 means that ``dims`` leave the batch out. Where nothing would be left
    of them, it is 0, and they are the whole shape.
    """
    inputs, outputs = _described(card, tensors=tensors)
    batched = all(len(tensor["shape"]) > 1 for tensor in (*inputs, *outputs))
    return {
        "name": _name(card, tensors=tensors),
        "platform": card["variant"]["engine"],
        "backend": card["variant"]["engine"],
        "max_batch_size": card["batch"]["max"] if batched else 0,
        "input": [_configured(each, batched=batched) for each in inputs],
        "output": [_configured(each, batched=batched) for each in outputs],
    }


def _configured(tensor: Json, *, batched: bool) -> Json:
    dims = tensor["shape"][1:] if batched else tensor["shape"]
    return {"name": tensor["name"], "data_type": _TYPES[tensor["datatype"]], "dims": dims}


def statistics(card: Card, stats: Card, *, tensors: bool) -> Json:
    """``GET /v2/models/{name}/stats`` out of ``serve.stats.Stats.to_json``.

    Both models of an artifact share an engine and a queue, and show the same counts. Times are
    sums, in nanoseconds.
    """
    requests, stages, batches = stats["requests"], stats["stages"], stats["batches"]
    good = requests.get("ok", 0)
    spent = sum(stage["seconds"] for stage in stages.values())
    return {
        "name": _name(card, tensors=tensors),
        "version": version_of(card),
        "last_inference": round((stats["last"] or 0) * MILLISECONDS),
        "inference_count": stats["items"],
        "execution_count": sum(each["count"] for each in batches.values()),
        "inference_stats": {
            "success": _duration(good, spent),
            "fail": _duration(sum(requests.values()) - good, 0),
            "queue": _stage(stages["queue"]),
            "compute_input": _stage(stages["pre"]),
            "compute_infer": _stage(stages["engine"]),
            "compute_output": _stage(stages["post"]),
        },
        "batch_stats": [
            {
                "batch_size": int(size),
                "compute_input": _duration(0, 0),
                "compute_infer": _stage(each),
                "compute_output": _duration(0, 0),
            }
            for size, each in batches.items()
        ],
    }


def _stage(stage: Card) -> Json:
    return _duration(stage["count"], stage["seconds"])


def _duration(count: int, seconds: float) -> Json:
    return {"count": count, "ns": round(seconds * NANOSECONDS)}


def index(cards: Iterable[Card], *, ready: bool) -> list[Json]:
    """``POST /v2/repository/index``; with ``ready``, only those that are."""
    entries = [
        {
            "name": _name(card, tensors=tensors),
            "version": version_of(card),
            "state": "READY" if card["state"] == "ready" else "UNAVAILABLE",
            "reason": "" if card["state"] == "ready" else card["state"],
        }
        for card in cards
        for tensors in (False, True)
    ]
    return [entry for entry in entries if entry["state"] == "READY" or not ready]
