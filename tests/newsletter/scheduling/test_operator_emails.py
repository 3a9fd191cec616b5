"""What waits for operators is emailed to those who decide, once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import select, update

from newsletter.accounts import users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.scheduling import tasks
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, OutboxEmail, Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import BatchState
from newsletter.settings.load import load
from newsletter.tracking.breaker_rules import CountRule
from tests.newsletter.sending.conftest import five, make_plan, make_send
from tests.newsletter.tracking.test_circuit_breaker import people, report, under_way

__all__ = ["five"]

NOW = datetime.now(UTC)
ADA = Actor(None, "ada@example.org")
DECIDING = ["olga@example.org", "paul@example.org"]


@pytest.fixture(autouse=True)
def staff(container: Container) -> None:
    with transaction(container.database) as session:
        for name, role, hashed in (
            ("olga", Role.OWNER, "x"),
            ("paul", Role.APPROVER, "x"),
            ("eve", Role.EDITOR, "x"),
            ("vic", Role.VIEWER, "x"),
            # Invited, and never came.
            ("nina", Role.APPROVER, ""),
        ):
            email = f"{name}@example.org"
            users.add(session, email, name="", role=role, max_owners=3, now=NOW, hashed=hashed)
    tasks.configure_tasks(container.task_context)


def told(container: Container) -> list[OutboxEmail]:
    """Emails to operators since the last look."""
    tasks.tell_operators()
    with transaction(container.database) as session:
        found = session.scalars(
            select(OutboxEmail).where(table_of(OutboxEmail).c.kind == "operator")
        ).all()
        session.expunge_all()
        session.execute(table_of(OutboxEmail).delete())
    return list(found)


def test_a_send_that_pauses_itself_is_told_once_to_those_who_decide(
    container: Container, five: list[int]
) -> None:
    send = make_send(container.database)
    with transaction(container.database) as session:
        assert sends.pause_scheduled(
            session, send, PauseCause.LATE, reason="due 7 h 0 min ago <b>", now=NOW
        )
    emails = told(container)
    assert sorted(one.email for one in emails) == DECIDING
    assert emails[0].subject == "Paused: Hello reader"
    assert f"/console/sends/{send}" in emails[0].text
    assert "due 7 h 0 min ago &lt;b&gt;. Resume the send to start it now." in emails[0].html
    assert told(container) == []


def test_a_pause_by_an_operator_is_told_to_nobody(container: Container, five: list[int]) -> None:
    send = make_send(container.database)
    with transaction(container.database) as session:
        send_lifecycle.pause(
            session, send, by=Actor(None, "operator"), reason="paused by Ada", now=NOW
        )
    assert told(container) == []


def test_a_pause_that_is_undone_leaves_no_message(container: Container, five: list[int]) -> None:
    send = make_send(container.database)
    with reading(container.database) as session:
        sends.pause_scheduled(session, send, PauseCause.LATE, reason="x", now=NOW)
    assert told(container) == []


def test_batches_that_nobody_confirmed_are_told_after_the_grace_time_and_once_a_day(
    container: Container, five: list[int]
) -> None:
    send = make_send(container.database)
    make_plan(container.database, send)
    batch = table_of(Batch)

    def departed(at: datetime, *states: BatchState) -> None:
        with transaction(container.database) as session:
            for state in states:
                session.execute(update(batch).values(state=state, departed_at=at))

    departed(datetime.now(UTC), BatchState.CLAIMED, BatchState.IN_FLIGHT, BatchState.UNCERTAIN)
    assert told(container) == []
    departed(NOW - timedelta(hours=1))
    with transaction(container.database) as session:
        session.execute(update(batch).values(departed_at=NOW - timedelta(hours=1)))
    emails = told(container)
    assert sorted(one.email for one in emails) == DECIDING
    assert emails[0].subject == "Not confirmed: Hello reader"
    assert told(container) == []


def test_a_review_that_is_asked_for_is_told(container: Container) -> None:
    with transaction(container.database) as session:
        draft = parse_issue("---\nsubject: Hello\nslug: hello\n---\nWords\n", name="hello.md")
        store.save(session, draft, by=ADA, now=NOW)
        approval.request(session, "hello", by=ADA, now=NOW, note="Please look at the table")
    emails = told(container)
    assert [one.subject for one in emails] == ["Please review: Hello"] * 2
    assert "/console/issues/hello" in emails[0].text
    assert "Please look at the table" in emails[0].text


def test_what_only_time_brings_is_posted_by_the_clock_once(container: Container) -> None:
    people(container.database, 25)
    send = under_way(container.database, batch_size=25)
    with transaction(container.database) as session:
        session.execute(update(table_of(Send)).values(finished_at=NOW - timedelta(days=1)))
        session.execute(update(table_of(Batch)).values(departed_at=NOW - timedelta(hours=7)))
    report(container.database, send, "spamreport", range(1, 7), timestamp=1_700_000_000)
    loose = CountRule(
        name="complaints",
        counts=["spamreport"],
        of="accepted",
        say="look",
        above=Decimal("0.1"),
        at_least=1,
        after=1,
    )
    tasks.configure_tasks(replace(container.task_context, breaker_rules=(loose,)))
    for _ in range(2):
        tasks.post_messages()
    emails = told(container)
    assert sorted(one.subject for one in emails if one.email == "olga@example.org") == [
        "Above the limit: Hello reader",
        "First figures: Hello reader",
        "The provider reports no events",
    ]
    assert any("24 % of 25 emails were marked as spam (6)" in one.text for one in emails)
    tasks.post_messages()
    assert told(container) == []


def test_a_backup_that_fails_is_told_once_a_day(
    environment: dict[str, str], container: Container, tmp_path: Path
) -> None:
    (tmp_path / "backups").write_text("not a folder")
    wanted = {"EVERY": "1h", "FOLDER": str(tmp_path / "backups")}
    parts = Container(
        load(environment | {f"NEWSLETTER_BACKUP__{key}": value for key, value in wanted.items()})
    )
    tasks.configure_tasks(parts.task_context)
    tasks.back_up()
    emails = told(container)
    assert sorted(one.email for one in emails) == DECIDING
    assert emails[0].subject == "A backup failed"
    assert "No backup was made" in emails[0].text
    tasks.back_up()
    assert told(container) == []
    parts.database.dispose()


def test_nobody_to_tell_is_no_error(container: Container, five: list[int]) -> None:
    send = make_send(container.database)
    with transaction(container.database) as session:
        for one in users.listing(session, now=NOW):
            if one.role is not Role.OWNER:
                users.remove(session, one.id)
        sends.pause(session, send, PauseCause.OUTAGE, reason="x", now=NOW)
    assert [one.email for one in told(container)] == ["olga@example.org"]
