"""Answers from an artifact: pre-process, engine, post-process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from runtime.artifact import check_files, choose_variant, read_manifest
from runtime.engines import EngineSession, get_engine
from runtime.processing import Processing, load_processing
from runtime.tensors import (
    Array,
    Rows,
    Tensors,
    chunks,
    group_by_shape,
    joined,
    pad,
    rows,
    side_by_side,
    stack,
    unstack,
)
from specs.axes import AxisRange
from specs.errors import EngineError, InputError
from specs.manifest import Manifest, Variant
from specs.schema import TensorSpec
from specs.values import Dim, show_shape

__all__ = ["PassedOver", "Predictor", "load", "open_variant", "processing_of"]

_LOG = logging.getLogger("deployc")


class Predictor:
    """One variant of an artifact, loaded.

    ``preprocess`` and ``postprocess`` may be called from any thread, ``run`` from one at a time.
    """

    def __init__(
        self,
        manifest: Manifest,
        variant: Variant,
        processing: Processing,
        session: EngineSession,
        passed_over: tuple[PassedOver, ...] = (),
    ) -> None:
        self.manifest = manifest
        self.variant = variant
        self.passed_over = passed_over
        """Preferred variants that cannot run here, with the reason."""
        self._processing = processing
        self._session = session

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """What the engine takes: the model's inputs, or the images that its graph prepares."""
        return self.variant.inputs or self.manifest.inputs

    @property
    def outputs(self) -> dict[str, TensorSpec]:
        """What the engine gives."""
        return self.variant.outputs or self.manifest.outputs

    @property
    def axes(self) -> dict[str, AxisRange]:
        """The range of every dynamic axis of ``inputs``."""
        return {**self.manifest.axes, **self.variant.axes}

    @property
    def max_batch(self) -> int:
        """The largest batch that the engine takes at once."""
        return self.manifest.batch.max

    @property
    def details(self) -> dict[str, str]:
        """What the engine says of itself: version, providers."""
        return self._session.details()

    def host_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Memory to prepare inputs in, to be used again and again; pinned where a GPU reads it."""
        return self._session.host_array(shape, dtype)

    def preprocess(
        self,
        item: Any,  # noqa: ANN401 - bytes, array or dict of arrays
        out: Tensors | None = None,
    ) -> Tensors:
        """The graph's inputs for one item, without the batch dimension.

        Arrays that the graph does not take may be among them (``@geometry``); ``run`` passes them
        by to ``postprocess``.

        Args:
            item: an image file's bytes or an array [height, width, channels]; a sound file's
                bytes; a text; for plain tensors an array, or arrays by input name.
            out: arrays by input, of its shape and dtype, that the result may be written to.

        Raises:
            InputError: the item is at fault; its code says how.
        """
        return self._processing.preprocess(item, out)

    def run(self, items: Sequence[Tensors]) -> Sequence[Tensors]:
        """The graph's outputs for each item, in order, without the batch dimension.

        Any number of items: they are grouped by shape, split at ``max_batch``, and padded where
        the graph's batch is fixed. ``Rows`` give ``Rows``, without a step for each item.
        """
        if isinstance(items, Rows):
            parts = [self._run_rows(items[part]) for part in chunks(len(items), self.max_batch)]
            return joined(parts)
        results: list[Tensors] = [{} for _ in items]
        for group in group_by_shape(items, self.inputs):
            for part in chunks(len(group), self.max_batch):
                indices = side_by_side(items, group[part])
                batch = stack([items[index] for index in indices], self.inputs)
                for index, output in zip(indices, unstack(self._run_batch(batch)), strict=True):
                    results[index] = self._with_carried(output, items[index])
        return results

    def _run_rows(self, items: Rows) -> Rows:
        """At most ``max_batch`` of them."""
        outputs = self._run_batch({name: items.batch[name] for name in self.inputs})
        return Rows(self._with_carried(outputs, items.batch))

    def _with_carried(self, output: Tensors, item: Tensors) -> Tensors:
        """With what post-processing reads beside it; raw tensors may come without that.

        Copied, since an item's memory may be another's by then (``runtime.staging``).
        """
        for name in self._processing.carried:
            if name in item:
                output[name] = item[name].copy()
        return output

    def postprocess(self, outputs: Sequence[Tensors]) -> list[dict[str, Any]]:
        """One answer for each item's outputs, in order; the kinds stand in ``docs/design.md``."""
        answers: list[dict[str, Any]] = [{} for _ in outputs]
        if isinstance(outputs, Rows):
            return list(self._processing.postprocess(outputs.batch))
        for group in group_by_shape(outputs):
            found = self._processing.postprocess(stack([outputs[index] for index in group]))
            for index, answer in zip(group, found, strict=True):
                answers[index] = answer
        return answers

    def predict(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """One answer for each item, in order.

        Raises:
            InputError: an item is at fault; of several, the message begins with its index.
        """
        every = _listed(items)
        return self.postprocess(self.run([self._numbered(n, every) for n in range(len(every))]))

    def _numbered(self, number: int, items: Sequence[Any]) -> Tensors:
        try:
            return self.preprocess(items[number])
        except InputError as error:
            if len(items) == 1:
                raise
            message = f"item {number}: {error.message}"
            raise InputError(message, hint=error.hint, code=error.code) from error

    def predict_batch(self, inputs: Tensors) -> Tensors:
        """The graph's outputs for its inputs, both with the batch dimension, of any size."""
        self._check(inputs)
        count = rows(inputs)
        parts = [
            self._run_batch({name: array[part] for name, array in inputs.items()})
            for part in chunks(count, self.max_batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_batch(self, batch: Tensors) -> Tensors:
        count = rows(batch)
        padded = pad(batch, self.manifest.batch.min)
        outputs = self._session.run(padded)
        return {name: _apart(array, padded)[:count] for name, array in outputs.items()}

    def _check(self, inputs: Tensors) -> None:
        expected = self.inputs
        if inputs.keys() != expected.keys():
            message = f"found the inputs {sorted(inputs)}, expected {sorted(expected)}"
            raise InputError(message, code="wrong_input")
        sizes: dict[str, int] = {}
        for name, tensor in expected.items():
            found = inputs[name]
            if str(found.dtype) != tensor.dtype:
                message = f"input '{name}' is {found.dtype}, expected {tensor.dtype}"
                raise InputError(message, code="wrong_dtype")
            # The batch may have any size, since it is split and padded here.
            wanted = ("any batch", *tensor.shape[1:])
            if not found.size or not _fits(found.shape, wanted, sizes):
                message = (
                    f"input '{name}' has shape {show_shape(found.shape)}, "
                    f"expected {show_shape(wanted)}"
                )
                raise InputError(message, code="wrong_shape")

    def beside(self, threads: int) -> Predictor | None:
        """The same variant once more, on so many threads: ``EngineSession.beside``.

        Its ``run`` may be called from several threads at once.
        """
        session = self._session.beside(threads)
        if session is None:
            return None
        return Predictor(self.manifest, self.variant, self._processing, session, self.passed_over)

    def close(self) -> None:
        """Give the engine's memory back."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _listed(items: Any) -> list[Any]:  # noqa: ANN401 - what a caller may have forgotten to list
    """The items; one that was given without its list is refused, else its parts would be items."""
    if isinstance(items, bytes | bytearray | str | dict) or not isinstance(items, Iterable):
        message = f"found {type(cast('object', items)).__name__}, expected a list of items"
        raise InputError(message, hint="predict([item]) answers one", code="wrong_input")
    return list(cast("Iterable[Any]", items))


def _apart(output: Array, inputs: Tensors) -> Array:
    """The output in memory of its own: a model may hand on an input, whose memory is used again."""
    if any(np.may_share_memory(output, array) for array in inputs.values()):
        return output.copy()
    return output


def _fits(shape: tuple[int, ...], wanted: tuple[Dim, ...], sizes: dict[str, int]) -> bool:
    """Whether sizes are equal, and those of one name the same everywhere, as ``sizes`` collects."""
    return len(shape) == len(wanted) and all(
        size == (dim if isinstance(dim, int) else sizes.setdefault(dim, size))
        for size, dim in zip(shape, wanted, strict=True)
    )


@dataclass(frozen=True)
class PassedOver:
    """A variant that was preferred and cannot run here."""

    variant: str
    reason: str

    def __str__(self) -> str:
        return f"{self.variant} cannot run here: {self.reason}"


def load(path: str | Path, variant: str | None = None) -> Predictor:
    """Open the artifact in folder ``path``, check its hashes, and load a variant of it.

    Args:
        path: the artifact's folder.
        variant: a variant's name; by default the preferred one. Where that one cannot run here,
            the spec's ``on_missing`` says whether to refuse or to take the next; the latter is
            logged, and told by ``Predictor.passed_over``.

    Raises:
        ArtifactError: the artifact is missing, torn, changed, or of another schema version.
        EngineError: the engine or its device cannot be had here.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    chosen = choose_variant(manifest, variant)
    candidates = [chosen] if variant else list(manifest.variants)
    session, chosen, passed_over = _open_first(folder, manifest, candidates)
    processing = processing_of(folder, manifest, chosen)
    return Predictor(manifest, chosen, processing, session, passed_over)


def processing_of(folder: Path, manifest: Manifest, variant: Variant) -> Processing:
    """The pre- and post-processing of one variant of the artifact in ``folder``.

    Raises:
        ArtifactError: the file is missing, changed, or cannot be run.
    """
    file = variant.processing
    return load_processing(folder / file, manifest.files[file].sha256)


def _open_first(
    folder: Path, manifest: Manifest, candidates: Sequence[Variant]
) -> tuple[EngineSession, Variant, tuple[PassedOver, ...]]:
    """The first variant that runs here, and those before it, where the spec allows to go on."""
    passed_over: list[PassedOver] = []
    for number, variant in enumerate(candidates):
        try:
            session = open_variant(folder, variant)
        except EngineError as error:
            last = number == len(candidates) - 1
            if manifest.on_missing == "refuse" or last:
                raise _refused(error, variant, candidates, passed_over) from error
            passed_over.append(PassedOver(variant.name, error.message))
            _LOG.warning("%s: %s; the next variant is tried", manifest.name, passed_over[-1])
        else:
            return session, variant, tuple(passed_over)
    raise AssertionError("an artifact has at least one variant")


def open_variant(folder: Path, variant: Variant) -> EngineSession:
    """A session of one variant of the artifact in ``folder``.

    Raises:
        EngineError: the engine or its device cannot be had here.
    """
    engine = get_engine(variant.engine)
    return engine.open(folder / variant.file, variant.device, variant.options)


def _refused(
    error: EngineError,
    variant: Variant,
    candidates: Sequence[Variant],
    passed_over: Sequence[PassedOver],
) -> EngineError:
    """The error, with what else there is to run."""
    others = [each.name for each in candidates if each is not variant]
    message = "\n".join([error.message, *(str(each) for each in passed_over)])
    hint = error.hint
    if others and not passed_over:
        other = f"run another variant ({', '.join(others)}) by name, or set on_missing: next"
        hint = f"{hint}; or {other}" if hint else other
    return EngineError(message, hint=hint, code=error.code)
