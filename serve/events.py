"""Structured logs: one JSON object per event, through Ray Serve's logger.

Where ``logging_config.encoding`` is TEXT, the line's message is the object. Where it is JSON, Ray's
formatter has the object's fields at the top level, too, beside its own (``deployment``,
``replica``, ``application``, ``route``). A request that is answered well writes nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

__all__ = ["tell"]

_LOG = logging.getLogger("ray.serve")  # where a replica's log goes; the name alone, no import


def tell(
    event: str,
    fields: Mapping[str, object],
    *,
    level: int = logging.INFO,
    raised: BaseException | None = None,
) -> None:
    """Log an event.

    Args:
        event: its name: ``request_failed``, ``state_changed`` and so on.
        fields: JSON values; others are written as text. Those that are None are left out. A name
            that ``logging.LogRecord`` has of its own (``name``, ``args``) cannot be used.
        level: as in ``logging``; nothing is made of the fields where it is not logged.
        raised: its traceback goes along.
    """
    if not _LOG.isEnabledFor(level):
        return
    about = {"event": event, **{name: each for name, each in fields.items() if each is not None}}
    line = json.dumps(about, default=str)  # ASCII: an error may quote half of a character
    extra = json.loads(line)  # Ray's formatter takes nothing that JSON does not have
    _LOG.log(level, "%s", line, exc_info=raised, extra=extra, stacklevel=2)
    if level >= logging.INFO:
        for handler in _LOG.handlers:  # Ray may keep a thousand lines back before it writes them
            handler.flush()
