"""Leader election: the process that holds a lock runs the clock. The lock ends with the process.

On SQLite the lock is an operating system lock on a file beside the database. On PostgreSQL it is a
session's advisory lock. The server ends a session that is idle for ten seconds, so a process that
hangs, or a machine that fails, also loses the lock. Neither writes to the database.
"""

import fcntl
import os
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy import Engine, text

from newsletter.db import private_files
from newsletter.db.dialect import is_postgresql
from newsletter.db.engine import reading
from newsletter.wakeups import dedicated_connection

#: The most seconds between two calls of ``hold``. The server waits for three of them.
RENEW = 3.0
_SESSION_TIMEOUT = "10s"
_LOCK = "pg_try_advisory_lock(hashtext('newsletter clock'))"
#: An advisory lock with one key has its halves in two columns (PostgreSQL, "pg_locks").
_IS_LOCKED = """
    SELECT EXISTS (
        SELECT 1 FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND ((classid::bigint << 32) | objid::bigint) = hashtext('newsletter clock')::bigint)
"""


class Leadership(Protocol):
    """The lock of the process that runs the clock."""

    def hold(self) -> bool:
        """Acquire or keep the lock; False while another process has it."""
        ...

    def release(self) -> None:
        """Release the lock, so that another process can acquire it."""
        ...


def leadership(database: Engine) -> Leadership:
    """The lock for the clock of this database."""
    if is_postgresql(database):
        return _SessionLock(database)
    return _FileLock(database.url.database)


def is_held(database: Engine) -> bool:
    """Whether a process runs the clock. Only reads."""
    if is_postgresql(database):
        with reading(database) as session:
            return session.scalar(text(_IS_LOCKED)) is True
    if (path := database.url.database) is None:
        return False
    try:
        file = os.open(f"{path}-clock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # A process that wants the lock in this moment tries again a few seconds later.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


class _FileLock:
    def __init__(self, path: str | None) -> None:
        self._path, self._file = path, -1

    def hold(self) -> bool:
        if self._path is None or self._file >= 0:
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        file = os.open(f"{self._path}-clock", flags, private_files.FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class _SessionLock:
    def __init__(self, database: Engine) -> None:
        self._database = database
        self._connection: Any = None
        self._held = False

    def hold(self) -> bool:
        try:
            if self._connection is None:
                self._connection = dedicated_connection(self._database)
                self._connection.execute(f"SET idle_session_timeout = '{_SESSION_TIMEOUT}'")
            # An answer shows that the session is alive and still has its locks.
            expression = "true" if self._held else _LOCK
            self._held = bool(self._connection.execute(f"SELECT {expression}").fetchone()[0])
        except Exception:
            self.release()
            raise
        return self._held

    def release(self) -> None:
        connection, self._connection, self._held = self._connection, None, False
        if connection is not None:
            with suppress(Exception):
                connection.close()
