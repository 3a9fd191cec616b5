"""Makes a consistent copy of a SQLite database while other processes write to it.

The file alone is not the database: the latest commits are in the write-ahead log beside it.
SQLite's backup API copies both as of one moment (sqlite.org/backup.html).
"""

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from newsletter.errors import DatabaseError, MachineError

#: Pages copied at a time: writers wait no longer than for one such step.
_PAGES = 2000


def backup(url: str, target: Path) -> int:
    """Write a copy of the database at ``url`` to a new file; returns its size in bytes.

    The file gets its name only when it is complete, checked, and synced to disk. Only its owner
    may read it.

    Raises DatabaseError for PostgreSQL, which has its own tools, and if the database is missing or
    damaged; MachineError if the file exists or cannot be written.
    """
    try:
        where = make_url(url)
    except ArgumentError:
        raise DatabaseError("not a database address", place="database_url") from None
    if where.get_backend_name() != "sqlite" or not where.database:
        raise DatabaseError(
            "this command backs up SQLite databases only",
            place="database_url",
            hint="For PostgreSQL: pg_dump --format=custom --file=newsletter.dump "
            "--exclude-schema=procrastinate DATABASE, and pg_restore to put it back; or your "
            "server's own backups.",
        )
    source = Path(where.database)
    if not source.is_file():
        raise DatabaseError("there is no database", place=f"database_url: {source}")
    taken = MachineError(
        "this file exists already, and backups are never overwritten",
        place=str(target),
        hint="Use a new name, for example with the date.",
    )
    if target.exists() or target.is_symlink():
        raise taken
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _copy(source, beside)
        _to_disk(beside)
        # Linked, not renamed: a file of this name that appeared meanwhile is not overwritten.
        os.link(beside, target)
        _to_disk(target.parent)
        return target.stat().st_size
    except FileExistsError:
        raise taken from None
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MachineError(f"the backup cannot be written: {reason}", place=str(target)) from None
    except sqlite3.DatabaseError as error:
        raise DatabaseError(
            f"the database is damaged: {error}",
            place=str(source),
            hint="Restore an earlier backup.",
        ) from None
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as a, closing(sqlite3.connect(target)) as b:
        # One transaction for all pages: otherwise each commit of others restarts the copy.
        a.isolation_level = None
        a.execute("BEGIN")
        a.execute("SELECT count(*) FROM sqlite_master").fetchone()
        a.backup(b, pages=_PAGES)
        a.execute("COMMIT")
        # A single file, without a log beside it.
        b.execute("PRAGMA journal_mode=DELETE")
        found = [row[0] for row in b.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError(found[0])


def _to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
