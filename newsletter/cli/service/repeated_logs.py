"""Limits repeated log lines, so that outsiders cannot fill the disk by causing them."""

import logging
import threading
from typing import Final

#: Lines of one kind within so many seconds; the rest is counted.
_MOST: Final = 20
_WITHIN: Final = 60.0
#: Kinds that are remembered. A kind is a line of our own code, so there are few.
_KINDS: Final = 1000


class Repeats(logging.Filter):
    """Passes each kind of line a few times a minute, then reports how many it dropped.

    A kind is what stands in the code: logger, level and the message before its values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        #: Kind → when its minute began, and how many came since.
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes."""
        kind, now = (record.name, record.levelno, str(record.msg)), record.created
        with self._lock:
            if kind not in self._seen and len(self._seen) >= _KINDS:
                self._seen.clear()
            begun, count = self._seen.get(kind, (now, 0))
            left_out = 0
            if abs(now - begun) >= _WITHIN:
                left_out, begun, count = max(0, count - _MOST), now, 0
            self._seen[kind] = (begun, count + 1)
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out:,} more like this were left out)"
            record.args = None
        return count < _MOST


def install() -> None:
    """Filter all log lines of this process from now on."""
    repeats = Repeats()
    for handler in logging.getLogger().handlers:
        handler.addFilter(repeats)
