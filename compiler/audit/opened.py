"""Looks into an ONNX graph: any tensor between its nodes, as the graph was written."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

import onnx

from runtime.engines import get_engine
from runtime.tensors import Tensors

__all__ = ["OpenGraph", "label"]


class OpenGraph:
    """An ONNX graph any of whose tensors can be looked at, node by node as it was written.

    It is run by ONNX Runtime on the CPU without optimisation. Use it in a ``with`` statement: the
    weights are copied once, into a folder of its own.
    """

    def __init__(self, graph: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "graph.onnx"
        whole = onnx.load(str(graph))
        onnx.save_model(whole, str(self._file), save_as_external_data=True, location="weights")
        self._proto = onnx.load(str(self._file), load_external_data=False)

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """The nodes in their order; those that only hold a constant are left out."""
        return [node for node in self._proto.graph.node if node.op_type != "Constant"]

    @property
    def tensors(self) -> list[str]:
        """What the nodes give, in their order."""
        return [name for node in self.nodes for name in node.output if name]

    @property
    def outputs(self) -> set[str]:
        """Names of the graph's outputs."""
        return {value.name for value in self._proto.graph.output}

    def fetch(self, names: Sequence[str], inputs: Tensors) -> Tensors:
        """The tensors of those names, those alone being kept in memory.

        Raises:
            EngineError: ONNX Runtime has no kernel for a node on the CPU, or fails.
        """
        part = onnx.ModelProto()
        part.CopyFrom(self._proto)
        del part.graph.output[:]
        part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        file = self._file.with_name("part.onnx")
        file.write_bytes(part.SerializeToString())
        engine = get_engine("onnxruntime")
        with closing(engine.open(file, "cpu", {"optimization": "disabled"})) as session:
            return session.run(inputs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def label(node: onnx.NodeProto) -> str:
    """``node_conv2d_3 (Conv)``; a node without a name is called by its first output."""
    return f"{node.name or node.output[0]} ({node.op_type})"
