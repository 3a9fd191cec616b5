"""Tells the threads of a process when to look for work, so that nobody polls the tables.

One thread asks the database whether anything was committed, by this process or another: on
SQLite `PRAGMA data_version`, on PostgreSQL the current snapshot. Both answers change with each
commit, cost microseconds and write nothing. Whoever waits is woken by a commit, when the next
thing becomes due, and every half minute in any case.
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
#: Seconds between two questions whether anything was committed.
_PROBE = 0.25
#: What is due and stays undone is looked at again after this time, in seconds.
_AGAIN = 1.0
#: Everybody looks at least this often, in seconds, whatever was noticed.
_AT_LEAST = 30.0
#: After the database failed, in seconds.
_TROUBLED = 2.0

#: Finds when something becomes due next: now or earlier if something is due; None for nothing.
NextDue = Callable[[Session, datetime], datetime | None]


class Wakeups:
    """Counts the occasions to look for work. Take ``count`` before a look, then ``wait``."""

    def __init__(self, database: Engine, next_due: NextDue) -> None:
        self._database, self._next_due = database, next_due
        self._woken = threading.Condition()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self.count = 0

    def enter(self) -> None:
        """Begin to be woken; the first who enters starts the thread."""
        with self._woken:
            self._users += 1
            if self._users == 1:
                self._over = threading.Event()
                self._thread = threading.Thread(
                    target=self._watch, args=(self._over,), name="wakeups", daemon=True
                )
                self._thread.start()

    def leave(self) -> None:
        """Be woken no more; the last who leaves ends the thread."""
        with self._woken:
            self._users -= 1
            thread = self._thread if self._users == 0 else None
            if thread is not None:
                self._over.set()
        if thread is not None:
            thread.join()

    def wait(self, seen: int, stopping: threading.Event, timeout: float | None = None) -> None:
        """Wait until there is an occasion after ``seen``, or ``stopping`` is set (see rouse)."""
        with self._woken:
            self._woken.wait_for(lambda: self.count != seen or stopping.is_set(), timeout)

    def rouse(self) -> None:
        """Wake everybody: there may be something to do, or an end to notice."""
        with self._woken:
            self.count += 1
            self._woken.notify_all()

    def _watch(self, over: threading.Event) -> None:
        commits = _Commits(self._database)
        known: object = None
        due: datetime | None = None
        is_due_known, woken, woken_at = False, time.monotonic(), datetime.now(UTC)
        while not over.wait(_PROBE):
            try:
                latest, now = commits.latest(), datetime.now(UTC)
                wakes = latest != known
                if wakes:
                    known, is_due_known = latest, False
                elif not is_due_known:
                    # Only once it is quiet: while others commit, everybody looks all the time.
                    with reading(self._database) as session:
                        due = self._next_due(session, now)
                    is_due_known = True
                passed = time.monotonic() - woken
                if is_due_known and due is not None and due <= now:
                    wakes = due > woken_at or passed >= _AGAIN
                if wakes or passed >= _AT_LEAST:
                    is_due_known = False
                    woken, woken_at = time.monotonic(), now
                    self.rouse()
            except Exception:  # noqa: BLE001 (whatever it is, everybody here relies on this thread)
                _log.exception("it cannot be seen whether something is due; trying again")
                commits.close()
                known = None
                over.wait(_TROUBLED)
        commits.close()


class _Commits:
    """Asks what was committed last, on a connection of its own that writes nothing."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._connection: Any = None

    def latest(self) -> object:
        """A value that differs after each commit of any connection."""
        if self._connection is None:
            self._connection = kept_connection(self._database)
        if not is_postgresql(self._database):
            return self._connection.execute("PRAGMA data_version").fetchone()[0]
        # What a statement sees: equal snapshots see the same rows. Asked without a cursor, which
        # costs three times as much as all else that an idle process does.
        found = self._connection.pgconn.exec_(b"SELECT pg_current_snapshot()")
        if (snapshot := found.get_value(0, 0)) is None:
            raise ConnectionError(found.error_message.decode(errors="replace"))
        return snapshot

    def close(self) -> None:
        """End the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


def kept_connection(database: Engine) -> Any:  # noqa: ANN401 (the driver's own)
    """A connection of the driver, in no pool and no transaction; its user closes it."""
    pooled = database.raw_connection()
    connection: Any = pooled.driver_connection
    pooled.detach()
    if is_postgresql(database):
        connection.autocommit = True
    return connection
