"""Writes a consistent copy of a database to a file while others use it, and reads it back in.

A SQLite file alone is not the database: the latest commits are in the write-ahead log beside it.
SQLite's backup API copies both as of one moment (sqlite.org/backup.html). PostgreSQL has its own
tools for this, pg_dump and pg_restore, which have to be at least as new as the server.
"""

import os
import re
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.engine import URL

from newsletter.db import private_files, programs
from newsletter.db.dialect import is_postgresql, with_snapshots
from newsletter.db.orm import Session
from newsletter.errors import DatabaseError, MachineError, UserError

#: Whether the work should end, because the process does.
Stopped = Callable[[], bool]
#: Only holds hints, and is created again (newsletter/sending/workers/procrastinate_queue.py).
_NOT_COPIED: Final = "procrastinate"
#: Pages copied at a time: writers wait no longer than for one such step.
_PAGES = 2000
#: Steps of SQLite's machine between two looks whether the check of the copy should be stopped.
_STEPS = 1_000_000


class BackupStoppedError(UserError):
    """The backup was stopped before its end, and nothing is left of it."""


@contextmanager
def copied(engine: Engine, file: Path, *, stopped: Stopped = lambda: False) -> Iterator[Session]:
    """Write a copy of the database to a new file; the session reads the database as of the copy.

    Only the owner may read the file. It is checked, and not synced to disk yet.

    Raises DatabaseError if the database is damaged; MachineError if a tool of PostgreSQL is
    missing, too old or fails; OSError if the file cannot be written.
    """
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private_files.FILE_MODE))
    write = _copied_postgresql if is_postgresql(engine) else _copied_sqlite
    with write(engine, file, stopped) as session:
        yield session


def dump_tool(engine: Engine) -> int | None:
    """The major version of pg_dump, which is written into the backup; None on SQLite.

    Raises MachineError if it is missing or older than the server.
    """
    if not is_postgresql(engine):
        return None
    return _tool("pg_dump", at_least=_server_version(engine))[1]


def put_back_sqlite(file: Path, target: Path) -> None:
    """Make the copy in ``file`` the database at this path: all of it or nothing.

    Raises DatabaseError if there is a database meanwhile; OSError if it cannot be written.
    """
    private_files.make_folder(target.parent)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        copy_file(file, beside)
        require_no_file(target)
        if target.exists():
            beside.rename(target)
        else:
            # Linked, not renamed: a file that appeared meanwhile is not overwritten.
            os.link(beside, target)
        sync(target.parent)
    finally:
        beside.unlink(missing_ok=True)


def put_back_postgresql(file: Path, engine: Engine, *, dumped_by: int) -> None:
    """Fill the empty database from the copy in ``file``: with all of it or nothing.

    Raises MachineError if pg_restore is missing, older than the pg_dump that wrote the file
    (``dumped_by``), or fails.
    """
    tool, _ = _tool("pg_restore", at_least=dumped_by)
    options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
    _run(
        [tool, *options, "--no-password", f"--dbname={_address(engine.url)}", str(file)],
        password=engine.url.password,
    )


def require_no_file(path: Path) -> None:
    """Raise DatabaseError if there is a SQLite database with tables at this path."""
    if path.exists() and path.stat().st_size:
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
                names = [row[0] for row in file.execute("SELECT name FROM sqlite_master")]
        except sqlite3.DatabaseError as error:
            raise DatabaseError(
                f"there is a file already, which is no empty database: {error}", place=str(path)
            ) from None
        _require_none(names, str(path))
    for suffix in ("-wal", "-journal"):
        log = path.with_name(path.name + suffix)
        if log.exists() and log.stat().st_size:
            raise DatabaseError(
                "this file belongs to a database that was here, and would damage another one",
                place=str(log),
                hint="Move it away together with its database.",
            )


def require_no_tables(engine: Engine) -> None:
    """Raise DatabaseError if the database has tables."""
    found = inspect(engine)
    schemas = set(found.get_schema_names()) - {"information_schema", _NOT_COPIED}
    names = [name for schema in sorted(schemas) for name in found.get_table_names(schema)]
    _require_none(names, "database_url")


def _require_none(names: Sequence[str], place: str) -> None:
    if names:
        raise DatabaseError(
            f"the database is not empty: it has the table {names[0]}",
            place=place,
            hint="Name an empty database with --to, or move this one away. Nothing was changed.",
        )


@contextmanager
def _copied_sqlite(engine: Engine, file: Path, stopped: Stopped) -> Iterator[Session]:
    try:
        _copy_pages(engine, file, stopped)
    except sqlite3.OperationalError as error:
        if stopped():
            raise _stopped() from None
        raise OSError(0, str(error)) from None
    except sqlite3.DatabaseError as error:
        raise DatabaseError(
            f"the database is damaged: {error}",
            place=str(engine.url.database),
            hint="Restore an earlier backup.",
        ) from None
    copy = create_engine(f"sqlite:///{file}")
    try:
        with Session(copy) as session:
            yield session
    finally:
        copy.dispose()


def _copy_pages(source: Engine, target: Path, stopped: Stopped) -> None:
    def step(_status: int, _remaining: int, _total: int) -> None:
        if stopped():
            raise _stopped()

    with closing(source.raw_connection()) as pooled, closing(sqlite3.connect(target)) as copy:
        connection = pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        # One transaction for all pages: otherwise each commit of others restarts the copy.
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.backup(copy, pages=_PAGES, progress=step)
        connection.execute("COMMIT")
        # A single file, without a log beside it.
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.set_progress_handler(stopped, _STEPS)
        found = [row[0] for row in copy.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError(found[0])


def copy_file(source: Path, target: Path) -> None:
    """Copy to a new file, private and synced to disk; FileExistsError if there is one."""
    with source.open("rb") as read, open(target, "xb", opener=private_files.opener) as write:
        try:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())
        except BaseException:
            target.unlink()
            raise


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _copied_postgresql(engine: Engine, file: Path, stopped: Stopped) -> Iterator[Session]:
    dump, version = _tool("pg_dump", at_least=_server_version(engine))
    restore, _ = _tool("pg_restore", at_least=version)
    with with_snapshots(engine).connect() as connection:
        # The transaction is idle while pg_dump reads, however long that takes.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
        _run(
            [
                dump,
                "--format=custom",
                f"--exclude-schema={_NOT_COPIED}",
                f"--snapshot={snapshot}",
                "--no-password",
                f"--file={file}",
                f"--dbname={_address(engine.url)}",
            ],
            password=engine.url.password,
            stopped=stopped,
        )
        # Reads all of the file, and writes the script that it contains nowhere.
        _run([restore, f"--file={os.devnull}", str(file)], stopped=stopped)
        with Session(connection) as session:
            yield session


def _server_version(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SHOW server_version_num"))) // 10_000


def _tool(name: str, *, at_least: int) -> tuple[str, int]:
    """The path and the major version of a tool of PostgreSQL on PATH."""
    path = shutil.which(name)
    hint = (
        f"Install the client programs of PostgreSQL{f' {at_least}' if at_least else ''} (on "
        f"Debian and Ubuntu the package postgresql-client{f'-{at_least}' if at_least else ''}), "
        "and put them on PATH before older ones."
    )
    if path is None:
        raise MachineError(f"the program {name} is not installed", place="PATH", hint=hint)
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r"\d+", said.stdout)
    if found is None:
        raise MachineError(f"the program does not work: {said.stderr.strip()}", place=path)
    if int(found[0]) < at_least:
        raise MachineError(
            f"the program is of version {found[0]}, and version {at_least} is needed",
            place=path,
            hint=hint,
        )
    return path, int(found[0])


def _run(
    words: Sequence[str], *, password: str | None = None, stopped: Stopped = lambda: False
) -> None:
    if stopped():
        raise _stopped()
    # Other users can see the arguments of a process, but not its environment.
    environment = {"PGPASSWORD": password} if password else {}
    code, lines = programs.run(words, environment=environment, stopped=stopped)
    if code and stopped():
        raise _stopped()
    if code:
        said = lines[0] if lines else f"exit code {code}"
        raise MachineError(f"the program failed: {said}", place=words[0])


def _address(url: URL) -> str:
    """The URL as PostgreSQL's tools read it, without the password."""
    # set() cannot remove a password.
    plain = URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    )
    return plain.render_as_string(hide_password=False)


def _stopped() -> BackupStoppedError:
    return BackupStoppedError("the backup was stopped before its end, and nothing is left of it")
