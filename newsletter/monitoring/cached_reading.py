"""A value that many may ask for and that is read rarely, in bounded time."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)
T = TypeVar("T")


class CachedReading(Generic[T]):
    """Calls ``read`` when asked, at most once in ``keep`` seconds and once at a time.

    A caller waits for it until ``wait`` seconds after it began. So a database that hangs costs one
    thread and one connection, however many clients ask.
    """

    def __init__(self, read: Callable[[], T], *, keep: float, wait: float) -> None:
        self._read, self._keep, self._wait = read, keep, wait
        self._lock = threading.Lock()
        self._value: T | None = None
        #: When the value was read; its end and its start while it is being read.
        self._read_at = float("-inf")
        self._done: threading.Event | None = None
        self._began = 0.0

    def get(self) -> T | None:
        """The value; None if it could not be read, or not in time."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at < self._keep:
                return self._value
            if self._done is None:
                self._done, self._began = threading.Event(), now
                threading.Thread(target=self._run, args=(self._done,), daemon=True).start()
            done, left = self._done, self._began + self._wait - now
        return self._value if done.wait(max(0.0, left)) else None

    def _run(self, done: threading.Event) -> None:
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 (whatever it is, the next reading may succeed)
            _log.warning("a reading for the monitoring failed: %s", type(error).__name__)
            value = None
        with self._lock:
            self._value, self._read_at, self._done = value, time.monotonic(), None
        done.set()
