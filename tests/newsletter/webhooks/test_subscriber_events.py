"""Events of subscribers: caused by the real operations, written in sets, gone after an erasure."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from newsletter.accounts.audit import Actor
from newsletter.db.engine import transaction
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.tracking.events.unsubscribe import unsubscribe
from newsletter.tracking.people import privacy
from newsletter.webhooks import deliveries
from newsletter.webhooks.endpoints import WebhookError
from subscribers.directory import edit
from subscribers.directory.edit import Details
from subscribers.email_address import address_key
from subscribers.transfer.import_run import ImportOptions, import_people
from tests.conftest import ADDRESS_KEY, NOW
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, five, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, hash_of, take
from tests.newsletter.webhooks.conftest import Hooks, Receiver
from tests.subscribers.signup.test_double_opt_in import PLAIN, ask, confirm

__all__ = ["five"]
pytestmark = pytest.mark.both_databases
KEY = address_key(ADDRESS_KEY)
#: Any endpoint that is not posted to.
AWAY = "https://public.example/"


def told(hooks: Hooks) -> list[tuple[str, int | None, str | None]]:
    """Event, subscriber and address of each delivery."""
    return [(row.event, row.subscriber_id, row.email) for row in hooks.rows()]


def bring(database: Engine, people: int, **options: Any) -> None:
    """Import a list of so many people."""
    lines = "".join(f"n{n}@example.org,N{n}\n" for n in range(people))
    import_people(
        database,
        io.BytesIO(f"email,name\n{lines}".encode()),
        address_key=KEY,
        now=NOW,
        name="list.csv",
        options=ImportOptions(confirmed=True, **options),
    )


@contextmanager
def statements(database: Engine) -> Iterator[list[str]]:
    """The statements about webhooks that are run."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "webhook" in statement:
            found.append(statement)

    event.listen(database, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database, "before_cursor_execute", note)


def test_a_signup_is_created_and_confirmed_once(
    database: Engine, hooks: Hooks, receiver: Receiver
) -> None:
    _, secret = hooks.add(receiver.url)
    asked = ask(database, PLAIN)
    assert hooks.rows() == []
    person = confirm(database, asked)
    confirm(database, asked)
    hooks.send()
    assert [post.type for post in receiver.posts] == [
        "subscriber.created",
        "subscriber.confirmed",
    ]
    assert all(post.verified(secret) for post in receiver.posts)
    assert receiver.posts[0].data["subscriber"] == {"id": person, "email": "ada@example.org"}
    assert receiver.posts[0].data["source"] == f"form:{PLAIN.form}"


def test_without_double_opt_in_a_signup_is_created(database: Engine, hooks: Hooks) -> None:
    hooks.add(AWAY)
    ask(database, PLAIN, double_opt_in=False)
    ask(database, PLAIN, double_opt_in=False)
    assert [one[0] for one in told(hooks)] == ["subscriber.created"]


def test_a_subscriber_who_is_added_by_hand_is_created(database: Engine, hooks: Hooks) -> None:
    hooks.add(AWAY)
    with transaction(database) as session:
        number = edit.add(
            session, "Cid@Example.org", Details(), address_key=KEY, wording="At the fair", now=NOW
        )
    assert told(hooks) == [("subscriber.created", number, "Cid@example.org")]


def test_an_import_creates_in_sets_and_only_for_endpoints_that_want_it(
    database: Engine, hooks: Hooks
) -> None:
    hooks.add(AWAY, WebhookEvent.SUBSCRIBER_UNSUBSCRIBED)
    with statements(database) as found:
        bring(database, 2000)
    assert hooks.rows() == []
    without = len(found)
    assert without < 20
    hooks.add(AWAY, WebhookEvent.SUBSCRIBER_CREATED)
    with transaction(database) as session:
        session.connection().exec_driver_sql("DELETE FROM consent")
        session.connection().exec_driver_sql("DELETE FROM subscriber")
    with statements(database) as found:
        bring(database, 2000)
    rows = hooks.rows()
    assert len(rows) == len({row.message_id for row in rows}) == 2000
    assert {row.email for row in rows} == {f"n{n}@example.org" for n in range(2000)}
    assert {row.data["source"] for row in rows} == {"import:list.csv"}
    assert len(found) <= 2 * without


def test_a_dry_run_creates_nobody(database: Engine, hooks: Hooks) -> None:
    hooks.add(AWAY)
    bring(database, 5, dry_run=True)
    assert hooks.rows() == []


def test_bounces_complaints_and_unsubscribes_come_from_the_provider_s_events(
    database: Engine, five: list[int], hooks: Hooks
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    dispatcher(database, FakeGateway()).send_next()
    hooks.add(AWAY)
    hooks.add(AWAY, WebhookEvent.SUBSCRIBER_COMPLAINED)
    with statements(database) as found:
        take(
            database,
            entry(send, five[0], "bounce", reason="550 no such user"),
            entry(send, five[1], "spamreport"),
            entry(send, five[2], "unsubscribe"),
            entry(send, five[3], "unsubscribe"),
            entry(send, five[4], "delivered"),
        )
    assert sorted(told(hooks)) == [
        ("subscriber.bounced", five[0], "p1@example.org"),
        ("subscriber.complained", five[1], "p2@example.org"),
        ("subscriber.complained", five[1], "p2@example.org"),
        ("subscriber.unsubscribed", five[2], "p3@example.org"),
        ("subscriber.unsubscribed", five[3], "p4@example.org"),
    ]
    # One query and one insert for each of the three events.
    assert len(found) == 6
    # The same events again, and weaker ones, change nothing.
    take(database, entry(send, five[1], "spamreport"), entry(send, five[1], "unsubscribe", at=9))
    assert len(told(hooks)) == 5


def test_our_own_link_unsubscribes(database: Engine, five: list[int], hooks: Hooks) -> None:
    make_plan(database, make_send(database), batch_size=5)
    hooks.add(AWAY)
    for occurrence in ("first", "second"):
        unsubscribe(
            database,
            five[0],
            1,
            source="page",
            occurrence=occurrence,
            now=NOW,
            hash_of=hash_of,
        )
    assert told(hooks) == [("subscriber.unsubscribed", five[0], "p1@example.org")]


def test_after_an_erasure_nothing_else_is_told_and_the_address_is_not_kept(
    database: Engine, five: list[int], hooks: Hooks, receiver: Receiver
) -> None:
    hooks.add(receiver.url)
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    dispatcher(database, FakeGateway()).send_next()
    hooks.past(NOW)
    hooks.send()
    take(database, entry(send, five[0], "bounce", reason="550 no such user"))
    with transaction(database) as session:
        copy = privacy.data_of(session, five[0])
    assert [one["event"] for one in copy["webhooks"]] == ["subscriber.bounced"]
    receiver.posts.clear()
    with transaction(database) as session:
        privacy.erase(session, five[0], now=NOW)
    assert told(hooks)[-1] == ("subscriber.erased", five[0], "p1@example.org")
    hooks.send()
    (post,) = receiver.posts
    assert post.type == "subscriber.erased"
    assert post.data["subscriber"] == {"id": five[0], "email": "p1@example.org"}
    assert "p1@example.org" not in repr(hooks.rows())
    erased = hooks.rows()[-1]
    with (
        transaction(database) as session,
        pytest.raises(WebhookError, match="the address of the erased subscriber was deleted"),
    ):
        deliveries.resend(session, erased.id, by=Actor(None, "owner"), now=NOW)
