"""One person's history: everything that happened, in order, and nobody else's."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from newsletter.db.engine import reading, transaction
from newsletter.sending.delivery import outbox
from newsletter.tracking.people import history as subscriber_history
from newsletter.tracking.people import privacy
from newsletter.tracking.people.history import HistoryEntry
from newsletter.web.console.subscribers import history_labels
from subscribers.consent import suppression
from subscribers.models import Subscriber, SuppressionReason
from tests.conftest import NOW
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import entry, sent, take

__all__ = ["five", "sent"]


def of(database: Engine, person: int, page: int = 0) -> tuple[list[HistoryEntry], bool]:
    with reading(database) as session:
        found = session.get(Subscriber, person)
        assert found is not None
        return subscriber_history.of_subscriber(session, found, page=page)


def test_it_holds_sends_events_mails_and_suppressions_of_one_person(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, entry(sent, five[0], "delivered"))
    take(database, entry(sent, five[0], "open"))
    take(database, entry(sent, five[1], "bounce", status="5.1.1"))
    with transaction(database) as session:
        mail = outbox.OutgoingEmail("Hello", "<p>Hello</p>", "Hello")
        outbox.enqueue(session, kind="confirm", email="p1@example.org", mail=mail, now=NOW)
        later = NOW + timedelta(days=9)
        suppression.add(session, [five[0]], SuppressionReason.MANUAL, at=later, evidence="note")
    entries, more = of(database, five[0])
    assert not more
    assert [one.at for one in entries] == sorted((one.at for one in entries), reverse=True)
    told = {(one.sort, one.what) for one in entries}
    assert {
        ("person", "joined"),
        ("delivery", "delivered"),
        ("event", "delivered"),
        ("event", "open"),
        ("mail", "pending"),
        ("suppression", "manual"),
    } <= told
    assert ("event", "bounce") not in told
    delivery = next(one for one in entries if one.sort == "delivery")
    assert (delivery.send_id, bool(delivery.issue)) == (sent, True)
    assert {one.what for one in of(database, five[1])[0]} >= {"bounced", "bounce"}


def test_each_thing_that_can_happen_has_words(database: Engine, sent: int, five: list[int]) -> None:
    for sort, words in history_labels.WORDS.items():
        for what in words:
            assert history_labels.labeled(HistoryEntry(NOW, sort, what)).words
    assert (
        history_labels.labeled(HistoryEntry(NOW, "event", "of a later release")).words
        == "of a later release"
    )


def test_nothing_reads_through_other_people_s_rows(
    database: Engine, sent: int, five: list[int]
) -> None:
    if database.dialect.name != "sqlite":
        pytest.skip("PostgreSQL reads small tables whole, whatever indexes there are")
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, said: str, values: Any, *_: Any) -> None:
        asked.append((said, values))

    event.listen(database, "before_cursor_execute", note)
    of(database, five[0])
    with reading(database) as session:
        privacy.data_of(session, five[0])
    event.remove(database, "before_cursor_execute", note)
    steps = []
    with database.connect() as connection:
        for said, values in asked:
            if said.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}", values)
                steps += [row[-1] for row in rows]
    assert any("SEARCH delivery USING PRIMARY KEY" in step for step in steps)
    large = ("SCAN delivery", "SCAN event", "SCAN notice", "SCAN consent", "SCAN subscriber")
    assert [step for step in steps if step.startswith(large)] == []
