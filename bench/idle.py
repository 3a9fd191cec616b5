"""An idle `newsletter serve`: processor time, bytes written, and how soon it is awake.

Starts the real command on SQLite and on PostgreSQL, leaves it alone, and reads what the kernel
counted meanwhile; then this process, which is another one, makes sends and measures how long
the service takes to claim each. The limits are stated: half a percent of a core, no byte in the
database, a second.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, text

from bench import setup
from bench.report import table
from bench.sink import sink
from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.sending.queries import send_status
from newsletter.settings.load import load

_CPU_LIMIT, _LATENCY_LIMIT = 0.5, 1.0
_PEOPLE = 10
#: Seconds after the first send: a minute after the last departure, how far the log reaches is
#: written down once.
_SETTLES = 65.0
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long it is left alone")
    parser.add_argument("--sends", type=int, default=10, help="how often it is woken")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    options = parser.parse_args()
    run(options.seconds, options.sends, options.database or ["sqlite", "postgresql"])


def run(seconds: float, sends: int, databases: list[str]) -> None:
    """Measure and print."""
    quiet, awake = [], []
    for kind in databases:
        with (
            tempfile.TemporaryDirectory() as folder,
            setup.database(kind, Path(folder)) as url,
            sink() as host,
        ):
            settings = setup.environment(url, Path(folder), SENDGRID__HOST=host)
            container = Container(load(settings))
            setup.fill(container, _PEOPLE)
            command = [Path(sys.executable).with_name("newsletter"), "serve", "--port", "0"]
            environment = {**os.environ, **settings}
            service = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            try:
                # A database that was used before: some tables are made by the first send.
                _woken(container, "first")
                time.sleep(_SETTLES)
                _maintained(container.database)
                cost = _idle(service.pid, container.database, seconds)
                waits = sorted(_woken(container, f"send-{number}") for number in range(sends))
            finally:
                service.terminate()
                service.wait()
                container.database.dispose()
        figures = [cost.database, cost.rows, cost.disk, cost.written, cost.server]
        quiet.append([kind, cost.percent, cost.percent / _CPU_LIMIT, *figures])
        median, longest = waits[len(waits) // 2], waits[-1]
        awake.append([kind, sends, median, longest, longest / _LATENCY_LIMIT])
    table(
        f"newsletter serve, left alone for {seconds:,.0f} seconds",
        ["", "% of a core", f"of {_CPU_LIMIT} %", "bytes in the database", "rows changed",
         "bytes to disk", "bytes written anywhere", "% of a core, server"],
        quiet,
    )  # fmt: skip
    table(
        "A send made by another process, seconds until the service has claimed it",
        ["", "sends", "median", "longest", f"longest, of {_LATENCY_LIMIT:.0f} s"],
        awake,
    )


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a stretch of idleness took."""

    percent: float
    #: Bytes by which the database and its log grew, and rows inserted, updated and deleted.
    database: int
    rows: int
    #: What the process made the kernel write to disk, and all that it wrote: sockets as well.
    disk: int
    written: int
    #: Of the database's server, where there is one.
    server: float


def _idle(process: int, database: Engine, seconds: float) -> _Cost:
    server = _server_of(database)

    def figures() -> list[float]:
        wrote, rows = _written(database)
        io = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
        return [
            sum(map(_cpu, _tree(process))),
            wrote,
            rows,
            int(io["write_bytes"]),
            int(io["wchar"]),
            sum(map(_cpu, _tree(server))) if server else 0.0,
        ]

    before, began = figures(), time.monotonic()
    database.dispose()
    time.sleep(seconds)
    lasted = time.monotonic() - began
    cpu, wrote, rows, disk, written, serving = (
        after - earlier for after, earlier in zip(figures(), before, strict=True)
    )
    percent = 100 / lasted
    return _Cost(cpu * percent, int(wrote), int(rows), int(disk), int(written), serving * percent)


def _maintained(database: Engine) -> None:
    """Do what PostgreSQL's autovacuum would else do with the set-up's rows while we measure."""
    if database.dialect.name == "postgresql":
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE)"))


def _written(database: Engine) -> tuple[int, int]:
    """Bytes that the database and its log have taken so far, and changed rows so far."""
    if database.dialect.name == "sqlite":
        path = database.url.database
        # A page that is written in place changes the time of its file, not its size.
        files = [Path(f"{path}{end}").stat() for end in ("", "-wal")]
        return sum(file.st_size for file in files), sum(file.st_mtime_ns for file in files)
    with database.connect() as connection:
        wrote, rows = connection.execute(
            text("""
                SELECT (pg_current_wal_lsn() - '0/0')::bigint,
                    (SELECT tup_inserted + tup_updated + tup_deleted FROM pg_stat_database
                     WHERE datname = current_database())
            """)
        ).one()
    return wrote, rows


def _server_of(database: Engine) -> int | None:
    if database.dialect.name == "sqlite":
        return None
    with database.connect() as connection:
        folder = connection.scalar(text("SHOW data_directory"))
    return int((Path(folder) / "postmaster.pid").read_text().split()[0])


def _tree(process: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(one for child in children for one in _tree(int(child)))]


def _cpu(process: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _woken(container: Container, slug: str) -> float:
    """Make a send, and return how long it took from its commit to its first departure."""
    send_id = setup.make_send(container, slug, at=datetime.now(UTC))
    made = datetime.now(UTC)

    def departed() -> datetime | None:
        with reading(container.database) as session:
            return send_status.first_departure(session, send_id)

    def finished() -> datetime | None:
        with reading(container.database) as session:
            return send_status.find(session, send_id).finished_at

    left = _wait_for(departed)
    _wait_for(finished)
    time.sleep(random.uniform(2, 4))  # it is idle again
    return (left - made).total_seconds()


def _wait_for(look: Callable[[], datetime | None]) -> datetime:
    while (found := look()) is None:
        time.sleep(0.05)
    return found


if __name__ == "__main__":
    main()
