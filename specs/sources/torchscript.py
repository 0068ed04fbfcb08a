"""``model: {torchscript: net.pt}``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from specs.sources._base import Source

__all__ = ["TorchscriptSource"]


class TorchscriptSource(Source):
    """A TorchScript archive that holds a ``ScriptModule`` or a ``ScriptFunction``."""

    name: ClassVar[str] = "torchscript"
    shorthand: ClassVar[str] = "file"
    weights = "forbidden"

    file: str = Field(min_length=1)
    """The archive that ``torch.jit.save`` wrote, relative to the spec."""

    def files(self) -> tuple[str, ...]:
        return (self.file,)
