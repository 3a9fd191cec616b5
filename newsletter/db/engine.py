"""The database: opening it, one transaction at a time, and knowing its version.

SQLite runs in WAL mode with ``synchronous=FULL``: a commit is on disk before a
request leaves, so that even a power cut cannot make us forget that it left.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import DatabaseError as DriverError

from newsletter.db import private_files
from newsletter.db.orm import Session
from newsletter.errors import DatabaseError

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: The version of the first release; migrations begin with it.
_FIRST = "0100"
_MIGRATIONS = Path(__file__).parents[1] / "migrations"
#: PostgreSQL's code for a deadlock, whose victim may simply try again, and how often it does.
_DEADLOCK, _DEADLOCKS = "40P01", 3
#: The same for a snapshot whose rows somebody else has changed since.
_OVERTAKEN = "40001"
_IN_MEMORY = {None, "", ":memory:"}
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "busy_timeout=30000",
    "cache_size=-4000",  # KiB, of each connection: memory stays flat
)


def open_database(url: str, *, connections: int = 10) -> Engine:
    """An engine for ``sqlite:///PATH`` or ``postgresql://…``; the schema is not looked at.

    Raises DatabaseError when the URL cannot be read or the database not be opened.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in {"postgresql", "postgres"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        if "@" in (parsed.host or ""):
            raise _bad_address("the password holds an @, which is written %40")
        _make_file(parsed)
        # Parameters hold addresses: they stay out of error messages and logs.
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
        # Its words may be a part of the password.
        raise _bad_address("its port is no number, or a sign in it has to be escaped") from None
    except OSError as error:
        raise DatabaseError(f"the folder cannot be made: {error}", place="database_url") from None
    if engine.dialect.name == "sqlite":
        _teach_sqlite(engine)
    else:
        _teach_postgresql(engine)
    try:
        with engine.connect():
            return engine
    except ProgrammingError as error:  # an option in the address that the driver does not know
        raise _bad_address(_reason(error)) from None
    except OperationalError as error:
        reason = _reason(error)
        raise DatabaseError(
            f"cannot open the database: {reason}",
            place="database_url",
            hint="Is the server running, and do the name, user and password fit?",
        ) from None
    except DriverError as error:
        raise failed(error) or error from None


def beside(url: str, folder: str) -> Path:
    """Where a folder of the settings is, for a database at this address.

    A relative one stands beside SQLite's file, from wherever a command is started: what belongs
    to a database is found by whoever opens it. With PostgreSQL it starts at the working directory.
    """
    parsed = make_url(url)
    path = str(parsed.database or "")
    if parsed.get_backend_name() != "sqlite" or path in _IN_MEMORY or Path(folder).is_absolute():
        return Path(folder)
    if path.startswith("file:"):  # SQLite's own kind of address
        path = unquote(urlsplit(path).path)
    # One file by two names has one folder.
    return Path(path).resolve().parent / folder


def _make_file(url: URL) -> None:
    """Make SQLite's file before SQLite does: private, and its WAL gets the same mode."""
    if url.get_backend_name() != "sqlite" or url.database in _IN_MEMORY:
        return
    path = Path(str(url.database))
    private_files.make_folder(path.parent)
    # A URI may say that nothing is to be made.
    if not path.name.startswith("file:"):
        private_files.make(path)


def _bad_address(why: str) -> DatabaseError:
    return DatabaseError(
        f"not a database address: {why}",
        place="database_url",
        hint="Use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.",
    )


def failed(error: Exception) -> DatabaseError | None:
    """What to tell an operator of an error that the database gave; None for any other error.

    SQLite calls a file that is damaged, cut off or no database by one class of errors, which
    stands above all others: what is wrong with a statement or a row is none of those.
    """
    if isinstance(error, OperationalError):
        return DatabaseError(f"the database failed: {_reason(error)}", place="database_url")
    if type(error) is DriverError:
        return DatabaseError(
            f"the file is damaged or no database: {_reason(error)}",
            place="database_url",
            hint="Put a backup back (docs/backup.md), or name another file.",
        )
    return None


def _reason(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


def _teach_sqlite(engine: Engine) -> None:
    """Real transactions: writers queue at BEGIN instead of failing half-way (SQLITE_BUSY)."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: SQLiteConnection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _teach_postgresql(engine: Engine) -> None:
    """A thousand people are found by their keys, also in a list that could be read whole."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 (the driver's own)
        connection.autocommit = True
        # The default of 4 is for disks that turn.
        connection.execute("SET random_page_cost = 1.1")
        connection.autocommit = False


@contextmanager
def _turn(path: str | None) -> Iterator[None]:
    """Wait for the turn to write to an SQLite file, among the threads of all processes.

    SQLite's own queue polls with growing sleeps: two busy writers mostly wait. It still
    guards the data, so that another program, which does not know of this lock, is safe.
    """
    if path is None:
        yield
        return
    # A file of its own: to close the database's would drop the locks that SQLite holds on it.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    file = os.open(f"{path}-turn", flags, private_files.FILE_MODE)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@contextmanager
def transaction(engine: Engine, *, snapshot: bool = False) -> Iterator[Session]:
    """A session whose changes all happen, at the end of the block, or none do.

    With ``snapshot`` all its statements see the database as it was at the beginning, which
    SQLite does anyhow.
    """
    if engine.dialect.name == "sqlite":
        with _turn(engine.url.database), Session(engine) as session, session.begin():
            yield session
    else:
        if snapshot:
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with Session(engine) as session, session.begin():
            yield session


def retry_on_deadlock(engine: Engine, work: Callable[[Session], T]) -> T:
    """What ``work`` returns, in a transaction of its own that begins anew after a deadlock."""
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
    """Let ``work``, a transaction in the block, be undone where others write the same rows first.

    For what is looked for again soon: who comes second then finds it done, or still to do.
    """
    try:
        yield
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) not in {_OVERTAKEN, _DEADLOCK}:
            raise
        _log.info("%s: somebody else was at it; it is looked at again", work)


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads: one consistent view, no waiting for writers."""
    with (
        engine.connect().execution_options(reading=True) as connection,
        Session(connection) as session,
    ):
        yield session


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Bring the schema to this code's version; returns the versions before and after."""
    # 11 MB and a sixth of a second, for a database that is seldom upgraded.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    # Alembic logs through the root's handlers otherwise, into the operator's table.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    before = check_version(engine)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    # Whoever starts meanwhile waits for its end, however long that takes.
    path = engine.url.database if engine.dialect.name == "sqlite" else None
    with _turn(path), engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return before, _head()


def check_version(engine: Engine) -> str | None:
    """Return the schema's version, None for an empty database.

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
    if current is not None and current not in _versions():
        raise DatabaseError(
            f"the database is of version {current}, this program knows up to {_head()}",
            place="database_url",
            hint="Install the newer release of newsletter that made it, or restore a backup.",
        )
    return current


def require_current(engine: Engine) -> None:
    """Raise DatabaseError unless the schema is this code's; the embedded SQLite upgrades itself."""
    current = check_version(engine)
    if current == _head():
        return
    if engine.dialect.name == "sqlite":
        upgrade(engine)
        return
    raise DatabaseError(
        "the database has no tables yet"
        if current is None
        else f"the database is of version {current}",
        place="database_url",
        hint="Run `newsletter db upgrade` (take a backup first).",
    )


def _head() -> str:
    return max(_versions())


def _versions() -> frozenset[str]:
    """Each migration's file begins with its version."""
    files = (_MIGRATIONS / "versions").glob("[0-9]*.py")
    return frozenset(file.name.partition("_")[0] for file in files)
