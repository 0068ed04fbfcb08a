"""Where a build's weights come from: the spec, or the command line in its place."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from compiler.download import WAYS_OUT, download
from compiler.progress import Reporter
from specs.digests import file_sha256
from specs.errors import WeightsError
from specs.manifest import Graph, WeightsOrigin
from specs.schema import Spec, StateDict, Weights

__all__ = ["FoundWeights", "find_weights", "parse_override"]

LAST_SEED = 2**63 - 1
"""What ``torch.manual_seed`` takes."""


@dataclass(frozen=True)
class FoundWeights:
    """Weights at hand.

    Args:
        origin: what the manifest says of them.
        file: the checkpoint; None for random weights and for those of the source itself.
        state_dict: how the checkpoint is adapted.
    """

    origin: WeightsOrigin
    file: Path | None
    state_dict: StateDict

    def origin_in(self, graph: Graph) -> WeightsOrigin:
        """What the manifest says: a graph without parameters has no weights to warn of."""
        if self.origin.origin == "source" and not graph.parameters:
            return WeightsOrigin(origin="source")
        return self.origin

    def key(self) -> dict[str, object]:
        """What a stage that uses them depends on."""
        origin = self.origin.model_dump(include={"sha256", "seed"})
        return {**origin, "state_dict": self.state_dict.model_dump(mode="json", by_alias=True)}


def parse_override(text: str) -> Weights:
    """``--weights FILE`` or ``--weights random:SEED`` as the spec would write it."""
    kind, _, seed = text.partition(":")
    if text and kind != "random":
        return Weights(path=str(Path(text).expanduser().absolute()))
    if not re.fullmatch("[0-9]+", seed) or int(seed) > LAST_SEED:
        message = f"--weights '{text}': expected a file, or random:SEED with a whole number"
        hint = f"such as random:0; seeds go up to {LAST_SEED}"
        raise WeightsError(message, hint=hint, code="weights_option")
    return Weights.model_validate({"random": {"seed": int(seed)}})


def find_weights(
    spec: Spec, folder: Path, override: Weights | None, reporter: Reporter
) -> FoundWeights:
    """The weights of ``spec``, downloaded if need be; ``override`` replaces its ``weights``.

    The spec's ``state_dict`` holds for an overriding file, too: it is a copy of the same thing.

    Raises:
        WeightsError: they cannot be had, or are not what the spec says.
    """
    wanted = override or spec.weights
    adapt = spec.weights.state_dict if spec.weights else StateDict()
    if spec.model.weights == "forbidden" or wanted is None:
        if override is not None:
            message = f"a model from '{spec.model.name}' holds its own weights"
            raise WeightsError(message, hint="leave --weights out", code="weights_unused")
        return FoundWeights(_own(spec), None, adapt)
    if wanted.random is not None:
        origin = WeightsOrigin(origin="random", seed=wanted.random.seed)
        return FoundWeights(origin, None, adapt)
    if wanted.url is not None:
        file = download(wanted.url, wanted.sha256 or "", reporter)
        origin = WeightsOrigin(origin="url", location=wanted.url, sha256=wanted.sha256 or "")
        return FoundWeights(origin, file, adapt)
    return FoundWeights(*_local(folder / (wanted.path or ""), wanted.sha256), adapt)


def _own(spec: Spec) -> WeightsOrigin:
    """Weights of the source itself; code that makes them may make random ones."""
    if spec.model.weights == "forbidden":
        return WeightsOrigin(origin="source")
    return WeightsOrigin(origin="source", location=", ".join(spec.model.files()), seed=0)


def _local(file: Path, sha256: str | None) -> tuple[WeightsOrigin, Path]:
    if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises on long names
        message = f"there is no weights file {file}"
        raise WeightsError(message, hint=WAYS_OUT, code="weights_missing")
    found = file_sha256(file)
    if sha256 and found != sha256:
        message = f"{file} has sha256 {found}, the spec says {sha256}"
        raise WeightsError(message, hint="correct the one that is wrong", code="weights_hash")
    return WeightsOrigin(origin="path", location=file.name, sha256=found), file
