"""The first figures of a send are told a day after its end, once, and not of tests."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sending.models import Send
from newsletter.tracking import send_report
from tests.conftest import NOW
from tests.newsletter.tracking.test_circuit_breaker import people, report, under_way

pytestmark = pytest.mark.both_databases
DAY = timedelta(days=1)


def ended(database: Engine, recipients: int, **values: object) -> int:
    people(database, recipients)
    send = under_way(database, batch_size=recipients)
    with transaction(database) as session:
        session.execute(update(table_of(Send)).values(finished_at=NOW, **values))
    return send


def told(database: Engine, at: datetime) -> list[Occasion]:
    with transaction(database) as session:
        found = send_report.occasions(session, now=at)
        operator_messages.post_all(session, found, now=at)
    return found


def test_the_figures_are_told_once_a_day_after_the_end(database: Engine) -> None:
    send = ended(database, 20)
    report(database, send, "delivered", range(1, 20))
    report(database, send, "bounce", [20])
    report(database, send, "click", [1, 2], url="https://example.org/")
    report(database, send, "spamreport", [3])
    assert told(database, NOW + DAY - timedelta(seconds=1)) == []
    (message,) = told(database, NOW + DAY)
    assert (message.kind, message.subject) == (MessageKind.SEND_FINISHED, send)
    assert message.detail == (
        "20 emails accepted, 19 delivered (95.00 %), 1 bounced (5.00 %), 0 opened (0.00 %), "
        "2 clicked (10.53 %), 0 unsubscribed (0.00 %), 1 marked as spam (5.26 %)."
    )
    assert told(database, NOW + DAY) == []


def test_what_is_not_measured_is_left_out(database: Engine) -> None:
    send = ended(database, 20, track_opens=False, track_clicks=False)
    report(database, send, "delivered", range(1, 21))
    (message,) = told(database, NOW + DAY)
    assert "opened" not in message.detail
    assert "clicked" not in message.detail


def test_a_tiny_test_and_a_send_of_long_ago_are_not_told(database: Engine) -> None:
    ended(database, 19)
    assert told(database, NOW + DAY) == []
    with transaction(database) as session:
        session.execute(update(table_of(Send)).values(accepted_count=20))
    assert told(database, NOW + 5 * DAY) == []
    with reading(database) as session:
        assert len(send_report.occasions(session, now=NOW + DAY)) == 1
