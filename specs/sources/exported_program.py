"""``model: {exported_program: net.pt2}``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from specs.sources._base import Exporter, Source

__all__ = ["ExportedProgramSource"]


class ExportedProgramSource(Source):
    """A ``torch.export.ExportedProgram`` that ``torch.export.save`` wrote."""

    name: ClassVar[str] = "exported_program"
    shorthand: ClassVar[str] = "file"
    weights = "forbidden"
    exporters: ClassVar[tuple[Exporter, ...]] = ("dynamo",)

    file: str = Field(min_length=1)
    """The ``.pt2`` file, relative to the spec."""

    def files(self) -> tuple[str, ...]:
        return (self.file,)
