"""Importing and exporting subscribers, compared with a bare ``executemany`` of the same rows.

The limit writes ready-made tuples into the same table of an SQLite file with the same settings,
in transactions of the same size. It does not read the file, check rows or record consent.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
from sqlalchemy import Engine, true

from bench.report import peak_memory, table
from newsletter.db.engine import open_database, reading, upgrade
from subscribers.email_address import hash_address, parse
from subscribers.transfer.export import export_people
from subscribers.transfer.import_run import ImportOptions, import_people

_KEY = b"a benchmark's key is no secret"
_CHUNK = 20_000
_COLUMNS = "email, address_hash, name, attributes, source, created_at, confirmed_at"
_NOW = datetime(2026, 3, 27, 7, 0, tzinfo=UTC)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.importing", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", help="a database URL; a new SQLite file unless given")
    options = parser.parse_args()
    run(options.rows, options.database)


def run(rows: int = 1_000_000, database_url: str | None = None) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        file = path / "people.csv"
        _write(file, rows)
        # The import comes first, so that its peak memory does not include the limit's.
        steps = _import_and_export(database_url or f"sqlite:///{path / 'import.db'}", file, rows)
        limit = _executemany(path / "limit.db", file)
    whole = [*steps, ("limit: executemany, SQLite", limit, "")]
    table(
        f"{rows:,} rows of CSV, 6 columns",
        ["", "seconds", "rows/s", "÷ executemany", "peak MB"],
        [[what, seconds, rows / seconds, limit / seconds, peak] for what, seconds, peak in whole],
    )


def _write(file: Path, rows: int) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["Email", "Name", "Plan", "Country", "Company", "Created at"])
        for n in range(rows):
            day = f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d} 10:00:00"
            email = f"Reader.{n}@example{n % 50}.com"
            writer.writerow([email, f"Zoë Reader {n}", "pro", "DE", f"Company {n % 999}, Ltd", day])


def _import_and_export(url: str, file: Path, rows: int) -> list[tuple[str, float, object]]:
    engine = open_database(url)
    upgrade(engine)
    steps: list[tuple[str, float, object]] = []
    for what, options, attribute in (
        ("dry run", ImportOptions(dry_run=True), "added"),
        ("import, all new", ImportOptions(confirmed=True, wording="bench"), "added"),
        ("import, nothing new", ImportOptions(confirmed=True), "unchanged"),
    ):
        report = import_people(
            engine, file, address_key=_KEY, now=_NOW, name="bench", options=options
        )
        assert getattr(report, attribute) == rows, report
        steps.append((what, report.seconds, peak_memory()))
    steps.append(_export(engine, file.with_name("export.csv"), rows))
    engine.dispose()
    return steps


def _export(engine: Engine, target: Path, rows: int) -> tuple[str, float, object]:
    began = time.perf_counter()
    with reading(engine) as session:
        assert export_people(session, true(), target) == rows
    return "export, CSV", time.perf_counter() - began, peak_memory()


def _executemany(path: Path, file: Path) -> float:
    engine = open_database(f"sqlite:///{path}")
    upgrade(engine)
    seconds = 0.0
    connection = engine.raw_connection()
    cursor = connection.cursor()
    for chunk in _chunks(file):
        began = time.perf_counter()
        cursor.execute("BEGIN IMMEDIATE")
        cursor.executemany(
            f"INSERT INTO subscriber ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            chunk,
        )
        cursor.execute("COMMIT")
        seconds += time.perf_counter() - began
    connection.close()
    engine.dispose()
    return seconds


def _chunks(file: Path) -> Iterator[list[tuple[object, ...]]]:
    now = _NOW.strftime("%Y-%m-%d %H:%M:%S.%f")
    chunk: list[tuple[object, ...]] = []
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            address = parse(row["Email"])
            attributes = {key.lower(): row[key] for key in ("Plan", "Country", "Company")}
            chunk.append(
                (
                    address.email,
                    hash_address(_KEY, address),
                    row["Name"],
                    orjson.dumps(attributes).decode(),
                    "import:bench",
                    f"{row['Created at']}.000000",
                    now,
                )
            )
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


if __name__ == "__main__":
    main()
