"""The boundary where what a disk refuses becomes one of deployc's errors."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from compiler.cache import cache_folder
from specs.errors import DeploycError

__all__ = ["disk_errors"]


@contextmanager
def disk_errors() -> Generator[None, None, None]:
    """Translate what a disk refuses: full, read-only, or a file where a folder should be."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
        hint = f"the cache is {cache_folder()} (DEPLOYC_CACHE), the artifact's place is given by -o"
        raise DeploycError(message, hint=hint, code="disk") from error
