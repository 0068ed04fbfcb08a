"""Keeps the chatter of exporters and quantizers off the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Generator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """No prints, warnings or log lines below critical: what matters is checked on the graph."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    output = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(output):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(output):
                yield
    finally:
        logging.disable(level)
