"""Copying a database into the other kind, compared with a bare copy of the same rows.

Each subscriber has had some sends, so the most rows are deliveries. The limit reads subscribers,
batches and deliveries with the driver of one database and writes them with the driver of the
other, in slices of the same size: by ``COPY`` into PostgreSQL, by ``executemany`` into SQLite. It
keeps no progress and compares nothing.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, Engine, insert, literal, select, text, update

from bench import setup
from bench.report import peak_memory, table
from newsletter.backups.database_copy import copy_database
from newsletter.container import Container
from newsletter.db.engine import open_database, transaction, upgrade
from newsletter.db.orm import UTCDateTime, table_of
from newsletter.sending.models import Batch, Delivery, Send, Variant
from newsletter.sending.states import BatchState, DeliveryState, SendState
from newsletter.settings.load import load
from newsletter.wakeups import dedicated_connection
from subscribers.models import Subscriber

_person, _delivery = table_of(Subscriber), table_of(Delivery)
_batch, _send, _variant = table_of(Batch), table_of(Send), table_of(Variant)
_SLICE, _BATCH_SIZE = 5000, 1000
#: What the limit copies, in this order; the other tables have a few rows.
_TABLES = [_person, _batch, _delivery]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.copying", description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--sends", type=int, default=5)
    options = parser.parse_args()
    run(options.people, options.sends)


def run(people: int = 1_000_000, sends: int = 5) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with setup.database("postgresql", folder) as url:
            parts = Container(load(setup.environment(f"sqlite:///{folder / 'source.db'}", folder)))
            upgrade(parts.database)
            setup.fill(parts, people)
            for number in range(1, sends + 1):
                _add_send(parts, f"letter-{number}", people)
            server, back = _open(url), _open(f"sqlite:///{folder / 'back.db'}")
            measured = [
                *_both("SQLite to PostgreSQL", parts.database, server, _into_postgresql),
                *_both("PostgreSQL to SQLite", server, back, _into_sqlite),
            ]
            for engine in (parts.database, server, back):
                engine.dispose()
    table(
        f"{people:,} subscribers, {people * sends:,} deliveries, with their comparison at the end",
        ["", "seconds", "of them comparing", "rows/s", "÷ bare copy"],
        measured,
    )
    table("Memory, MB", ["", "MB"], [["peak", peak_memory()]])


def _add_send(parts: Container, slug: str, people: int) -> None:
    """A send that has ended: each subscriber got the issue."""
    now = datetime.now(UTC)
    send_id = setup.make_send(parts, slug, at=now)
    with transaction(parts.database) as session:
        row = session.execute(
            select(_send.c.issue_id, _variant.c.id.label("variant"))
            .join(_variant, _variant.c.send_id == _send.c.id)
            .where(_send.c.id == send_id)
        ).one()
        batches = [
            {
                "send_id": send_id,
                "number": number,
                "variant_id": row.variant,
                "state": BatchState.ACCEPTED,
                "size": _BATCH_SIZE,
                "not_before": now,
                "departed_at": now,
                "settled_at": now,
            }
            for number in range(1, (people - 1) // _BATCH_SIZE + 2)
        ]
        session.connection().execute(insert(_batch), batches)
        chosen = select(
            literal(row.issue_id),
            _person.c.id,
            literal(send_id),
            (_person.c.id - 1) // _BATCH_SIZE + 1,
            literal(DeliveryState.ACCEPTED),
        )
        columns = ["issue_id", "subscriber_id", "send_id", "batch", "state"]
        session.execute(insert(_delivery).from_select(columns, chosen))
        for state in (SendState.PLANNING, SendState.SENDING, SendState.SENT):
            session.execute(update(_send).where(_send.c.id == send_id).values(state=state))


def _open(url: str) -> Engine:
    engine = open_database(url)
    upgrade(engine)
    return engine


def _both(
    what: str, source: Engine, target: Engine, bare: Callable[[Any, Any], None]
) -> list[list[object]]:
    limit = _bare(source, target, bare)
    comparing = 0.0

    def progress(name: str, _done: int, _total: int) -> None:
        nonlocal comparing
        if name.startswith("verify") and not comparing:
            comparing = time.perf_counter()

    began = time.perf_counter()
    rows = copy_database(source, target, progress).rows
    ended = time.perf_counter()
    seconds = ended - began
    return [
        [what, seconds, ended - comparing, rows / seconds, limit / seconds],
        [f"limit: bare copy, {what}", limit, "", rows / limit, 1.0],
    ]


def _bare(source: Engine, target: Engine, bare: Callable[[Any, Any], None]) -> float:
    """Seconds of a copy by the drivers alone; the target is empty again afterwards."""
    read, write = dedicated_connection(source), dedicated_connection(target)
    began = time.perf_counter()
    bare(read, write)
    seconds = time.perf_counter() - began
    read.close()
    write.close()
    _empty(target)
    return seconds


def _into_postgresql(read: Any, write: Any) -> None:  # noqa: ANN401 (drivers' connections)
    write.execute("SET timezone = 'UTC'")
    # The tables that these refer to are empty.
    write.execute("SET session_replication_role = replica")
    for one in _TABLES:
        names = ", ".join(column.name for column in one.c)
        booleans = [n for n, column in enumerate(one.c) if isinstance(column.type, Boolean)]
        rows = read.execute(f"SELECT {names} FROM {one.name}")
        while found := rows.fetchmany(_SLICE):
            with (
                write.cursor() as cursor,
                cursor.copy(f"COPY {one.name} ({names}) FROM STDIN") as copy,
            ):
                for row in found:
                    copy.write_row(
                        [bool(v) if n in booleans else v for n, v in enumerate(row)]
                        if booleans
                        else row
                    )


def _into_sqlite(read: Any, write: Any) -> None:  # noqa: ANN401 (drivers' connections)
    read.execute("SET timezone = 'UTC'")
    write.execute("PRAGMA foreign_keys = OFF")
    for one in _TABLES:
        columns = [
            f"{column.name}::text" if isinstance(column.type, JSON | UTCDateTime) else column.name
            for column in one.c
        ]
        names, marks = ", ".join(column.name for column in one.c), ", ".join("?" * len(one.c))
        with read.transaction(), read.cursor("rows") as rows:
            rows.execute(f"SELECT {', '.join(columns)} FROM {one.name}")
            while found := rows.fetchmany(_SLICE):
                write.execute("BEGIN IMMEDIATE")
                write.executemany(f"INSERT INTO {one.name} ({names}) VALUES ({marks})", found)
                write.execute("COMMIT")


def _empty(target: Engine) -> None:
    """Delete all rows by the statement that is quick: the next copy is no slower for these."""
    names = ", ".join(one.name for one in _TABLES)
    with transaction(target) as session:
        if target.dialect.name == "postgresql":
            session.execute(text(f"TRUNCATE {names} CASCADE"))
        else:
            session.execute(text("PRAGMA defer_foreign_keys = ON"))
            for one in reversed(_TABLES):
                session.execute(one.delete())


if __name__ == "__main__":
    main()
