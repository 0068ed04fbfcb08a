"""Which op types of a graph ONNX Runtime has no kernel for."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import onnx
from onnx import shape_inference

from runtime.engines._ort_options import OrtOptions
from runtime.engines._ort_session import Opening, open_session
from specs.errors import EngineError

__all__ = ["without_cpu_kernel"]

NO_KERNEL = re.compile(r"Could not find an implementation for (?:[\w.]+:)?(\w+)\(\d+\) node")
NO_OP = re.compile(r"Fatal error: (?:[\w.]+:)?(\w+)\(-?\d+\) is not a registered function/op")


def without_cpu_kernel(graph: Path) -> tuple[str, ...]:
    """The op types that the CPU provider refuses, sorted; () where it takes the graph.

    ONNX Runtime names one at a time: the nodes of that type are cut out, what they gave becomes an
    input, and the rest is tried again.

    Raises:
        EngineError: the graph cannot be loaded for another reason.
    """
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        rest = graph
        while (missing := _first_missing(rest)) is not None and missing not in found:
            found.add(missing)
            rest = _cut(graph, found, Path(folder))
    return tuple(sorted(found))


def _first_missing(graph: Path) -> str | None:
    options = OrtOptions(optimization="disabled")
    try:
        open_session(Opening(graph, "cpu", options))
    except EngineError as error:
        match = NO_KERNEL.search(error.message) or NO_OP.search(error.message)
        if match is None:
            raise
        return match[1]
    return None


def _cut(graph: Path, types: set[str], folder: Path) -> Path:
    """The graph without the nodes of these types, in ``folder``."""
    proto = onnx.load(str(graph), load_external_data=False)
    known = _types(proto)
    gone = [node for node in proto.graph.node if node.op_type in types]
    for node in gone:
        proto.graph.node.remove(node)
        for name in node.output:
            if name in known:
                proto.graph.input.append(onnx.ValueInfoProto(name=name, type=known[name]))
    weights = graph.with_name(f"{graph.name}.data")
    if weights.exists() and not (folder / weights.name).exists():
        shutil.copyfile(weights, folder / weights.name)
    path = folder / graph.name
    path.write_bytes(proto.SerializeToString())
    return path


def _types(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Element types by value; of ops that ONNX does not know, only those that the graph tells."""
    inferred = shape_inference.infer_shapes(proto)
    return {
        value.name: value.type
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.WhichOneof("value")
    }
