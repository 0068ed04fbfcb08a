"""Inputs and outputs that stay in a device's memory from run to run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from runtime.tensors import Array, Tensors
from specs.engines import Device
from specs.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["Binder"]

NUMPY = {
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
"""numpy's name of ONNX Runtime's tensor types, as far as a spec may name them."""
NO_CAPTURE = "-1"
"""The graph id that ONNX Runtime runs without recording."""

Key = tuple[tuple[int, ...], ...]


@dataclass
class _Bound:
    """The buffers of one set of input shapes."""

    binding: ort.IOBinding
    inputs: dict[str, ort.OrtValue]
    open: tuple[str, ...]
    """Outputs whose size only a run tells: it allocates them."""
    run_options: ort.RunOptions | None = None
    graph_id: int = 0


class Binder:
    """Runs a session on buffers that it keeps for each set of input shapes.

    Args:
        session: the session; used by one thread at a time.
        device: where the buffers lie.
        device_id: which of those devices.
        graphs: record and replay a CUDA graph for each set of shapes.
        kept: how many sets of shapes keep their buffers; the least recently used makes room.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        device: Device,
        device_id: int,
        *,
        graphs: bool = False,
        kept: int = 32,
    ) -> None:
        self._session = session
        self._place = (device, device_id)
        self._graphs = graphs
        self._kept = kept
        self._inputs = {item.name: item for item in session.get_inputs()}
        self._outputs = session.get_outputs()
        self._bound: OrderedDict[Key, _Bound] = OrderedDict()
        self._graph_ids = 0

    def run(self, inputs: Tensors) -> list[Array]:
        """The outputs in the session's order, as arrays of their own.

        Raises:
            EngineError: an input is missing, not the graph's, or of another type.
        """
        arrays = self._checked(inputs)
        key = tuple(array.shape for array in arrays.values())
        try:
            bound = self._bound_for(key, arrays)
            self._run(bound, arrays)
            return list(bound.binding.copy_outputs_to_cpu())
        except Exception:
            self._forget(key)  # sizes that the graph does not take keep no buffers
            raise

    @property
    def shapes(self) -> list[Key]:
        """The shapes of the inputs whose buffers are kept, the least recently used first."""
        return list(self._bound)

    def clear(self) -> None:
        """Give all buffers and graphs back."""
        for key in list(self._bound):
            self._forget(key)

    # --- one set of shapes

    def _checked(self, inputs: Tensors) -> Tensors:
        if inputs.keys() != self._inputs.keys():
            message = f"found the inputs {sorted(inputs)}, expected {sorted(self._inputs)}"
            raise EngineError(message, code="engine_run")
        for name, array in inputs.items():
            expected = NUMPY.get(self._inputs[name].type)
            if expected != str(array.dtype):
                message = f"input '{name}' is {array.dtype}, expected {expected}"
                raise EngineError(message, code="engine_run")
        return {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}

    def _run(self, bound: _Bound, arrays: Tensors) -> None:
        for name, array in arrays.items():
            # It copies bytes whatever the type, so both types were compared before.
            bound.inputs[name].update_inplace(array)
        for name in bound.open:  # else this run would get the buffer that the last one made
            bound.binding.bind_output(name, *self._place)
        bound.binding.synchronize_inputs()
        self._session.run_with_iobinding(bound.binding, bound.run_options)

    def _bound_for(self, key: Key, arrays: Tensors) -> _Bound:
        if key not in self._bound:
            while len(self._bound) >= self._kept:
                self._forget(next(iter(self._bound)))
            self._bound[key] = self._bind(arrays)
        self._bound.move_to_end(key)
        return self._bound[key]

    def _bind(self, arrays: Tensors) -> _Bound:
        binding = self._session.io_binding()
        values = {name: self._buffer(array.shape, array.dtype) for name, array in arrays.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        sizes = _sizes(self._inputs, arrays)
        unknown: list[str] = []
        for output in self._outputs:
            shape = _known_shape(output, sizes)
            if shape is None:
                unknown.append(output.name)
                binding.bind_output(output.name, *self._place)  # here, to keep the outputs' order
            else:
                buffer = self._buffer(shape, np.dtype(NUMPY[output.type]))
                binding.bind_ortvalue_output(output.name, buffer)
        bound = _Bound(binding, values, tuple(unknown))
        return self._capturing(bound, arrays) if self._graphs else bound

    def _buffer(self, shape: Sequence[int], dtype: np.dtype[np.generic]) -> ort.OrtValue:
        import onnxruntime as ort

        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, *self._place)

    def _capturing(self, bound: _Bound, arrays: Tensors) -> _Bound:
        """Give every output a fixed buffer, and the next runs a graph id of their own.

        A graph replays fixed addresses, so sizes that only a run tells are taken from one that
        records nothing. ONNX Runtime itself runs a graph often enough before it records it.
        """
        if bound.open:
            self._run(replace(bound, run_options=_run_options(NO_CAPTURE)), arrays)
            for output, found in zip(self._outputs, bound.binding.get_outputs(), strict=True):
                if output.name in bound.open:
                    bound.binding.bind_ortvalue_output(output.name, found)
        self._graph_ids += 1  # never used again: a dropped graph must not be replayed
        options = _run_options(str(self._graph_ids))
        return _Bound(bound.binding, bound.inputs, (), options, self._graph_ids)

    def _forget(self, key: Key) -> None:
        bound = self._bound.pop(key, None)
        if bound is not None and bound.graph_id:
            self._session.release_captured_graph(bound.graph_id)


def _run_options(graph_id: str) -> ort.RunOptions:
    import onnxruntime as ort

    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_id)
    return options


def _sizes(inputs: dict[str, ort.NodeArg], arrays: Tensors) -> dict[str, int]:
    """What the inputs' named dimensions are in this run."""
    return {
        dim: size
        for name, item in inputs.items()
        for dim, size in zip(item.shape, arrays[name].shape, strict=False)
        if isinstance(dim, str)
    }


def _known_shape(output: ort.NodeArg, sizes: dict[str, int]) -> list[int] | None:
    """The output's shape, where it follows from the inputs'.

    ONNX Runtime gives [] for a scalar as for a shape that is not known.
    """
    if not output.shape or output.type not in NUMPY:
        return None
    found = [dim if isinstance(dim, int) else sizes.get(dim or "") for dim in output.shape]
    known = [size for size in found if size is not None]
    return known if len(known) == len(found) else None
