"""Opens the database, runs transactions, and checks and upgrades the schema version.

SQLite runs in WAL mode with ``synchronous=FULL``: a commit is on disk before a request to the
provider is made, so that not even a power failure can lose the record of it.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import orjson
from sqlalchemy import URL, Connection, create_engine, event, inspect, text
from sqlalchemy import Engine as Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import DatabaseError as DriverError
from sqlalchemy.exc import SQLAlchemyError as SQLAlchemyError

from newsletter.db import private_files
from newsletter.db.dialect import is_postgresql, with_snapshots
from newsletter.db.orm import Session
from newsletter.errors import DatabaseError

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: The version of the first release; migrations begin with it.
_FIRST = "0100"
#: The version of a database into which another one is being copied, so that nothing else opens it.
COPYING = "copying"
_MIGRATIONS = Path(__file__).parents[1] / "migrations"
#: PostgreSQL's code for a deadlock, whose victim may retry, and the number of retries.
_DEADLOCK, _DEADLOCKS = "40P01", 3
#: PostgreSQL's code for a serialization failure: another transaction changed the same rows.
_SERIALIZATION_FAILURE = "40001"
_IN_MEMORY = {None, "", ":memory:"}
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "busy_timeout=30000",
    "cache_size=-4000",  # KiB, of each connection: memory stays flat
)


def open_database(url: str, *, connections: int = 10) -> Engine:
    """An engine for ``sqlite:///PATH`` or ``postgresql://…``; the schema is not checked.

    Raises DatabaseError if the URL is malformed or the database cannot be opened.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in {"postgresql", "postgres"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        if "@" in (parsed.host or ""):
            raise _bad_address("the password has an @, which must be written %40")
        _make_file(parsed)
        # Parameters may be email addresses, so they are kept out of error messages and logs.
        engine = create_engine(
            parsed,
            hide_parameters=True,
            pool_size=connections,
            max_overflow=10,
            pool_pre_ping=True,
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
        )
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise _bad_address(str(error)) from None
    except ValueError:
        # The error's message may have a part of the password.
        raise _bad_address("the port is not a number, or a character must be escaped") from None
    except OSError as error:
        raise DatabaseError(
            f"the folder cannot be created: {error}", place="database_url"
        ) from None
    if is_postgresql(engine):
        _configure_postgresql(engine)
    else:
        _configure_sqlite(engine)
    try:
        with engine.connect():
            return engine
    except ProgrammingError as error:  # an unknown option in the URL
        raise _bad_address(_reason(error)) from None
    except OperationalError as error:
        reason = _reason(error)
        raise DatabaseError(
            f"cannot open the database: {reason}",
            place="database_url",
            hint="Is the server running? Are name, user and password right?",
        ) from None
    except DriverError as error:
        raise failed(error) or error from None


def beside(url: str, folder: str) -> Path:
    """The path of a folder in the settings, for a database at this URL.

    A relative path starts at the folder of SQLite's file, so that a command started anywhere
    finds it. With PostgreSQL it starts at the working directory.
    """
    file = sqlite_file(url)
    return Path(folder) if file is None or Path(folder).is_absolute() else file.parent / folder


def sqlite_file(url: str) -> Path | None:
    """The path of SQLite's file; None for another database.

    It is resolved, so that links to one file have the same folder.
    """
    parsed = make_url(url)
    path = str(parsed.database or "")
    if parsed.get_backend_name() != "sqlite" or path in _IN_MEMORY:
        return None
    if path.startswith("file:"):  # SQLite's own URL format
        path = unquote(urlsplit(path).path)
    return Path(path).resolve()


def _make_file(url: URL) -> None:
    """Create SQLite's file before SQLite does, private; its WAL gets the same mode."""
    if url.get_backend_name() != "sqlite" or url.database in _IN_MEMORY:
        return
    path = Path(str(url.database))
    private_files.make_folder(path.parent)
    # A URI may forbid the creation.
    if not path.name.startswith("file:"):
        private_files.make(path)


def _bad_address(why: str) -> DatabaseError:
    return DatabaseError(
        f"not a database URL: {why}",
        place="database_url",
        hint="Use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.",
    )


def failed(error: Exception) -> DatabaseError | None:
    """The error to show for an error of the database; None for any other error.

    SQLite's driver raises the base class DatabaseError itself for a file that is damaged,
    truncated or not a database, and subclasses for errors in a statement or a row.
    """
    if isinstance(error, OperationalError):
        return DatabaseError(f"the database failed: {_reason(error)}", place="database_url")
    if type(error) is DriverError:
        return DatabaseError(
            f"the file is damaged or not a database: {_reason(error)}",
            place="database_url",
            hint="Restore a backup (docs/guides/backup-and-restore.md), or use another file.",
        )
    return None


def _reason(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def _configure_sqlite(engine: Engine) -> None:
    """Use BEGIN IMMEDIATE: writers wait at BEGIN instead of failing half-way (SQLITE_BUSY)."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: SQLiteConnection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _configure_postgresql(engine: Engine) -> None:
    """Make the planner prefer the index for a thousand keys, also in a small table."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 (the driver's own)
        connection.autocommit = True
        # The default of 4 is for hard disks.
        connection.execute("SET random_page_cost = 1.1")
        connection.autocommit = False


@contextmanager
def _write_lock(path: str | None) -> Iterator[None]:
    """Wait for the exclusive right to write to an SQLite file, among all threads and processes.

    SQLite's own lock polls with growing pauses, so two busy writers would mostly sleep. It still
    protects the data from programs that do not use this lock.
    """
    if path is None:
        yield
        return
    # A separate file: closing the database file would drop SQLite's own locks on it.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    file = os.open(f"{path}-turn", flags, private_files.FILE_MODE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@contextmanager
def transaction(engine: Engine, *, snapshot: bool = False) -> Iterator[Session]:
    """A session that commits all changes at the end of the block, or none.

    With ``snapshot``, all statements see the database as of the beginning, as always on SQLite.
    """
    path = None if is_postgresql(engine) else engine.url.database
    engine = with_snapshots(engine) if snapshot else engine
    with _write_lock(path), Session(engine) as session, session.begin():
        yield session


def retry_on_deadlock(engine: Engine, work: Callable[[Session], T]) -> T:
    """Run ``work`` in a transaction of its own, again after a deadlock; returns its result."""
    for _ in range(_DEADLOCKS):
        try:
            with transaction(engine) as session:
                return work(session)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _DEADLOCK:
                raise
    with transaction(engine) as session:
        return work(session)


@contextmanager
def ignore_serialization_conflict(work: str) -> Iterator[None]:
    """Let the transaction in the block be rolled back if another one wrote the same rows first.

    For periodic work: the next run finds it done, or does it. ``work`` names it in the log.
    """
    try:
        yield
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) not in {_SERIALIZATION_FAILURE, _DEADLOCK}:
            raise
        _log.info("%s: another process did the same; the next run checks again", work)


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A read-only session: one consistent view, without waiting for writers."""
    with (
        engine.connect().execution_options(reading=True) as connection,
        Session(connection) as session,
    ):
        yield session


def responds(engine: Engine) -> bool:
    """Whether the database answers; the log says why not."""
    try:
        with reading(engine) as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        _log.exception("the database does not answer")
        return False
    return True


def is_missing_file(url: str) -> bool:
    """Whether this is the URL of a SQLite file that does not exist; to open it would create it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return False
    file = parsed.database
    return parsed.get_backend_name() == "sqlite" and bool(file) and not Path(str(file)).exists()


def upgrade(
    engine: Engine, *, prepare: Callable[[str, str], None] | None = None
) -> tuple[str | None, str]:
    """Upgrade the schema to this code's version; returns the versions before and after.

    One process upgrades at a time; the others wait, however long it takes, and find it done.
    ``prepare`` gets both versions before a database with tables is changed, and may raise.
    """
    # Imported late: it takes 11 MB and a sixth of a second, and upgrades are rare.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    # Otherwise alembic's messages would appear in the command's output.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    path = None if is_postgresql(engine) else engine.url.database
    with _write_lock(path), engine.connect() as connection:
        if is_postgresql(engine):
            # The transaction is idle during the backup, however long that takes.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('schema upgrade'))"))
        before = check_version(engine)
        if prepare is not None and before not in {None, _head()}:
            prepare(before, _head())
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return before, _head()


def check_version(engine: Engine) -> str | None:
    """The schema's version; None for an empty database.

    Raises DatabaseError for a database of a newer release, whose rows this code may misread, and
    for one from before the first release, which no migration upgrades.
    """
    current = None
    with engine.connect().execution_options(reading=True) as connection:
        if inspect(connection).has_table("alembic_version"):
            current = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if current is not None and current < _FIRST:
        raise DatabaseError(
            f"the database is of version {current}, from before the first release, and cannot be "
            "upgraded",
            place="database_url",
            hint="With the program that made it, run `newsletter subscribers export people.csv`. "
            "Set database_url to a new database, run `newsletter db upgrade` and "
            "`newsletter subscribers import people.csv` with this program, and save the issues "
            "again from their files.",
        )
    if current == COPYING:
        raise DatabaseError(
            "another database is being copied into this one, and that has not ended",
            place="database_url",
            hint="Run `newsletter db copy` again, which continues, or use a new database.",
        )
    if current is not None and current not in _versions():
        raise DatabaseError(
            f"the database has version {current}, but this program supports up to {_head()}",
            place="database_url",
            hint="Install the newer release of newsletter that made it, or restore a backup.",
        )
    return current


def require_known_version(session: Session) -> None:
    """Raise DatabaseError if a newer release has upgraded the database since this one opened it."""
    current = session.scalar(text("SELECT version_num FROM alembic_version"))
    if current not in _versions():
        raise DatabaseError(
            f"another process has upgraded the database to version {current}, but this program "
            f"supports up to {_head()}",
            place="database_url",
            hint="Start the newer release of newsletter here too (docs/guides/upgrade.md).",
        )


def supports_version(version: str) -> bool:
    """Whether this program can open or upgrade a database of this version."""
    return version >= _FIRST and version in _versions()


def require_current(engine: Engine) -> None:
    """Raise DatabaseError unless the schema is up to date; an empty SQLite file gets its tables."""
    current = check_version(engine)
    if current == _head():
        return
    if current is None and not is_postgresql(engine):
        upgrade(engine)
        return
    if current is None:
        raise DatabaseError(
            "the database has no tables yet",
            place="database_url",
            hint="Run `newsletter db upgrade`, or start the service with `--upgrade`.",
        )
    raise DatabaseError(
        f"the database is of version {current}, and this program needs version {_head()}",
        place="database_url",
        hint="Start the service with `newsletter serve --upgrade`, which makes a backup first, or "
        "make one and run `newsletter db upgrade` (docs/guides/upgrade.md).",
    )


def _head() -> str:
    return max(_versions())


@cache
def _versions() -> frozenset[str]:
    """The versions of all migrations, with which their file names begin.

    Read once, because a newer release may be installed over this one while it runs.
    """
    files = (_MIGRATIONS / "versions").glob("[0-9]*.py")
    return frozenset(file.name.partition("_")[0] for file in files)
