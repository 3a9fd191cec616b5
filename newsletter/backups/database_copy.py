"""Copies a database into an empty one of the same or the other kind, row by row.

The rows keep their ids, and the sequences go on where they were. Each slice of rows is committed
with its last key in the table ``copy_progress`` of the target, so that a copy that was killed goes
on there. Until the copy is verified, the target has a version that no program opens. Triggers only
guard changes and deletions of rows, so they can stay while rows are inserted.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    Text,
    delete,
    exists,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from newsletter import database_identity
from newsletter.backups.row_checksums import TableChecksum
from newsletter.backups.sequences import copy_sequences
from newsletter.backups.table_rows import insert_rows, read_key, slices, write_key
from newsletter.db.dialect import is_postgresql, with_snapshots
from newsletter.db.engine import (
    COPYING,
    check_version,
    is_missing_file,
    open_database,
    require_current,
    sqlite_file,
    transaction,
    upgrade,
)
from newsletter.db.orm import Session, table_of
from newsletter.errors import BusyError, DatabaseError
from newsletter.migrations.tables import metadata
from newsletter.scheduling.leadership import RENEW, leadership
from newsletter.sending import heartbeat
from newsletter.sending.models import Batch, Send
from newsletter.sending.states import BatchState, SendState
from newsletter.tracking.models import EventRow
from newsletter.tracking.retention import event_partitions
from subscribers.segments import store as segment_store
from subscribers.segments.attributes import index_name

#: Reports progress: table, rows done, rows in all.
Progress = Callable[[str, int, int], None]
_log = logging.getLogger(__name__)
#: Seconds in which a PostgreSQL server notices that the process with the lock has ended.
_PATIENCE: Final = 2.0
_VERSION = text("SELECT version_num FROM alembic_version")
_SET_VERSION = text("UPDATE alembic_version SET version_num = :version")
_INDEX = index_name("")
#: What index_name has in place of a long name.
_HASH = re.compile("[0-9a-f]{20}")
_send, _batch, _event = table_of(Send), table_of(Batch), table_of(EventRow)
_identity = table_of(database_identity.Identity)

#: In the target while it is being filled. The row with the name "" has the source's id and version.
_progress = Table(
    "copy_progress",
    MetaData(),
    Column("name", String(100), primary_key=True),
    Column("last_key", Text, nullable=False),
    Column("done", Boolean, nullable=False),
)
#: Tables that are not ours to copy.
_NOT_COPIED: Final = frozenset({"alembic_version", _progress.name})


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied."""

    tables: int
    rows: int
    #: Rows that an interrupted copy had copied before.
    resumed: int
    #: Indexes of segments that could not be created again, because their names say no attribute.
    lost_indexes: list[str]


@contextmanager
def open_target(url: str) -> Iterator[Engine]:
    """The database to copy into; a new SQLite file is deleted again if nothing came into it.

    Raises DatabaseError if it cannot be opened.
    """
    is_new, file = is_missing_file(url), sqlite_file(url)
    try:
        target = open_database(url)
    except DatabaseError as error:
        raise DatabaseError(error.message, place="--to", hint=error.hint) from None
    try:
        yield target
    finally:
        is_empty = is_new and check_version(target) is None
        target.dispose()
        if is_empty and file is not None:
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)


def copy_database(source: Engine, target: Engine, progress: Progress) -> CopyReport:
    """Copy all rows, and verify that both databases have the same.

    Raises BusyError while the service runs on the source, or requests are in progress;
    DatabaseError if the target is not empty or has another version, if a row does not fit there,
    or if the databases differ afterwards because the source was changed.
    """
    require_current(source)
    with _SourceLock(source) as lock:
        lock.require()
        with transaction(source) as session:
            # By it, an interrupted copy is recognized.
            source_id = database_identity.database_id(session, now=datetime.now(UTC))
        with _snapshot(source) as reader:
            return _copied(reader, target, source_id, progress, lock)


def _copied(
    reader: Connection, target: Engine, source_id: str, progress: Progress, lock: "_SourceLock"
) -> CopyReport:
    version = str(reader.scalar(_VERSION))
    _require_at_rest(reader)
    tables = _tables(reader)
    totals = {table.name: _count(reader, table) for table in tables}
    _prepare(reader, target, f"{source_id} {version}", version)
    resumed = sum(_count_target(target, table) for table in tables)
    run = _Copy(reader, target, progress, lock)
    for table in tables:
        run.copy(table, totals[table.name])
    copy_sequences(reader, target, tables)
    lost = _create_segment_indexes(reader, target)
    _analyze(target)
    for table in tables:
        run.verify(table, totals[table.name])
    _finish(target, version)
    return CopyReport(len(tables), sum(totals.values()), resumed, lost)


class _SourceLock:
    """Holds the lock of the source's clock, so that no service starts on it meanwhile."""

    def __init__(self, source: Engine) -> None:
        self._lock = leadership(source)
        self._ended = threading.Event()
        self._is_held = False
        self._thread = threading.Thread(target=self._renew, name="source-lock")

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _PATIENCE
        while not (held := self._lock.hold()) and time.monotonic() < deadline:
            time.sleep(_PATIENCE / 20)
        self._is_held = held
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._lock.release()

    def _renew(self) -> None:
        while self._is_held and not self._ended.wait(RENEW):
            try:
                self._is_held = self._lock.hold()
            except Exception:  # noqa: BLE001 (the copy ends with the error below)
                _log.exception("the lock of the source was lost")
                self._is_held = False

    def require(self) -> None:
        """Raise BusyError if a service holds the lock, or it was lost."""
        if not self._is_held:
            raise BusyError(
                "a service runs on the database",
                place="database_url",
                hint="Stop `newsletter serve` on all machines, then copy the database.",
            )


class _Copy:
    """Copies and verifies the tables of one snapshot of the source."""

    def __init__(
        self,
        reader: Connection,
        target: Engine,
        progress: Progress,
        lock: _SourceLock,
    ) -> None:
        self._reader, self._target = reader, target
        self._progress, self._lock = progress, lock

    def copy(self, table: Table, total: int) -> None:
        """Copy the rows that the target lacks."""
        with self._target.connect() as connection:
            begun = connection.execute(
                select(_progress).where(_progress.c.name == table.name)
            ).first()
        if begun is not None and begun.done:
            self._progress(table.name, total, total)
            return
        is_new = begun is None
        after = None if begun is None else read_key(table, begun.last_key)
        done = _count_target(self._target, table)
        self._progress(table.name, done, total)
        for rows in slices(self._reader, table, after):
            self._lock.require()
            last = write_key(table, rows[-1])
            try:
                with transaction(self._target) as session:
                    connection = session.connection()
                    insert_rows(connection, table, rows)
                    _note(connection, table, last, new=is_new)
            # COPY raises the driver's own errors.
            except (DBAPIError, self._target.dialect.loaded_dbapi.Error) as error:
                raise self._not_written(table, rows, getattr(error, "orig", error)) from None
            is_new = False
            done += len(rows)
            self._progress(table.name, done, total)
        with transaction(self._target) as session:
            connection = session.connection()
            if is_new:
                _note(connection, table, "[]", new=True)
            connection.execute(
                update(_progress).where(_progress.c.name == table.name).values(done=True)
            )

    def _not_written(self, table: Table, rows: Sequence[Any], error: Exception) -> DatabaseError:
        why, driver = str(error).strip().partition("\n")[0], self._target.dialect.loaded_dbapi
        if not isinstance(error, driver.DataError | driver.IntegrityError):
            return DatabaseError(
                f"the database failed: {why}",
                place="--to",
                hint="Run the command again: it continues where it was.",
            )
        first, last = write_key(table, rows[0]), write_key(table, rows[-1])
        return DatabaseError(
            f"rows of the table {table.name} do not fit into the other database: {why}",
            place=f"{table.name}, keys {first} to {last}",
            hint="Correct the row in the database to be copied, then run the command again: it "
            "continues where it was.",
        )

    def verify(self, table: Table, total: int) -> None:
        """Raise DatabaseError unless both databases have the same rows."""
        here, there = TableChecksum(table), TableChecksum(table)
        for rows in slices(self._reader, table):
            here.add(rows)
            self._lock.require()
            self._progress(f"verify {table.name}", here.rows // 2, total)
        with _snapshot(self._target) as connection:
            for rows in slices(connection, table):
                there.add(rows)
                self._lock.require()
                self._progress(f"verify {table.name}", (here.rows + there.rows) // 2, total)
        if here.value != there.value:
            raise DatabaseError(
                f"the table {table.name} differs: {here.rows:,} rows here and "
                f"{there.rows:,} there, checksums {here.value[1]} and {there.value[1]}",
                place="--to",
                hint="The database was probably changed since the copy was begun. Copy it into a "
                "new, empty database, and let nothing run on it meanwhile.",
            )


@contextmanager
def _snapshot(source: Engine) -> Iterator[Connection]:
    engine = with_snapshots(source)
    with (
        engine.connect().execution_options(reading=True) as connection,
        # Begun here, so that no session below ends it.
        connection.begin(),
    ):
        if is_postgresql(source):
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield connection


def _require_at_rest(reader: Connection) -> None:
    under_way = [BatchState.CLAIMED, BatchState.IN_FLIGHT]
    now = datetime.now(UTC)
    with Session(reader) as session:
        if heartbeat.alive(session, now):
            raise BusyError(
                "a worker sends, or ended less than a quarter of a minute ago",
                place="database_url",
                hint="Stop the service and all workers, and try again in a moment.",
            )
        plans = exists().where(_send.c.state == SendState.PLANNING)
        requests = exists().where(_batch.c.state.in_(under_way))
        if session.scalar(select(plans)) or session.scalar(select(requests)):
            raise BusyError(
                "a send is being planned, or requests of it have not ended",
                place="database_url",
                hint="Start the service until `newsletter sends` shows that they have ended, "
                "pause the send, and stop the service again.",
            )


def _tables(reader: Connection) -> list[Table]:
    """All tables in an order in which rows come after those that they refer to."""
    known = {table.name for table in metadata.sorted_tables}
    found = set(inspect(reader).get_table_names()) - _NOT_COPIED
    parts = {name for name in found if name.startswith(f"{_event.name}_") and name not in known}
    if is_postgresql(reader):
        found -= parts
    if strange := sorted(found - known):
        raise DatabaseError(
            f"the database has a table that this program does not know: {strange[0]}",
            place="database_url",
            hint="Move it into another database or schema.",
        )
    return list(metadata.sorted_tables)


def _prepare(reader: Connection, target: Engine, copy_id: str, version: str) -> None:
    """Make the target ready for rows; refuse it unless it is empty or of this very copy."""
    place = "--to"
    tables = set(inspect(target).get_table_names())
    if _progress.name in tables:
        with target.connect() as connection:
            rows = select(_progress.c.last_key).where(_progress.c.name == "")
            found = connection.scalar(rows)
        if found != copy_id:
            raise DatabaseError(
                "the copy of another database, or of an earlier version of this one, was begun "
                "in this database",
                place=place,
                hint="Use a new, empty database.",
            )
        return
    if tables:
        found_version = check_version(target)
        if found_version != version:
            raise DatabaseError(
                f"the database is of version {found_version or 'none'}, and the one to be copied "
                f"of version {version}",
                place=place,
                hint="Use a new, empty database.",
            )
    else:
        upgrade(target)
    with Session(target) as session:
        known = session.get(database_identity.Identity, "database")
    if known is not None and known.value == copy_id.split(maxsplit=1)[0]:
        raise DatabaseError(
            "this is the database that is to be copied, or a copy of it",
            place=place,
            hint="Use a new, empty database.",
        )
    for table in metadata.sorted_tables:
        # A new database has an id already. The copy gets that of the source, by which its
        # departure logs know it, and the source's fingerprint of the address key.
        if table is not _identity and _count_target(target, table, at_most=1):
            raise DatabaseError(
                f"the database is not empty: the table {table.name} has rows",
                place=place,
                hint="Use a new, empty database. Nothing was changed.",
            )
    with transaction(target) as session:
        connection = session.connection()
        _progress.create(connection)
        row = {"name": "", "last_key": copy_id, "done": False}
        connection.execute(insert(_progress).values(row))
        connection.execute(_SET_VERSION, {"version": COPYING})
        connection.execute(delete(_identity))
        if is_postgresql(target):
            for month in _months(reader):
                event_partitions.prepare(session, now=month)


def _months(reader: Connection) -> Iterator[datetime]:
    """The months of which the source has events."""
    begin = datetime.min.replace(tzinfo=UTC)
    while True:
        first = reader.scalar(select(func.min(_event.c.at)).where(_event.c.at >= begin))
        if first is None:
            return
        month = event_partitions.month_start(first)
        yield month
        begin = event_partitions.month_start(month + timedelta(days=32))


def _note(connection: Connection, table: Table, last: str, *, new: bool) -> None:
    if new:
        row = {"name": table.name, "last_key": last, "done": False}
        connection.execute(insert(_progress).values(row))
        return
    mine = update(_progress).where(_progress.c.name == table.name)
    connection.execute(mine.values(last_key=last))


def _create_segment_indexes(reader: Connection, target: Engine) -> list[str]:
    """Create the indexes that `newsletter segment index` made; returns those that cannot be."""
    lost = []
    for name in _index_names(reader):
        attribute = name.removeprefix(_INDEX)
        if _HASH.fullmatch(attribute):
            lost.append(name)
            continue
        with transaction(target) as session:
            segment_store.create_index(session, attribute)
    return lost


def _index_names(reader: Connection) -> list[str]:
    # Not SQLAlchemy's inspector, which leaves out indexes on expressions, or warns of them.
    names = (
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()"
        if is_postgresql(reader)
        else "SELECT name FROM sqlite_master WHERE type = 'index'"
    )
    return sorted(name for name in reader.scalars(text(names)) if name.startswith(_INDEX))


def _analyze(target: Engine) -> None:
    with transaction(target) as session:
        session.execute(text("ANALYZE"))


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


def _count_target(target: Engine, table: Table, *, at_most: int | None = None) -> int:
    rows = select(*table.primary_key).limit(at_most).subquery()
    with target.connect().execution_options(reading=True) as connection:
        return connection.scalar(select(func.count()).select_from(rows)) or 0


def _finish(target: Engine, version: str) -> None:
    with transaction(target) as session:
        connection = session.connection()
        _progress.drop(connection)
        connection.execute(_SET_VERSION, {"version": version})
    if is_postgresql(target):
        # Imported late: its libraries take 10 MB, and SQLite does not need them.
        from newsletter.sending.workers import procrastinate_queue  # noqa: PLC0415

        procrastinate_queue.install(target)
