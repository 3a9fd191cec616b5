"""The log: entries stay, and what is changed behind the database's back shows."""

import threading

import pytest
from sqlalchemy import Engine, delete, select, text, update
from sqlalchemy.exc import DBAPIError

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import AuditEntry
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from tests.conftest import NOW

ENTRY = table_of(AuditEntry)
ALICE = Actor(1, "alice@example.org", "192.0.2.1")


def write(session: Session, what: str, **detail: str | int | bool) -> None:
    audit.record(session, ALICE, what, now=NOW, subject="first", **detail)


def first_broken(database: Engine) -> int | None:
    with reading(database) as session:
        return audit.first_broken(session)


@pytest.fixture
def three(database: Engine) -> None:
    with transaction(database) as session:
        write(session, "one")
        write(session, "two", count=2, name="é\u2028\"'", yes=True)
    with transaction(database) as session:
        write(session, "three")


def behind_its_back(database: Engine, change: str) -> None:
    """A change by somebody who can switch triggers off."""
    with database.begin() as connection:
        if database.dialect.name == "postgresql":
            connection.execute(text("ALTER TABLE audit_entry DISABLE TRIGGER ALL"))
            connection.execute(text(change))
            connection.execute(text("ALTER TABLE audit_entry ENABLE TRIGGER ALL"))
            return
        for verb in ("update", "delete"):
            connection.execute(text(f"DROP TRIGGER audit_entry_append_only_{verb}"))
        connection.execute(text(change))


@pytest.mark.usefixtures("three")
def test_entries_are_read_youngest_first_and_page_by_page(database: Engine) -> None:
    with reading(database) as session:
        rows = audit.entries(session)
        assert [row.action for row in rows] == ["three", "two", "one"]
        assert rows[1].detail == {"count": 2, "name": "é\u2028\"'", "yes": True}
        assert (rows[0].actor, rows[0].ip, rows[0].at) == (ALICE.name, ALICE.ip, NOW)
        older = audit.entries(session, before=rows[0].id, limit=1)
        assert [row.action for row in older] == ["two"]
    assert first_broken(database) is None


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    "statement", [update(ENTRY).values(action="nothing"), delete(ENTRY)], ids=["update", "delete"]
)
def test_the_database_refuses_to_change_an_entry(database: Engine, statement) -> None:
    with pytest.raises(DBAPIError), transaction(database) as session:
        session.execute(statement)
    with reading(database) as session:
        assert len(audit.entries(session)) == 3


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit_entry SET actor = 'bob' WHERE id = 2", 2),
        ("UPDATE audit_entry SET actor_id = NULL WHERE id = 1", 1),
        ("UPDATE audit_entry SET detail = '{}' WHERE id = 2", 2),
        ("UPDATE audit_entry SET at = '2020-01-01 00:00:00+00:00' WHERE id = 3", 3),
        ("DELETE FROM audit_entry WHERE id = 1", 2),
        ("DELETE FROM audit_entry WHERE id = 2", 3),
    ],
)
def test_what_is_changed_behind_its_back_is_found(
    database: Engine, change: str, broken: int
) -> None:
    behind_its_back(database, change)
    assert first_broken(database) == broken


def test_an_entry_goes_with_the_change_that_it_tells_of(database: Engine) -> None:
    with pytest.raises(RuntimeError), transaction(database) as session:
        write(session, "what did not happen")
        raise RuntimeError
    with transaction(database) as session:
        write(session, "what did")
    with reading(database) as session:
        assert [row.action for row in audit.entries(session)] == ["what did"]
    assert first_broken(database) is None


def test_those_who_write_at_the_same_moment_make_one_chain(database: Engine) -> None:
    together = threading.Barrier(6)

    def run() -> None:
        together.wait()
        for number in range(5):
            with transaction(database) as session:
                write(session, f"{number}")

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(database) as session:
        assert len(session.execute(select(ENTRY)).all()) == 30
    assert first_broken(database) is None


def test_long_words_are_cut_and_still_fit_their_hash(database: Engine) -> None:
    with transaction(database) as session:
        actor = Actor(None, "x" * 999, "y" * 99)
        audit.record(session, actor, "did", now=NOW, subject="z" * 999)
    assert first_broken(database) is None
