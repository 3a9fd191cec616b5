"""The staging tables of an import, outside the audience's tables and without their locks.

SQLite: a database file of its own, written by the thread that reads the import and attached to
the connection that merges. The two overlap: a merge is a few long statements, and SQLite runs
each without Python's interpreter lock.
PostgreSQL: temporary tables of the merging connection, filled by COPY.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    false,
)
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.schema import CreateTable

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Hash, table_of
from subscribers.models import Consent, Subscriber

_person = table_of(Subscriber).c
_act = table_of(Consent).c

#: Columns of a row that are inserted into ``subscriber`` as they are.
PERSON = (
    "address_hash",
    "email",
    "name",
    "attributes",
    "language",
    "timezone",
    "source",
    "created_at",
    "confirmed_at",
    "paused_until",
    "last_open_at",
    "last_click_at",
)
#: Columns of a consent record that come from the file.
ACT = ("at", "act", "source", "wording", "ip", "user_agent")


#: Columns that all rows have, and those that few have: staging a short row costs a third less.
USUAL = (
    "n",
    "line",
    "address_hash",
    "email",
    "name",
    "attributes",
    "language",
    "timezone",
    "source",
    "created_at",
    "confirmed_at",
    "status",
)
RARE = (
    "status_at",
    "evidence",
    "ip",
    "own",
    "proven",
    "paused_until",
    "last_open_at",
    "last_click_at",
)


@dataclass
class Batch:
    """Rows to stage."""

    #: ``USUAL`` columns.
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    #: ``USUAL`` and ``RARE`` columns.
    long_rows: list[tuple[Any, ...]] = field(default_factory=list)
    #: A row's number and the slug of a topic, which exists or will be created.
    topics: list[tuple[int, str]] = field(default_factory=list)
    consents: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def row_range(self) -> "RowRange":
        ends = [rows[place][0] for rows in (self.rows, self.long_rows) if rows for place in (0, -1)]
        return RowRange(min(ends), max(ends), bool(self.topics), bool(self.consents))

    def __len__(self) -> int:
        return len(self.rows) + len(self.long_rows)


@dataclass(frozen=True, slots=True)
class RowRange:
    """The numbers of a staged batch's rows, and whether it has topics and consent records."""

    first: int
    last: int
    topics: bool = True
    consents: bool = True


class Tables:
    """The staging tables as Core objects."""

    def __init__(self, schema: str | None, prefixes: Sequence[str]) -> None:
        metadata = MetaData()
        self.row = Table(
            "import_row",
            metadata,
            Column("n", Integer, primary_key=True),
            Column("line", Integer),
            *(Column(name, _person[name].type) for name in PERSON),
            Column("status", String),
            Column("status_at", _person.created_at.type),
            Column("evidence", String, server_default=""),
            Column("ip", String),
            # Whether the row is of our own export, which also has people who left.
            Column("own", Boolean, server_default=false()),
            # Whether the file has all consent records, so that none for this import is added.
            Column("proven", Boolean, server_default=false()),
            schema=schema,
            prefixes=prefixes,
        )
        self.topic = Table(
            "import_topic",
            metadata,
            Column("n", Integer, primary_key=True),
            Column("slug", String, primary_key=True),
            schema=schema,
            prefixes=prefixes,
        )
        self.consent = Table(
            "import_consent",
            metadata,
            Column("n", Integer, primary_key=True),
            Column("place", Integer, primary_key=True),
            *(Column(name, _act[name].type) for name in ACT),
            schema=schema,
            prefixes=prefixes,
        )
        temporary = MetaData()
        #: The first row of each address in the file.
        self.seen = Table(
            "import_seen",
            temporary,
            Column("address_hash", Hash, primary_key=True),
            Column("n", Integer),
            prefixes=["TEMPORARY"],
            sqlite_with_rowid=False,
        )
        #: Rows of the current batch whose people are to be inserted, and their ids.
        self.fresh = Table(
            "import_fresh",
            temporary,
            Column("n", Integer, primary_key=True, autoincrement=False),
            Column("person", BigInteger),
            prefixes=["TEMPORARY"],
        )
        #: People who left according to the file, with the status on the first such line.
        self.left = Table(
            "import_left",
            temporary,
            Column("address_hash", Hash, primary_key=True),
            Column("status", String),
            prefixes=["TEMPORARY"],
            sqlite_with_rowid=False,
        )
        #: Rows that are compared one by one in the end.
        self.deferred = Table(
            "import_deferred",
            temporary,
            Column("n", Integer, primary_key=True, autoincrement=False),
            prefixes=["TEMPORARY"],
        )
        #: Rows of the current batch that equal the stored subscriber.
        self.same = Table(
            "import_same",
            temporary,
            Column("n", Integer, primary_key=True, autoincrement=False),
            Column("is_confirmed", Boolean),
            # Whether it would confirm them, if the operator vouched for it.
            Column("is_agreed", Boolean),
            prefixes=["TEMPORARY"],
        )
        self.staged: tuple[Table, ...] = (self.row, self.topic, self.consent)
        self.temporary: tuple[Table, ...] = (
            self.seen,
            self.fresh,
            self.left,
            self.deferred,
            self.same,
        )


class StagingTable(Protocol):
    """The interface that import_run.py uses for either database."""

    tables: Tables

    def write(self, batch: Batch) -> None:
        """Store the batch. Called by the thread that reads the file."""

    def load(self, connection: Connection, batch: Batch) -> None:
        """Make the batch visible. Called by the merging thread in its transaction, once a batch."""


class _SQLiteStage:
    tables = Tables("stage", [])

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        for table in self.tables.staged:
            connection.execute(str(CreateTable(table).compile(dialect=sqlite_dialect.dialect())))

    def write(self, batch: Batch) -> None:
        execute = self._connection
        execute.execute("BEGIN")
        for table, columns, rows in _contents(self.tables, batch):
            marks = ",".join("?" * len(columns))
            names = ",".join(columns)
            execute.executemany(f"INSERT INTO {table.fullname} ({names}) VALUES ({marks})", rows)  # noqa: S608
        execute.execute("COMMIT")

    def load(self, connection: Connection, batch: Batch) -> None:
        """Does nothing: ``write`` has stored it in the attached file."""


class _PostgresStage:
    tables = Tables(None, ["TEMPORARY"])

    def write(self, batch: Batch) -> None:
        """Does nothing: temporary tables belong to one connection, so ``load`` stores it."""

    def load(self, connection: Connection, batch: Batch) -> None:
        # Staged times are in UTC without an offset.
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        driver = _driver(connection)
        for table, columns, rows in _contents(self.tables, batch):
            statement = f"COPY {table.name} ({','.join(columns)}) FROM STDIN"
            with driver.cursor() as cursor, cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)


def _contents(
    tables: Tables, batch: Batch
) -> list[tuple[Table, Sequence[str], Sequence[tuple[Any, ...]]]]:
    return [
        (table, columns, rows)
        for table, columns, rows in (
            (tables.row, USUAL, batch.rows),
            (tables.row, (*USUAL, *RARE), batch.long_rows),
            (tables.topic, ("n", "slug"), batch.topics),
            (tables.consent, ("n", "place", *ACT), batch.consents),
        )
        if rows
    ]


@contextmanager
def open_stage(engine: Engine) -> Iterator[tuple[StagingTable, Connection]]:
    """An empty stage, and the connection to merge on. Both are closed afterwards."""
    connection = engine.connect()
    # Closed in the end, which drops what is temporary and attached.
    connection.detach()
    try:
        if not is_postgresql(engine):
            with TemporaryDirectory(prefix="newsletter-import-") as folder:
                path = str(Path(folder) / "stage.db")
                with closing(_connect(path)) as writer:
                    stage = _SQLiteStage(writer)
                    driver = _driver(connection)
                    # On the driver, since SQLAlchemy would begin a transaction.
                    driver.execute("ATTACH ? AS stage", (path,))
                    # In KiB: entries of indexes on hashes are spread over all pages.
                    driver.execute("PRAGMA main.cache_size=-32000")
                    driver.execute("PRAGMA temp.cache_size=-16000")
                    yield stage, connection
                    connection.close()
        else:
            yield _PostgresStage(), connection
    finally:
        connection.close()


def _driver(connection: Connection) -> Any:  # noqa: ANN401 (of either driver)
    # Not driver_connection, which a detached connection does not have.
    return connection.connection.dbapi_connection


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("ATTACH ? AS stage", (path,))
    # WAL lets the other connection read meanwhile. The log is never checkpointed or synced:
    # the file is deleted after the import.
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-16000"):
        connection.execute(f"PRAGMA stage.{pragma}")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection
