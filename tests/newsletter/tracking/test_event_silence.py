"""A webhook that is silent although emails left is found, and told once for each silence."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from newsletter.accounts.operator_messages import Occasion
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sending.models import Batch, Send
from newsletter.tracking import event_silence
from newsletter.tracking.event_silence import EventSilence
from tests.conftest import NOW
from tests.newsletter.tracking.test_circuit_breaker import hand_over, people, report, under_way

pytestmark = pytest.mark.both_databases
LIMIT = timedelta(hours=6)


def hours(number: float) -> datetime:
    return NOW + timedelta(hours=number)


def left(database: Engine, send: int, batch: int, at: datetime) -> None:
    batches, sends = table_of(Batch), table_of(Send)
    this = (batches.c.send_id == send) & (batches.c.number == batch)
    with transaction(database) as session:
        session.execute(update(batches).where(this).values(departed_at=at))
        session.execute(update(sends).values(started_at=NOW))


def found(database: Engine, at: datetime, limit: timedelta = LIMIT) -> EventSilence | None:
    with reading(database) as session:
        return event_silence.find(session, limit=limit, now=at)


def told(database: Engine, at: datetime) -> Sequence[Occasion]:
    with reading(database) as session:
        return event_silence.occasions(session, limit=LIMIT, now=at)


def one_batch(database: Engine) -> int:
    people(database, 10)
    send = under_way(database, batch_size=5)
    left(database, send, 1, NOW)
    return send


def test_emails_without_any_event_are_a_silence_after_the_limit(database: Engine) -> None:
    assert found(database, NOW) is None
    one_batch(database)
    assert found(database, hours(5.9)) is None
    assert found(database, hours(6)) == EventSilence(NOW, 5, None)
    assert found(database, hours(6), timedelta(0)) is None
    (message,) = told(database, hours(7))
    assert message.detail == ("5 emails left since 2026-03-27 07:00 UTC. The last event was never.")


def test_events_end_it_and_the_next_silence_is_another(database: Engine) -> None:
    send = one_batch(database)
    (first,) = told(database, hours(7))
    report(database, send, "delivered", [1], timestamp=int(hours(8).timestamp()))
    assert told(database, hours(9)) == []
    hand_over(database)
    left(database, send, 2, hours(9))
    assert told(database, hours(14)) == []
    (second,) = told(database, hours(15))
    assert second.key != first.key
    assert second.key == told(database, hours(16))[0].key
    assert "The last event was of 2026-03-27 15:00 UTC." in second.detail


def test_an_event_of_the_second_in_which_the_email_left_is_enough(database: Engine) -> None:
    send = one_batch(database)
    left(database, send, 1, NOW + timedelta(seconds=0.9))
    report(database, send, "delivered", [1], timestamp=int(NOW.timestamp()))
    assert found(database, hours(7)) is None


def test_an_unsubscribe_by_our_own_link_proves_nothing(database: Engine) -> None:
    send = one_batch(database)
    report(database, send, "unsubscribe", [1], timestamp=int(hours(1).timestamp()))
    assert found(database, hours(7)) is not None


def test_emails_of_days_ago_are_not_waited_for(database: Engine) -> None:
    one_batch(database)
    assert found(database, hours(24 * 4)) is None
