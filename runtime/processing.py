"""Loads an artifact's generated ``processing.py`` and translates its errors."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from numpy.typing import NDArray

from specs.errors import ArtifactError, InputError

__all__ = ["FAST", "Processing", "Tensors", "load_processing"]

FAST = ("simplejpeg", "cykooz_resizer")
"""What a generated file uses beside numpy and Pillow where it is installed: the same, sooner."""
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Processing:
    """The two functions of a ``processing.py``; safe from any thread."""

    _preprocess: Callable[[Any, Tensors | None], Tensors]
    _postprocess: Callable[[Tensors], list[dict[str, Any]]]
    _bad_input: type[ValueError]
    carried: tuple[str, ...] = ()
    """Names of the arrays that an item's post-processing reads beside its outputs: some of its
    inputs, and ``@geometry``, which the graph does not take."""

    def preprocess(self, item: object, out: Tensors | None = None) -> Tensors:
        """One item's tensors, without the batch dimension.

        Args:
            item: what the spec's first step takes.
            out: arrays by input, of its shape and dtype, that the result may be written to.

        Raises:
            InputError: the item cannot be taken; ``code`` names how.
        """
        try:
            return self._preprocess(item, out)
        except self._bad_input as error:
            raise _told(error) from error

    def postprocess(self, outputs: Tensors) -> list[dict[str, Any]]:
        """One answer per item of ``outputs``, which have the batch dimension.

        Raises:
            InputError: a step of the spec's own Python failed (``python_step``).
        """
        try:
            return self._postprocess(outputs)
        except self._bad_input as error:
            raise _told(error) from error


def _told(error: ValueError) -> InputError:
    fault = cast("Any", error)  # BadInput is the file's own class, known by contract alone
    return InputError(fault.message, hint=fault.hint, code=fault.code)


def load_processing(path: Path, sha256: str, *, fast: bool = True) -> Processing:
    """Load a generated file whose content is the one that ``sha256`` tells.

    With ``fast`` off, libraries that it would use where they are installed are left alone.

    What was hashed is what runs: the text is read once, and neither a cached ``.pyc`` nor
    ``sys.path`` comes into it.

    Raises:
        ArtifactError: the file is missing, changed, or cannot be run.
    """
    text = _read(path)
    found = hashlib.sha256(text).hexdigest()
    if found != sha256:
        message = f"{path} was changed: its sha256 is {found}, the manifest says {sha256}"
        raise ArtifactError(message, hint="build the artifact again", code="hash_mismatch")
    module = ModuleType(f"deployc_processing_{found[:16]}")
    module.__file__ = str(path)
    try:
        exec(compile(text, path, "exec"), vars(module))  # noqa: S102 - the artifact's own code, by hash
        if not fast:
            vars(module).setdefault("LIBRARIES", {}).update(dict.fromkeys(FAST))
        preprocess = _writing(module.preprocess)
        return Processing(preprocess, module.postprocess, module.BadInput, module.CARRIED)
    except ModuleNotFoundError as error:
        message = f"{path} needs the package {error.name}, which is not installed"
        hint = f"pip install {error.name}"
        raise ArtifactError(message, hint=hint, code="package_missing") from error
    except Exception as error:
        message = f"{path} cannot be run: {type(error).__name__}: {error}"
        raise ArtifactError(message, hint="build the artifact again", code="processing") from error


def _writing(preprocess: Callable[..., Tensors]) -> Callable[[Any, Tensors | None], Tensors]:
    """A file that was generated before ``out`` came gives arrays of its own, which is as good."""
    if "out" in inspect.signature(preprocess).parameters:
        return preprocess
    return lambda item, _: preprocess(item)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        hint = "build the artifact again"
        raise ArtifactError(message, hint=hint, code="file_missing") from error
