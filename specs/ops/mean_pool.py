"""``mean_pool``: one vector from the vectors of a text's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from specs.ops._base import Emitted, Fused, Graph, Libraries, Op, Stage, Symbols
from specs.ops._checks import need_float_tensor
from specs.values import FlowError, Value, show_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MeanPool"]

RANK = 3
"""Batch, tokens and the width of a vector."""
LEAST = 1e-9
"""The smallest divisor, as in sentence-transformers: no tokens at all give zeros."""


class MeanPool(Op):
    """Average the vectors [batch, tokens, width] of the tokens to [batch, width].

    With ``mask``, the tokens that it has 0 for do not count: ``sum(x * mask) / max(sum(mask),
    1e-9)``, the formula of sentence-transformers' Pooling (mean_tokens). float16 is computed in
    float32. NaN in a token makes its text's vector NaN, even where the mask has 0.
    """

    name: ClassVar[str] = "mean_pool"
    shorthand: ClassVar[str] = "mask"
    stages: ClassVar[frozenset[Stage]] = frozenset({"postprocess"})

    mask: str | None = None
    """The model's input [batch, tokens] that has 1 for a token and 0 for padding."""

    def flow(self, value: Value) -> Value:
        need_float_tensor("mean_pool", value)
        if len(value.shape) != RANK:
            found = show_shape(value.shape)
            message = f"mean_pool takes a tensor [batch, tokens, width], found shape {found}"
            raise FlowError(message, "give mean_pool the model's last hidden state")
        low, high = value.low, value.high
        if self.mask:  # no tokens at all give 0
            low, high = (
                None if low is None else min(low, 0),
                None if high is None else max(high, 0),
            )
        dtype = "float64" if value.dtype == "float64" else "float32"
        shape = (value.shape[0], value.shape[2])
        return value.but(dtype=dtype, shape=shape, low=low, high=high, probability=False)

    def carried(self) -> tuple[str, ...]:
        return (self.mask,) if self.mask else ()

    def emit(self, value: Value) -> Emitted:
        del value
        if not self.mask:
            call = "mean_pool({x}, np.ones({x}.shape[:2], np.float32))"
            return Emitted(call, "Average the vectors of all tokens.", (mean_pool,))
        comment = "Average the vectors of the tokens, without padding."
        return Emitted(f'mean_pool({{x}}, outputs["{self.mask}"])', comment, (mean_pool,))

    def fuse(self, graph: Graph, x: Symbols, value: Value) -> Fused | None:
        assert isinstance(x, str)  # noqa: S101 - `flow` takes one tensor
        dtype = "float64" if value.dtype == "float64" else "float32"
        wide = x if value.dtype == dtype else graph.cast(x, dtype)
        if not self.mask:
            return Fused(graph.add("ReduceMean", wide, graph.ints(1), keepdims=0))
        mask = graph.beside.get(self.mask)
        if mask is None:
            return None
        weights = graph.add("Unsqueeze", graph.cast(mask, dtype), graph.ints(2))
        total = graph.add("ReduceSum", graph.add("Mul", wide, weights), graph.ints(1), keepdims=0)
        count = graph.add("ReduceSum", weights, graph.ints(1), keepdims=0)
        return Fused(graph.add("Div", total, graph.add("Max", count, graph.constant(LEAST, dtype))))

    def reference(self, x: Any, value: Value, lib: Libraries) -> Any:
        """Without a mask, which does not come here: ``masked`` takes it."""
        del value
        if self.mask:
            raise NotImplementedError
        return self.masked(x, np.ones(x.shape[:2], np.int64), lib)

    @staticmethod
    def masked(x: Any, mask: Any, lib: Libraries) -> Any:
        """The reference with a mask [batch, tokens], as sentence-transformers writes it."""
        tokens, mask = lib.torch.from_numpy(x), lib.torch.from_numpy(mask)
        tokens = tokens.float() if tokens.dtype == lib.torch.float16 else tokens
        wide = mask.unsqueeze(-1).expand(tokens.size()).to(tokens.dtype)
        return ((tokens * wide).sum(1) / lib.torch.clamp(wide.sum(1), min=LEAST)).numpy()


def mean_pool(x: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """Return the mean [batch, width] of the tokens that ``mask`` keeps."""
    x = x.astype(np.promote_types(x.dtype, np.float32))
    weights = mask.astype(x.dtype)[:, :, None]
    count = np.maximum(weights.sum(axis=1), x.dtype.type(LEAST))
    return (x * weights).sum(axis=1) / count
