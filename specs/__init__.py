"""The language of deployc: specs, manifests and errors.

>>> import specs, pathlib
>>> loaded = specs.load_spec(pathlib.Path("specs/digits.yaml"))      # doctest: +SKIP
>>> loaded.spec.batch                                                # doctest: +SKIP
AxisRange(min=1, opt=8, max=32)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from specs.errors import DeploycError, Problem, SpecError

if TYPE_CHECKING:
    from specs.jsonschema import json_schema
    from specs.loader import LoadedSpec, load_spec, spec_files
    from specs.manifest import Manifest
    from specs.schema import Spec

__all__ = [
    "DeploycError",
    "LoadedSpec",
    "Manifest",
    "Problem",
    "Spec",
    "SpecError",
    "json_schema",
    "load_spec",
    "spec_files",
]

_HOMES = {
    "LoadedSpec": "specs.loader",
    "Manifest": "specs.manifest",
    "Spec": "specs.schema",
    "json_schema": "specs.jsonschema",
    "load_spec": "specs.loader",
    "spec_files": "specs.loader",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - one of __all__
    # Late: every module of specs imports this one first, and `deployc --help` needs no schema.
    if name not in _HOMES:
        raise AttributeError(f"module 'specs' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
