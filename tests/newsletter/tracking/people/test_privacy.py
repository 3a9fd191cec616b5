"""A person's data: all of it on request, and nothing of it after erasure."""

import json

from sqlalchemy import Engine, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sending.delivery import outbox
from newsletter.sending.models import Delivery, OutboxEmail
from newsletter.sending.queries import send_status
from newsletter.tracking.models import EventRow, SoftBounce
from newsletter.tracking.people import privacy
from subscribers.models import Subscriber, Suppression
from tests.conftest import NOW, add_person
from tests.newsletter.sending.conftest import five, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, sent, take

__all__ = ["five", "sent"]


def test_a_copy_holds_deliveries_events_and_mails(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, entry(sent, five[0], "open"))
    take(database, entry(sent, five[1], "bounce", status="4.2.2"))
    with transaction(database) as session:
        mail = outbox.OutgoingEmail("Hello", "<p>Hello</p>", "Hello")
        outbox.enqueue(session, kind="confirm", email="p1@example.org", mail=mail, now=NOW)
    with reading(database) as session:
        copy = privacy.data_of(session, five[0])
    assert copy["subscriber"]["email"] == "p1@example.org"
    assert [one["slug"] for one in copy["issues"]] == ["first"]
    assert [one["kind"] for one in copy["events"]] == ["open"]
    assert copy["soft_bounces"] == []
    assert [one["subject"] for one in copy["mails"]] == ["Hello"]
    assert "p2@example.org" not in json.dumps(copy)


def test_erasure_leaves_a_keyed_hash_and_figures_that_still_add_up(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, entry(sent, five[0], "delivered"))
    take(database, entry(sent, five[0], "bounce", status="4.2.2"))
    said = "550 5.1.1 <p1@example.org>: no such user"
    take(database, entry(sent, five[0], "bounce", at=1774594801, reason=said))
    # Of a mail that asked for a confirmation.
    notice = {"email": "p1@example.org", "nl_notice": "1", "smtp-id": "<1@example.com>"}
    take(database, {"event": "delivered", "timestamp": 1774594800, **notice})
    with reading(database) as session:
        assert len(privacy.data_of(session, five[0])["soft_bounces"]) == 1
    with transaction(database) as session:
        mail = outbox.OutgoingEmail("Hello", "<p>Hello</p>", "Hello")
        outbox.enqueue(session, kind="confirm", email="p1@example.org", mail=mail, now=NOW)
        privacy.erase(session, five[0], now=NOW)
    with reading(database) as session:
        assert session.get(Subscriber, five[0]) is None
        kept = session.execute(select(table_of(Suppression).c.reason)).scalars().all()
        raws = session.execute(select(table_of(EventRow).c.raw)).scalars().all()
        assert kept == ["erased"]
        assert raws.count("{}") == 3
        told = [*raws, *session.scalars(select(table_of(Delivery).c.reason))]
        told += session.scalars(select(table_of(Suppression).c.evidence))
        assert "p1@example.org" not in str(told)
        assert session.execute(select(table_of(SoftBounce))).all() == []
        assert session.execute(select(table_of(OutboxEmail))).all() == []
        assert send_status.get_status(session, sent).adds_up


def test_nobody_is_given_the_history_of_somebody_erased(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, entry(sent, five[4], "open"))
    with transaction(database) as session:
        privacy.erase(session, five[4], now=NOW)
    with transaction(database) as session:
        newcomer = add_person(session, "new@example.org")
    with reading(database) as session:
        copy = privacy.data_of(session, newcomer)
    assert (copy["issues"], copy["events"]) == ([], [])
    # Another send of the issue finds them, and nobody else.
    assert make_plan(database, make_send(database)) == 1
