"""Limits repeated log lines, so that outsiders cannot fill the disk by causing them."""

import logging
import threading
from typing import Final

#: The most lines of one kind within this many seconds; further ones are only counted.
_MOST: Final = 20
_WITHIN: Final = 60.0
#: The most kinds to remember. A kind is a log call in the code, so there are few.
_KINDS: Final = 1000


class Repeats(logging.Filter):
    """Passes each kind of line a few times per minute, then reports how many it dropped.

    A kind is a log call: logger, level and the message without its values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        #: Kind → start of its period, and the number of lines since.
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes."""
        kind, now = (record.name, record.levelno, str(record.msg)), record.created
        with self._lock:
            if kind not in self._seen and len(self._seen) >= _KINDS:
                self._seen.clear()
            begun, count = self._seen.get(kind, (now, 0))
            dropped = 0
            if abs(now - begun) >= _WITHIN:
                dropped, begun, count = max(0, count - _MOST), now, 0
            self._seen[kind] = (begun, count + 1)
        if dropped:
            record.msg = f"{record.getMessage()} ({dropped:,} more like this were dropped)"
            record.args = None
        return count < _MOST


def install() -> None:
    """Filter all log lines of this process from now on."""
    repeats = Repeats()
    for handler in logging.getLogger().handlers:
        handler.addFilter(repeats)
