"""Users who chose so get the messages of a day in one email each morning, once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select

from newsletter.accounts import notifications, operator_messages, users
from newsletter.accounts.models import Role
from newsletter.accounts.operator_messages import MessageKind
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.scheduling import operator_emails, tasks
from newsletter.sending.models import OutboxEmail
from newsletter.settings.load import load, resource
from tests.conftest import NOW
from tests.newsletter.sending.conftest import PUBLICATION

pytestmark = pytest.mark.both_databases
BERLIN = ZoneInfo("Europe/Berlin")
TEMPLATES = resource("templates/email")


def local(day: int, hour: int, minute: int = 0) -> datetime:
    """A time of March 2026 in Berlin, where clocks go forward on the 29th."""
    return datetime(2026, 3, day, hour, minute, tzinfo=BERLIN).astimezone(UTC)


@pytest.fixture(autouse=True)
def staff(database: Engine) -> None:
    with transaction(database) as session:
        for name, digest in (("olga", False), ("dora", True)):
            user = users.add(
                session,
                f"{name}@example.org",
                name="",
                role=Role.OWNER,
                max_owners=3,
                now=NOW,
                hashed="x",
            )
            notifications.choose(session, user, list(MessageKind), digest=digest)


def happens(database: Engine, kind: MessageKind, subject: object, at: datetime) -> None:
    """Something happens, and the clock looks at once."""
    with transaction(database) as session:
        operator_messages.post(session, kind, subject, now=at, detail=f"detail {subject}")
    assert write(database, at) == 0


def write(database: Engine, at: datetime) -> int:
    """The clock looks for messages and morning emails; returns the number of morning emails."""
    with transaction(database) as session:
        operator_emails.send_waiting(session, publication=PUBLICATION, templates=TEMPLATES, now=at)
        return operator_emails.send_digests(
            session, publication=PUBLICATION, templates=TEMPLATES, zone=BERLIN, now=at
        )


def emails(database: Engine) -> list[tuple[str, str]]:
    outbox = table_of(OutboxEmail)
    with reading(database) as session:
        rows = session.execute(select(outbox.c.email, outbox.c.subject).order_by(outbox.c.id))
        return [(row.email, row.subject) for row in rows]


def is_due(database: Engine, at: datetime) -> bool:
    with reading(database) as session:
        return operator_emails.digest_is_due(session, zone=BERLIN, now=at)


def test_the_messages_of_a_day_come_in_one_email_at_eight(database: Engine) -> None:
    happens(database, MessageKind.SCHEDULE_FAILED, 4, local(27, 9))
    happens(database, MessageKind.SEND_FINISHED, 5, local(28, 3))
    assert [one for one, _ in emails(database)] == ["olga@example.org"] * 2
    assert not is_due(database, local(28, 7, 59))
    assert write(database, local(28, 7, 59)) == 0
    assert is_due(database, local(28, 8))
    assert write(database, local(28, 8)) == 1
    assert not is_due(database, local(28, 8))
    assert emails(database)[2:] == [
        ("dora@example.org", "2 new messages: Nothing was sent: schedule 4")
    ]
    with reading(database) as session:
        text = session.scalars(select(table_of(OutboxEmail).c.text)).all()[-1]
    assert "First figures: send 5. detail 5" in " ".join(text.split())
    assert "/console/messages" in text


def test_without_a_message_there_is_none(database: Engine) -> None:
    assert not is_due(database, local(28, 9))
    assert write(database, local(28, 9)) == 0
    assert emails(database) == []


def test_there_is_one_a_day_at_most_also_when_the_clocks_change(database: Engine) -> None:
    happens(database, MessageKind.SEND_FINISHED, 1, local(28, 20))
    assert write(database, local(29, 8)) == 1
    happens(database, MessageKind.SEND_FINISHED, 2, local(29, 8, 1))
    assert write(database, local(29, 23, 59)) == 0
    # The day's messages come late where no clock ran in the morning.
    assert write(database, local(30, 11)) == 1
    happens(database, MessageKind.SEND_FINISHED, 3, local(30, 12))
    assert write(database, local(30, 23)) == 0
    assert write(database, local(31, 8)) == 1


def test_two_processes_write_one(database: Engine) -> None:
    happens(database, MessageKind.SEND_FINISHED, 1, local(27, 20))
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda _: write(database, local(28, 8)), range(4)))
    assert sorted(written) == [0, 0, 0, 1]
    assert len(emails(database)) == 2


def test_what_waits_comes_though_the_user_chose_otherwise_meanwhile(database: Engine) -> None:
    happens(database, MessageKind.SEND_FINISHED, 1, local(27, 20))
    with transaction(database) as session:
        user = users.by_email(session, "dora@example.org")
        notifications.choose(session, user, [], digest=False)
    assert write(database, local(28, 8)) == 1


def test_a_user_who_is_removed_gets_none(database: Engine) -> None:
    happens(database, MessageKind.SEND_FINISHED, 1, local(27, 20))
    with transaction(database) as session:
        users.remove(session, users.by_email(session, "dora@example.org").id)
    assert write(database, local(28, 8)) == 0


def test_many_messages_are_counted_and_not_all_listed(database: Engine) -> None:
    for number in range(35):
        happens(database, MessageKind.SEND_FINISHED, number, local(27, 20))
    assert write(database, local(28, 8)) == 1
    with reading(database) as session:
        text = session.scalars(select(table_of(OutboxEmail).c.text)).all()[-1]
    assert "And 5 more." in text


def test_the_clock_s_task_writes_it(environment: dict[str, str], database: Engine) -> None:
    happens(database, MessageKind.SEND_FINISHED, 1, datetime.now(UTC) - timedelta(days=1))
    # A zone where it is past eight, because the test may run at any time.
    zone = "UTC" if datetime.now(UTC).hour >= 8 else "Pacific/Kiritimati"
    parts = Container(load({**environment, "NEWSLETTER_SITE__TIMEZONE": zone}))
    tasks.configure_tasks(parts.task_context)
    for _ in range(2):
        tasks.tell_operators()
    assert [one for one, _ in emails(database)] == ["olga@example.org", "dora@example.org"]
    parts.database.dispose()
