"""Copying a database into the other kind, compared with a bare copy of the same rows.

The limit reads the same subscribers with the driver of one database and writes them with the
driver of the other, in slices of the same size: by ``COPY`` into PostgreSQL, by ``executemany``
into SQLite. It keeps no progress and compares nothing.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from bench import setup
from bench.report import peak_memory, table
from bench.segments import fill
from newsletter.backups.database_copy import copy_database
from newsletter.db.engine import open_database, transaction, upgrade
from newsletter.db.orm import table_of
from newsletter.wakeups import dedicated_connection
from subscribers.models import Subscriber

_SLICE = 5000
_COLUMNS = [column.name for column in table_of(Subscriber).c]
#: SQLite has these as text.
_AS_TEXT = {"attributes", "created_at", "confirmed_at", "paused_until", "last_open_at",
            "last_click_at"}  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.copying", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    run(options.rows)


def run(rows: int = 1_000_000) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with setup.database("postgresql", folder) as url:
            source = _open(f"sqlite:///{folder / 'source.db'}")
            fill(source, rows)
            server, back = _open(url), _open(f"sqlite:///{folder / 'back.db'}")
            measured = [
                *_both("SQLite to PostgreSQL", source, server, _into_postgresql, rows),
                *_both("PostgreSQL to SQLite", server, back, _into_sqlite, rows),
            ]
            for engine in (source, server, back):
                engine.dispose()
    table(
        f"{rows:,} subscribers, with their comparison at the end",
        ["", "seconds", "of them comparing", "rows/s", "÷ bare copy"],
        measured,
    )
    table("Memory, MB", ["", "MB"], [["peak", peak_memory()]])


def _open(url: str) -> Engine:
    engine = open_database(url)
    upgrade(engine)
    return engine


def _both(
    what: str,
    source: Engine,
    target: Engine,
    bare: Callable[[Any, Any], None],
    rows: int,
) -> list[list[object]]:
    limit = _bare(source, target, bare)
    comparing = 0.0

    def progress(name: str, _done: int, _total: int) -> None:
        nonlocal comparing
        if name.startswith("verify") and not comparing:
            comparing = time.perf_counter()

    began = time.perf_counter()
    report = copy_database(source, target, progress)
    ended = time.perf_counter()
    assert report.rows >= rows
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
    with transaction(target) as session:
        session.execute(table_of(Subscriber).delete())
    return seconds


def _into_postgresql(read: Any, write: Any) -> None:  # noqa: ANN401 (drivers' connections)
    write.execute("SET timezone = 'UTC'")
    rows = read.execute(f"SELECT {', '.join(_COLUMNS)} FROM subscriber ORDER BY id")
    while found := rows.fetchmany(_SLICE):
        statement = f"COPY subscriber ({', '.join(_COLUMNS)}) FROM STDIN"
        with write.cursor() as cursor, cursor.copy(statement) as copy:
            for row in found:
                copy.write_row(row)


def _into_sqlite(read: Any, write: Any) -> None:  # noqa: ANN401 (drivers' connections)
    read.execute("SET timezone = 'UTC'")
    columns = [f"{name}::text" if name in _AS_TEXT else name for name in _COLUMNS]
    marks = ", ".join("?" * len(_COLUMNS))
    with read.transaction(), read.cursor("rows") as rows:
        rows.execute(f"SELECT {', '.join(columns)} FROM subscriber ORDER BY id")
        while found := rows.fetchmany(_SLICE):
            write.execute("BEGIN IMMEDIATE")
            write.executemany(
                f"INSERT INTO subscriber ({', '.join(_COLUMNS)}) VALUES ({marks})", found
            )
            write.execute("COMMIT")


if __name__ == "__main__":
    main()
