"""The model that an artifact was built from, where its spec is at hand."""

from __future__ import annotations

from pathlib import Path

from compiler.audit.layers import Original
from compiler.describe import resolved
from compiler.progress import Reporter
from compiler.stages import Stages
from specs.digests import text_sha256
from specs.errors import ArtifactError
from specs.loader import load_spec
from specs.manifest import Manifest
from specs.schema import Weights

__all__ = ["original_of"]


def original_of(spec: Path, override: Weights | None, manifest: Manifest) -> Original:
    """The spec and the model, held to what the artifact says that it was built from.

    Args:
        spec: the spec's file; what it names lies beside it.
        override: takes the place of the spec's weights, as in the build.
        manifest: the artifact's.

    Raises:
        ArtifactError: the artifact was built from another spec (``spec_differs``) or from other
            weights (``weights_differ``).
        SpecError, WeightsError: as in a build.
    """
    stages = Stages(load_spec(spec), Reporter(quiet=True), override)
    if text_sha256(resolved(stages)) != manifest.spec_sha256:
        message = f"{spec} is not the spec that the artifact was built from, or was changed since"
        hint = "name that spec, or run `deployc build` with this one"
        raise ArtifactError(message, hint=hint, code="spec_differs")
    origin = stages.weights.origin_in(manifest.graph)
    if (origin.sha256, origin.seed) != (manifest.weights.sha256, manifest.weights.seed):
        message = f"the artifact was built with the weights {manifest.weights}, found {origin}"
        hint = "name the same weights with --weights"
        raise ArtifactError(message, hint=hint, code="weights_differ")
    return Original(stages.spec, lambda: stages.model)
