"""``model: {onnx: net.onnx}``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from specs.sources._base import Exporter, Source

__all__ = ["OnnxSource"]


class OnnxSource(Source):
    """An ONNX graph, taken as it is; what it leaves unnamed takes the spec's names and sizes."""

    name: ClassVar[str] = "onnx"
    shorthand: ClassVar[str] = "file"
    weights = "forbidden"
    exporters: ClassVar[tuple[Exporter, ...]] = ()

    file: str = Field(min_length=1)
    """The ``.onnx`` file, relative to the spec."""

    def files(self) -> tuple[str, ...]:
        return (self.file,)
