"""Wakes the threads of a process when there may be work, so that they need not poll tables.

One thread asks the database whether any process has committed: by ``PRAGMA data_version`` on
SQLite, by the current snapshot on PostgreSQL. Both change with each commit, take microseconds and
write nothing. Waiting threads are woken by a commit, when something becomes due, and every half
minute.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import reading
from newsletter.db.orm import Session

_log = logging.getLogger(__name__)
#: Seconds between two queries for commits.
_POLL_INTERVAL = 0.25
#: Seconds after which threads are woken again for work that is due and not done.
_REPEAT_INTERVAL = 1.0
#: The fewest seconds between two calls of the observers.
_OBSERVE_INTERVAL = 1.0
#: Seconds after which threads are woken, and observers called, in any case.
_MAX_INTERVAL = 30.0
#: Seconds to wait after a database error.
_RETRY_DELAY = 2.0

#: Finds when something becomes due next: now or earlier if something is due; None for nothing.
NextDue = Callable[[Session, datetime], datetime | None]


class Wakeups:
    """Counts wakeups. Read ``count`` before looking for work, then pass it to ``wait``."""

    def __init__(self, database: Engine, next_due: NextDue) -> None:
        self._database, self._next_due = database, next_due
        self._woken = threading.Condition()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.count = 0
        #: Called in the watching thread, with a session to read, within a second of each commit.
        self.observers: list[Callable[[Session], None]] = []

    def enter(self) -> None:
        """Add a waiting thread; the first one starts the watching thread."""
        with self._woken:
            self._users += 1
            if self._users == 1:
                self._ended = threading.Event()
                self._thread = threading.Thread(
                    target=self._watch, args=(self._ended,), name="wakeups", daemon=True
                )
                self._thread.start()

    def leave(self) -> None:
        """Remove a waiting thread; the last one ends the watching thread."""
        with self._woken:
            self._users -= 1
            thread = self._thread if self._users == 0 else None
            if thread is not None:
                self._ended.set()
        if thread is not None:
            thread.join()

    def wait(self, seen: int, stopping: threading.Event, timeout: float | None = None) -> None:
        """Wait for a wakeup after ``seen``, or for ``wake_all`` after ``stopping`` is set."""
        with self._woken:
            self._woken.wait_for(lambda: self.count != seen or stopping.is_set(), timeout)

    def wake_all(self) -> None:
        """Wake all waiting threads: there may be work, or they are to stop."""
        with self._woken:
            self.count += 1
            self._woken.notify_all()

    def _observe(self) -> None:
        if self.observers:
            with reading(self._database) as session:
                for observer in self.observers:
                    observer(session)

    def _watch(self, ended: threading.Event) -> None:
        commits = _Commits(self._database)
        known: object = None
        due: datetime | None = None
        is_due_known, woken, woken_at = False, time.monotonic(), datetime.now(UTC)
        observes, observed = True, -_OBSERVE_INTERVAL
        while not ended.wait(_POLL_INTERVAL):
            try:
                latest, now = commits.latest(), datetime.now(UTC)
                wakes = latest != known
                if wakes:
                    known, is_due_known = latest, False
                elif not is_due_known:
                    # Only without commits: each commit wakes the threads anyway.
                    with reading(self._database) as session:
                        due = self._next_due(session, now)
                    is_due_known = True
                observes |= wakes or time.monotonic() - woken >= _MAX_INTERVAL
                # Before the threads are woken, so that they know what the observers found.
                if observes and time.monotonic() - observed >= _OBSERVE_INTERVAL:
                    observes, observed = False, time.monotonic()
                    self._observe()
                passed = time.monotonic() - woken
                if is_due_known and due is not None and due <= now:
                    wakes = due > woken_at or passed >= _REPEAT_INTERVAL
                if wakes or passed >= _MAX_INTERVAL:
                    is_due_known = False
                    woken, woken_at = time.monotonic(), now
                    self.wake_all()
            except Exception:  # noqa: BLE001 (the thread must survive any error, all others need it)
                _log.exception("could not look for due work; trying again")
                commits.close()
                known = None
                ended.wait(_RETRY_DELAY)
        commits.close()


class _Commits:
    """Queries the latest commit, on its own connection, which writes nothing."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._connection: Any = None

    def latest(self) -> object:
        """A value that differs after each commit of any connection."""
        if self._connection is None:
            self._connection = dedicated_connection(self._database)
        if not is_postgresql(self._database):
            return self._connection.execute("PRAGMA data_version").fetchone()[0]
        # Equal snapshots see the same rows. A cursor would cost three times as much as everything
        # else that an idle process does.
        found = self._connection.pgconn.exec_(b"SELECT pg_current_snapshot()")
        if (snapshot := found.get_value(0, 0)) is None:
            raise ConnectionError(found.error_message.decode(errors="replace"))
        return snapshot

    def close(self) -> None:
        """Close the connection; ``latest`` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


def dedicated_connection(database: Engine) -> Any:  # noqa: ANN401 (the driver's own)
    """A connection of the driver, outside the pool and any transaction; the caller closes it."""
    pooled = database.raw_connection()
    connection: Any = pooled.driver_connection
    pooled.detach()
    if is_postgresql(database):
        connection.autocommit = True
    return connection
