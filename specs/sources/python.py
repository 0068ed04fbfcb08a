"""``model: {python: {file: net.py, object: Net, kwargs: {...}}}``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from specs.base import Plain
from specs.sources._base import Source

__all__ = ["PythonSource"]


class PythonSource(Source):
    """A ``torch.nn.Module`` class, or a function that returns one, in a Python file.

    The file is run by the build: use only files that you trust.
    """

    name: ClassVar[str] = "python"
    weights = "optional"

    file: str = Field(min_length=1)
    """The Python file, relative to the spec."""
    object: str = Field(min_length=1)
    """The class or function in it."""
    kwargs: dict[str, Plain] = Field(default_factory=dict)
    """Keyword arguments of the class or function."""

    def files(self) -> tuple[str, ...]:
        return (self.file,)
