"""A copy of a SQLite database that is whole, made while others write to it.

The file alone is not the database: what was committed last stands in the write-ahead log beside
it. SQLite's backup API copies both as of one moment (sqlite.org/backup.html).
"""

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from newsletter.errors import DatabaseError, MachineError

#: Pages copied at a time: writers wait for no longer than one of these takes.
_PAGES = 2000


def backup(url: str, target: Path) -> int:
    """Write a copy of the database at ``url`` to a file that is not there yet; returns its bytes.

    The file appears under its name when it is whole, was found sound, and is on the disk. Only
    its owner may read it.

    Raises DatabaseError for PostgreSQL, which has its own tools, and when there is no database or
    it is damaged; MachineError when the file is there or cannot be written.
    """
    try:
        where = make_url(url)
    except ArgumentError:
        raise DatabaseError("not a database address", place="database_url") from None
    if where.get_backend_name() != "sqlite" or not where.database:
        raise DatabaseError(
            "only a SQLite database is backed up by this program",
            place="database_url",
            hint="For PostgreSQL: pg_dump --format=custom --file=newsletter.dump "
            "--exclude-schema=procrastinate DATABASE, and pg_restore to put it back; or your "
            "server's own backups.",
        )
    source = Path(where.database)
    if not source.is_file():
        raise DatabaseError("there is no database", place=f"database_url: {source}")
    taken = MachineError(
        "this file is there already, and no backup is written over",
        place=str(target),
        hint="Name a new file, say with the date in it.",
    )
    if target.exists() or target.is_symlink():
        raise taken
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _copy(source, beside)
        _to_disk(beside)
        # Not replaced: a name that was taken meanwhile is refused as well.
        os.link(beside, target)
        _to_disk(target.parent)
        return target.stat().st_size
    except FileExistsError:
        raise taken from None
    except (OSError, sqlite3.OperationalError) as error:
        said = getattr(error, "strerror", None) or error
        raise MachineError(f"the backup cannot be written: {said}", place=str(target)) from None
    except sqlite3.DatabaseError as error:
        raise DatabaseError(
            f"the database is damaged: {error}",
            place=str(source),
            hint="Put an earlier backup back.",
        ) from None
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as a, closing(sqlite3.connect(target)) as b:
        # One view from the first page to the last: else each commit of others begins it anew.
        a.isolation_level = None
        a.execute("BEGIN")
        a.execute("SELECT count(*) FROM sqlite_master").fetchone()
        a.backup(b, pages=_PAGES)
        a.execute("COMMIT")
        # A file of its own, without a log beside it.
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
