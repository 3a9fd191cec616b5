"""`newsletter db copy`: every row of every table, the same in the other kind of database."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Engine,
    Integer,
    LargeBinary,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)

from newsletter.backups import table_rows
from newsletter.backups.database_copy import copy_database
from newsletter.backups.row_checksums import TableChecksum
from newsletter.container import Container
from newsletter.db.engine import open_database, reading, transaction, upgrade
from newsletter.db.orm import UTCDateTime, table_of
from newsletter.errors import BusyError, DatabaseError
from newsletter.migrations.tables import metadata
from newsletter.scheduling.leadership import leadership
from newsletter.sending.models import Batch, Worker
from newsletter.settings.load import load
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store
from tests.conftest import add_person
from tests.forking import command
from tests.newsletter.backups.empty_databases import empty_postgresql, empty_sqlite

pytestmark = pytest.mark.both_databases

NOW = datetime(2026, 3, 27, 7, 0, 0, 123456, tzinfo=UTC)
ROWS = 25
PERSON = table_of(Subscriber)
#: Text that a format of the copy could spoil, and numbers that the databases write differently.
ODD = "Zoë\t\\N \\. 'x' \"y\"\r\n\u2028 😀 "
VALUES = {"a": 1e16, "b": [1.0, 1.5, -0.0, 10, None, True], "c": {"ü\\n": ODD}, "n": 2**53 + 1}


@pytest.fixture
def other(database: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of the other kind."""
    if database.dialect.name == "postgresql":
        yield empty_sqlite(tmp_path)
        return
    with empty_postgresql(request.getfixturevalue("_postgres"), "copied") as url:
        yield url


@pytest.fixture
def target(other: str) -> Iterator[Engine]:
    engine = open_database(other)
    yield engine
    engine.dispose()


def value(table: Table, column: Column[Any], n: int) -> Any:
    """A value for the row with this number."""
    if column.foreign_keys or (column.primary_key and isinstance(column.type, Integer)):
        return n
    if column.nullable and n % 3 == 0:
        return None
    checks = [str(c.sqltext) for c in table.constraints if isinstance(c, CheckConstraint)]
    if known := re.findall(rf"\b{column.name} = '(\w+)'", " ".join(checks)):
        # A state in which nothing is under way.
        return next(one for one in known if one not in {"planning", "claimed", "in_flight"})
    match column.type:
        case Boolean():
            return n % 2 == 0
        case Integer():
            return n
        case LargeBinary():
            return n.to_bytes(16, "big")
        case JSON():
            return VALUES | {"row": n}
        case UTCDateTime():
            return NOW - timedelta(days=7 * n, microseconds=n)
        case DateTime():
            return NOW.replace(tzinfo=None)
    length = getattr(column.type, "length", None)
    return f"{n} {ODD}"[:length] if length else f"{n} {ODD}" * 50


def fill(database: Engine, rows: int = ROWS) -> None:
    """Rows in every table."""
    with transaction(database) as session:
        for table in metadata.sorted_tables:
            if table.name in {"identity", "worker"}:
                continue
            lines = [
                {column.name: value(table, column, n) for column in table.c}
                for n in range(1, rows + 1)
            ]
            session.connection().execute(insert(table), lines)


def contents(engine: Engine) -> dict[str, Any]:
    found = {}
    with reading(engine) as session:
        for table in metadata.sorted_tables:
            checksum = TableChecksum(table)
            for rows in table_rows.slices(session.connection(), table):
                checksum.add(rows)
            found[table.name] = checksum.value
    return found


def objects(engine: Engine, table: Table) -> dict[tuple[Any, ...], Any]:
    """Primary key → row."""
    keys = [column.name for column in table.primary_key]
    with reading(engine) as session:
        rows = session.execute(select(table)).all()
    return {tuple(getattr(row, key) for key in keys): row for row in rows}


def silent(*_: object) -> None:
    pass


@pytest.mark.slow
def test_every_row_of_every_table_is_the_same_there(
    database: Engine, target: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(table_rows, "_SLICE", 7)
    report = copy_database(database, target, silent)
    assert report.tables == len(metadata.sorted_tables)
    assert contents(target) == contents(database)
    assert report.rows == sum(rows for rows, _ in contents(database).values())
    assert not inspect(target).has_table("copy_progress")
    for table in metadata.sorted_tables:
        # As the program reads them; 1e16 is 10000000000000000 in Python too.
        assert objects(target, table) == objects(database, table)
    if target.dialect.name == "postgresql":
        with reading(target) as session:
            months = session.scalar(text("SELECT count(*) FROM event_other"))
            assert months == 0, "events of past months have partitions of their own"


@pytest.mark.slow
def test_the_next_ids_are_those_that_the_source_would_give(
    database: Engine, target: Engine
) -> None:
    with transaction(database) as session:
        for name in ("alice", "bob", "charlie"):
            last = add_person(session, f"{name}@example.org")
        # The newest is deleted: its number is never given again.
        session.execute(PERSON.delete().where(PERSON.c.id == last))
    copy_database(database, target, silent)
    with transaction(target) as session:
        assert add_person(session, "dora@example.org") == last + 1


def test_the_copy_is_the_same_database_with_the_same_key(
    database: Engine, other: str, environment: dict[str, str], container: Container
) -> None:
    _ = container.database
    container.compare_departures()
    target = open_database(other)
    copy_database(database, target, silent)
    with reading(database) as here, reading(target) as there:
        known = text("SELECT name, value FROM identity WHERE name <> 'server' ORDER BY name")
        assert here.execute(known).all() == there.execute(known).all()
    target.dispose()
    parts = Container(load(environment | {"NEWSLETTER_DATABASE_URL": other}))
    parts.compare_departures()
    with reading(parts.database) as session:
        assert session.scalar(text("SELECT state FROM departure_log")) == "current"
    parts.database.dispose()


def test_indexes_of_segments_are_made_again(database: Engine, target: Engine) -> None:
    with transaction(database) as session:
        segment_store.create_index(session, "country")
        lost = segment_store.create_index(session, "Company")
    assert copy_database(database, target, silent).lost_indexes == [lost]
    names = "SELECT indexname FROM pg_indexes"
    if target.dialect.name == "sqlite":
        names = "SELECT name FROM sqlite_master WHERE type = 'index'"
    with reading(target) as session:
        assert "ix_subscriber_segment_country" in session.scalars(text(names)).all()


class PulledPlugError(Exception):
    """The process ends here."""


@pytest.mark.slow
@pytest.mark.parametrize("ends", [1, 9, 40, 90, 150])
def test_an_interrupted_copy_continues_and_nothing_else_opens_the_target(
    database: Engine, target: Engine, other: str, ends: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(table_rows, "_SLICE", 10)
    steps = 0

    def pull_plug(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == ends:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        copy_database(database, target, pull_plug)
    with pytest.raises(DatabaseError, match="that has not ended"):
        _ = Container(load({"NEWSLETTER_DATABASE_URL": other})).database
    report = copy_database(database, target, silent)
    assert contents(target) == contents(database)
    assert (report.resumed > 0) == (ends > 2)


def test_a_source_that_was_changed_since_is_noticed(
    database: Engine, target: Engine, cast: dict[str, int]
) -> None:
    def pull_plug(table: str, _done: int, _total: int) -> None:
        if table == "verify subscriber":
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        copy_database(database, target, pull_plug)
    with transaction(database) as session:
        session.execute(update(PERSON).values(name="changed"))
    with pytest.raises(DatabaseError, match="subscriber differs: 3 rows here and 3 there"):
        copy_database(database, target, silent)


def test_only_an_empty_database_of_the_same_version_is_filled(
    database: Engine, target: Engine, cast: dict[str, int], tmp_path: Path
) -> None:
    _, version = upgrade(target)
    with transaction(target) as session:
        add_person(session, "dora@example.org")
    with pytest.raises(DatabaseError, match="not empty: the table subscriber has rows"):
        copy_database(database, target, silent)
    with transaction(target) as session:
        session.execute(PERSON.delete())
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="9999"):
        copy_database(database, target, silent)
    with transaction(target) as session:
        session.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))

    def pull_plug(*_: object) -> None:
        raise PulledPlugError

    with pytest.raises(PulledPlugError):
        copy_database(database, target, pull_plug)
    stranger = open_database(f"sqlite:///{tmp_path / 'stranger.db'}")
    upgrade(stranger)
    with pytest.raises(DatabaseError, match="the copy of another database"):
        copy_database(stranger, target, silent)
    stranger.dispose()
    copy_database(database, target, silent)


def test_a_database_is_not_copied_into_itself(database: Engine) -> None:
    again = open_database(database.url.render_as_string(hide_password=False))
    with pytest.raises(DatabaseError, match="that is to be copied"):
        copy_database(database, again, silent)
    again.dispose()


@pytest.mark.slow
def test_nothing_is_copied_while_something_sends(
    database: Engine, target: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(why: str) -> None:
        with pytest.raises(BusyError, match=why):
            copy_database(database, target, silent)
        assert inspect(target).get_table_names() == []

    service = leadership(database)
    assert service.hold()
    refused("a service runs")
    service.release()
    now = datetime.now(UTC)
    with transaction(database) as session:
        session.add(Worker(name="w", started_at=now, alive_until=now + timedelta(seconds=15)))
    refused("a worker sends")
    with transaction(database) as session:
        session.execute(text("DELETE FROM worker"))
    fill(database, 1)
    with transaction(database) as session:
        session.execute(update(table_of(Batch)).values(state="claimed"))
    refused("requests of it have not ended")


def test_a_row_that_does_not_fit_is_named(database: Engine, target: Engine) -> None:
    if database.dialect.name == "postgresql":
        pytest.skip("SQLite takes what PostgreSQL has")
    with transaction(database) as session:
        number = add_person(session, "alice@example.org", name="Al\x00ice")
    with pytest.raises(DatabaseError, match="rows of the table subscriber do not fit") as error:
        copy_database(database, target, silent)
    assert f"[{number}]" in str(error.value.place)
    with transaction(database) as session:
        session.execute(update(PERSON).values(name="Alice"))
    copy_database(database, target, silent)


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on(
    database: Engine, target: Engine, other: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with transaction(database) as session:
        lines = [
            {column.name: value(PERSON, column, n) for column in PERSON.c} for n in range(1, 30_001)
        ]
        session.connection().execute(insert(PERSON), lines)
    newsletter = Path(sys.executable).with_name("newsletter")
    words = ["db", "copy", "--to", other, "--json"]
    process = subprocess.Popen(
        [newsletter, *words], env={"PATH": os.environ["PATH"], **environment}, cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if inspect(target).has_table("copy_progress"):
            with reading(target) as session:
                if session.scalar(select(func.count()).select_from(PERSON)):
                    break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    done = command(words, environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert 0 < report["resumed"] < report["rows"]
    assert contents(target) == contents(database)


def test_the_command_refuses_what_is_no_database(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = command(("db", "copy", "--to", "nonsense"), environment=environment, folder=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    environment["NEWSLETTER_DATABASE_URL"] = "sqlite:///nowhere.db"
    words = ("db", "copy", "--to", "sqlite:///new.db")
    done = command(words, environment=environment, folder=tmp_path)
    assert (done.returncode, "there is no database" in done.stderr) == (5, True)
    assert not [*tmp_path.glob("new.db*"), *tmp_path.glob("nowhere.db*")]


@pytest.mark.slow
def test_a_refused_copy_leaves_no_file(
    database: Engine, environment: dict[str, str], tmp_path: Path
) -> None:
    lock = leadership(database)
    assert lock.hold()
    words = ("db", "copy", "--to", f"sqlite:///{tmp_path / 'new.db'}")
    done = command(words, environment=environment, folder=tmp_path)
    lock.release()
    assert "a service runs on the database" in done.stderr
    assert list(tmp_path.glob("new.db*")) == []
    words = ("db", "copy", "--to", "sqlite:////proc/new.db")
    done = command(words, environment=environment, folder=tmp_path)
    assert done.stderr.startswith("error: --to: the folder cannot be created")
