"""Which process runs the clock: whoever holds a lock that ends with its process.

On SQLite it is a lock of the operating system on a file beside the database. On PostgreSQL it is
an advisory lock of a session; the server ends that session when it hears nothing of it for ten
seconds, so a process that hangs, or a machine that is gone, loses the lock as well. Neither
writes anything to the database.
"""

import fcntl
import os
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy import Engine

from newsletter.db import private_files
from newsletter.db.dialect import is_postgresql
from newsletter.wakeups import kept_connection

#: Seconds between two calls of ``hold``, at most; the server waits for three of them.
RENEW = 3.0
_SILENT = "10s"
_LOCK = "pg_try_advisory_lock(hashtext('newsletter clock'))"


class Leadership(Protocol):
    """The right to run the clock, which one process has at a time."""

    def hold(self) -> bool:
        """Take the right, or make sure that it is still held; False while another has it."""
        ...

    def give_back(self) -> None:
        """Let another process have it."""
        ...


def leadership(database: Engine) -> Leadership:
    """The right to run the clock of this database."""
    if is_postgresql(database):
        return _SessionLock(database)
    return _FileLock(database.url.database)


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

    def give_back(self) -> None:
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
                self._connection = kept_connection(self._database)
                self._connection.execute(f"SET idle_session_timeout = '{_SILENT}'")
            # The answer shows that the session lives, and its locks with it.
            asked = "true" if self._held else _LOCK
            self._held = bool(self._connection.execute(f"SELECT {asked}").fetchone()[0])
        except Exception:
            self.give_back()
            raise
        return self._held

    def give_back(self) -> None:
        connection, self._connection, self._held = self._connection, None, False
        if connection is not None:
            with suppress(Exception):
                connection.close()
