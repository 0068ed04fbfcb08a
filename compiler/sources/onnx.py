"""Loads ``model: {onnx: FILE}``; its reference is ONNX's own evaluator, not an engine."""

# pyright: reportUnknownMemberType=false
# onnx's functions are typed in part.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import onnx
from onnx.reference import ReferenceEvaluator

from compiler.sources._base import Model, SourceLoader, require_file, told
from compiler.weights import FoundWeights
from runtime.tensors import Array
from specs.errors import SourceError
from specs.sources.onnx import OnnxSource

__all__ = ["OnnxLoader", "OnnxModel"]


@dataclass(frozen=True)
class OnnxModel(Model):
    """A graph that is there already."""

    proto: onnx.ModelProto

    def outputs(self, inputs: Sequence[Array], kwargs: Mapping[str, Any]) -> list[Array]:
        """Evaluate the graph with ONNX's reference implementation, in numpy."""
        weights = {tensor.name for tensor in self.proto.graph.initializer}
        names = [item.name for item in self.proto.graph.input if item.name not in weights]
        evaluator = ReferenceEvaluator(self.proto)
        feed = cast("dict[str, Any]", dict(zip(names, inputs, strict=True)))
        return cast("list[Array]", evaluator.run(None, feed))


class OnnxLoader(SourceLoader):
    """Reads and checks an ONNX file."""

    name: ClassVar[str] = OnnxSource.name

    @classmethod
    def load(cls, source: OnnxSource, folder: Path, weights: FoundWeights) -> Model:
        """Read the file with its external data, and let ONNX's checker see it."""
        file = require_file(folder, source.file)
        try:
            onnx.checker.check_model(str(file))  # by its path: above 2 GB no other way works
            proto = onnx.load(str(file))
        except Exception as error:  # protobuf and the checker raise kinds of their own
            message = f"{source.file} is no valid ONNX file: {told(error)}"
            raise SourceError(message, hint="run onnx.checker.check_model on it") from error
        return OnnxModel(proto)
