"""Events of an earlier version keep their figures when the schema is brought up to date."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from newsletter import migrations
from newsletter.db.engine import open_database, reading, upgrade
from newsletter.tracking.stats import counters
from newsletter.tracking.stats import verify as verify_counters
from tests.newsletter.db.test_engine import bring

MIGRATIONS = Path(migrations.__file__ or "").parent
EVENTS = [
    ("open", 7, 1, False, {"email": "a@B.example"}),
    ("open", 7, 1, True, {"email": "a@B.example"}),
    ("click", 7, 1, False, {"email": "a@b.example", "url": "https://x.example/a"}),
    ("click", 7, 1, False, {"email": "a@b.example", "url": "https://x.example/a"}),
    ("unsubscribe", 7, 2, False, {"by": "our link"}),
    ("delivered", None, None, False, {"email": "c@d.example"}),
]


@pytest.fixture
def before(database_url: str, tmp_path: Path) -> Iterator[Engine]:
    """A database of version 0002 with some events."""
    if database_url.startswith("sqlite"):
        engine = open_database(f"sqlite:///{tmp_path / 'before.db'}")
    else:
        engine = open_database(database_url)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    with engine.connect() as connection:
        bring(connection, "0002")
        for number, (kind, send, person, by_machine, raw) in enumerate(EVENTS):
            connection.execute(
                text(
                    "INSERT INTO event (key, kind, at, received_at, send_id, subscriber_id, "
                    "by_machine, raw) VALUES (:key, :kind, '2026-03-27 23:30:00.000000', "
                    "'2026-03-27 23:31:00.000000', :send, :person, :by_machine, :raw)"
                ),
                {
                    "key": number.to_bytes(16, "big"),
                    "kind": kind,
                    "send": send,
                    "person": person,
                    "by_machine": by_machine,
                    "raw": json.dumps(raw),
                },
            )
        connection.commit()
    yield engine
    engine.dispose()


def test_old_events_are_counted_into_the_new_figures(before: Engine) -> None:
    upgrade(before)
    with reading(before) as session:
        assert counters.of_send(session, 7) == {
            "open": 1,
            "opened": 1,
            "machine_open": 1,
            "click": 2,
            "clicked": 1,
            "unsubscribe": 1,
            "left": 1,
            "left_here": 1,
        }
        assert counters.of_parts(session, 7, "link") == {
            "https://x.example/a": {"click": 2, "clicked": 1}
        }
        assert set(counters.of_parts(session, 7, "domain")) == {"b.example", ""}
        assert verify_counters.sends(session) == [counters.NO_SEND, 7]
        for send in verify_counters.sends(session):
            assert list(verify_counters.differences(session, send)) == []


def test_of_earlier_sends_opens_were_measured_and_clicks_were_not(database: Engine) -> None:
    """Every request switched the tracking of clicks off: 0 clicks of them mean nothing."""
    (module,) = (
        one for one in ScriptDirectory(str(MIGRATIONS)).walk_revisions() if "measured" in one.doc
    )
    with database.connect() as connection:
        for table in ("send", "schedule"):
            connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {table} (id INTEGER)")
            connection.exec_driver_sql(f"INSERT INTO {table} VALUES (1)")
        with Operations.context(MigrationContext.configure(connection)):
            module.module.upgrade()
        columns = "track_clicks, track_opens"
        send = connection.exec_driver_sql(f"SELECT {columns} FROM send").one()
        schedule = connection.exec_driver_sql(f"SELECT {columns} FROM schedule").one()
    assert (tuple(send), tuple(schedule)) == ((False, True), (None, None))
