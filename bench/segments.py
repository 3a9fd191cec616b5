"""Counting segments of a million subscribers.

Prints the milliseconds to count each rule, without and with indexes on the attributes.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, insert

from bench.report import peak_memory, table
from newsletter.db.engine import open_database, reading, transaction, upgrade
from newsletter.db.orm import table_of
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store

_CHUNK = 20_000
RULES = (
    "",
    'country == "DE"',
    'country in ["DE", "AT"] and plan == "pro"',
    "age >= 40",
    'domain == "example7.com"',
    'opened_within("30d")',
    "sample(10)",
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.segments", description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--database", help="a database URL; a new SQLite file unless given")
    options = parser.parse_args()
    run(options.people, options.database)


def run(people: int = 1_000_000, database_url: str | None = None) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(database_url or f"sqlite:///{Path(folder) / 'bench.db'}")
        upgrade(engine)
        fill(engine, people)
        plain = [_count(engine, rule) for rule in RULES]
        with transaction(engine) as session:
            for name in ("country", "plan", "domain"):
                segment_store.create_index(session, name)
        indexed = [_count(engine, rule) for rule in RULES]
        kind = engine.dialect.name
        engine.dispose()
    table(
        f"Segments of {people:,} people, {kind}",
        ["rule", "people", "ms", "ms with indexes"],
        [
            [rule or "everybody", count, ms, faster]
            for rule, (count, ms), (_, faster) in zip(RULES, plain, indexed, strict=True)
        ],
    )
    table("Memory, MB", ["", "MB"], [["peak", peak_memory()]])


def fill(engine: Engine, people: int) -> None:
    """Create subscribers with three attributes each."""
    now = datetime.now(UTC)
    for begin in range(0, people, _CHUNK):
        rows = [
            {
                "email": f"reader{n}@example{n % 100}.com",
                "address_hash": n.to_bytes(16, "big"),
                "name": f"Reader {n}",
                "attributes": {
                    "plan": ("free", "pro", "team")[n % 3],
                    "country": ("DE", "AT", "CH", "FR", "US", "GB", "IN", "BR")[n % 8],
                    "age": 18 + n % 60,
                },
                "source": "bench",
                "created_at": now,
                "confirmed_at": now,
                "last_open_at": now if n % 4 == 0 else None,
            }
            for n in range(begin, min(begin + _CHUNK, people))
        ]
        with transaction(engine) as session:
            session.connection().execute(insert(table_of(Subscriber)), rows)


def _count(engine: Engine, rule: str) -> tuple[int, float]:
    """(subscribers, milliseconds), the best of three."""
    best, people = float("inf"), 0
    for _ in range(3):
        with reading(engine) as session:
            began = time.perf_counter()
            people, _ = segment_store.count(session, rule, now=datetime.now(UTC))
            best = min(best, time.perf_counter() - began)
    return people, best * 1000


if __name__ == "__main__":
    main()
