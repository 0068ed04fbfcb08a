"""The items of a request -> what the queue takes, in memory that is used again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from runtime.body import Items
from runtime.staging import Staging, places_for
from runtime.tensors import Array, Tensors
from specs.errors import InputError
from specs.schema import TensorSpec

__all__ = ["Making", "Preprocessing"]


class Preprocessing(Protocol):
    """What is used of ``runtime.Predictor``."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...
    def host_array(self, shape: tuple[int, ...], dtype: str) -> Array: ...
    def preprocess(self, item: Any, out: Tensors | None = None) -> Tensors: ...  # noqa: ANN401 - bytes, array or arrays


class Making:
    """Pre-processes items, each in a place of its own beside those that it may ride with.

    Args:
        predictor: pre-processes one.
        max_batch: the largest batch that they may ride in.
    """

    def __init__(self, predictor: Preprocessing, max_batch: int) -> None:
        self._predictor = predictor
        places = places_for(predictor.inputs, max_batch)
        self._staging = Staging(predictor.inputs, places, predictor.host_array)

    def tensors(self, items: Items, most: int) -> list[Tensors]:
        """The graph's inputs of each.

        Args:
            items: of one request, at least one.
            most: how many a request may have.

        Raises:
            InputError: an item is at fault, or there are too many.
        """
        if len(items.values) > most:
            message = f"{len(items.values)} items in one request; at most {most}"
            raise InputError(message, hint="send them in several requests", code="too_large")
        return [self._one(number, items) for number in range(len(items.values))]

    def _one(self, number: int, items: Items) -> Tensors:
        value = items.values[number]
        try:
            return self._staging.prepare(lambda out: self._predictor.preprocess(value, out))
        except InputError as error:
            if not items.batch:
                raise
            message = f"item {number}: {error.message}"
            raise InputError(message, hint=error.hint, code=error.code) from error
