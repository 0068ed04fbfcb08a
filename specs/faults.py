"""How a validator says where in the spec a fault lies.

pydantic places an error at the field whose validator raised it. A check that looks at several
fields carries its places along instead; the loader turns each into a ``Problem``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pydantic_core import PydanticCustomError

__all__ = ["Fault", "Path", "nearest", "raise_faults"]

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``path`` from the spec's root, e.g. ``("preprocess", 1, "resize")``.

    ``in_key``: it lies in the last key of the path, not in the value.
    """

    path: Path
    code: str
    message: str
    hint: str = ""
    in_key: bool = False


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise all ``faults`` as one pydantic error; do nothing where there are none."""
    found = [asdict(fault) for fault in faults]
    if found:
        raise PydanticCustomError(
            "faults", "{count} faults", {"faults": found, "count": len(found)}
        )


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint with the closest known name, and the known ones where none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
