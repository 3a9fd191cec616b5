"""What is kept of old sends, on both databases: figures for good, the rest for a time."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select, text

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SendError
from newsletter.sending.ledger import summarize
from newsletter.sending.models import Delivery
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.tracking.models import EventRow, RecipientCounter
from newsletter.tracking.retention.prune import PruneReport, RetentionPolicy, prune
from newsletter.tracking.stats import counters
from newsletter.tracking.stats import verify as verify_counters
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, five, make_plan, make_send
from tests.newsletter.tracking.events.test_ingest import entry, sent, suppressed, take

pytestmark = pytest.mark.both_databases

__all__ = ["five", "sent"]

KEEP = RetentionPolicy(events=timedelta(days=90), deliveries=timedelta(days=400))
#: Of the events below.
MARCH = datetime(2026, 3, 27, 7, tzinfo=UTC)


def count(database: Engine, model: type) -> int:
    with reading(database) as session:
        return session.scalar(select(func.count()).select_from(table_of(model))) or 0


def opened(database: Engine, send: int) -> int:
    with reading(database) as session:
        return counters.of_send(session, send).get("opened", 0)


def when_ended(database: Engine, send: int) -> datetime:
    with reading(database) as session:
        finished = send_status.find(session, send).finished_at
        assert finished is not None
        return finished


def test_nothing_goes_before_its_time(database: Engine, sent: int) -> None:
    take(database, entry(sent, 1, "delivered"), entry(sent, 1, "open"))
    assert prune(database, KEEP, now=MARCH + timedelta(days=80)) == PruneReport()
    assert prune(database, RetentionPolicy(), now=MARCH + timedelta(days=8000)) == PruneReport()
    assert (count(database, EventRow), count(database, Delivery)) == (2, 5)
    assert count(database, RecipientCounter) == 1


def test_events_go_by_whole_months_and_their_figures_stay(database: Engine, sent: int) -> None:
    late = int(datetime(2026, 6, 30, tzinfo=UTC).timestamp())
    take(
        database,
        entry(sent, 1, "delivered"),
        entry(sent, 1, "open"),
        entry(sent, 2, "open"),
        entry(sent, 2, "open", at=late),
    )
    with transaction(database) as session:
        before = counters.of_send(session, sent)
    folded = prune(database, KEEP, now=MARCH + timedelta(days=96))
    assert folded.issues == folded.deliveries == 0
    assert folded.events > 0
    assert count(database, EventRow) == 1
    assert count(database, RecipientCounter) == 0
    with transaction(database) as session:
        assert counters.of_send(session, sent) == before
        # What cannot be counted again is not called wrong.
        assert sent not in verify_counters.sends(session)


def test_an_event_of_a_send_whose_figures_are_final_still_suppresses(
    database: Engine, sent: int
) -> None:
    take(database, entry(sent, 1, "open"))
    prune(database, KEEP, now=MARCH + timedelta(days=96))
    assert take(database, entry(sent, 1, "open", at=1774594999)).new == 1
    assert take(database, entry(sent, 2, "spamreport", at=1774594999)).suppressed == 1
    assert opened(database, sent) == 1
    assert list(suppressed(database).values()) == ["complained"]
    with reading(database) as session:
        assert "spamreport" not in counters.of_send(session, sent)


def test_deliveries_become_sums(database: Engine, sent: int) -> None:
    take(database, entry(sent, 1, "delivered"), entry(sent, 2, "bounce", type="bounce"))
    with reading(database) as session:
        before = send_status.get_status(session, sent).recipients
    folded = prune(database, KEEP, now=when_ended(database, sent) + timedelta(days=401))
    assert (folded.issues, folded.deliveries) == (1, 5)
    with reading(database) as session:
        where = send_status.get_status(session, sent)
        assert where.recipients == before == {"delivered": 1, "bounced": 1, "accepted": 3}
        assert where.adds_up
        with pytest.raises(SendError, match="its recipients were deleted on"):
            send_status.stream_recipients(session, sent)


def test_an_issue_whose_readers_are_forgotten_reaches_nobody_again(
    database: Engine, sent: int
) -> None:
    prune(database, KEEP, now=when_ended(database, sent) + timedelta(days=401))
    with pytest.raises(SendError, match="its recipients were deleted on"):
        make_send(database)
    with (
        pytest.raises(SendError, match="its recipients were deleted on"),
        transaction(database) as session,
    ):
        send_lifecycle.retry(session, sent, by=Actor(None, "operator"), now=MARCH, batch_size=2)


def test_an_issue_with_a_send_to_come_stays_open(database: Engine, five: list[int]) -> None:
    first, second = make_send(database), make_send(database)
    make_plan(database, first, batch_size=5)
    dispatcher(database, FakeGateway()).send_next()
    assert prune(database, KEEP, now=datetime(2030, 1, 1, tzinfo=UTC)).issues == 0
    with transaction(database) as session:
        summarize.close_issue(session, 1, now=MARCH)
    with pytest.raises(SendError, match="were deleted on"):
        make_plan(database, second)


def test_a_run_that_is_stopped_goes_on_the_next_time(
    database: Engine, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsletter.tracking.retention.prune._SLICE", 2)
    take(database, *(entry(sent, person, "open") for person in (1, 2, 3, 4, 5)))
    now = when_ended(database, sent) + timedelta(days=401)
    asked = iter([True, False])
    prune(database, KEEP, now=now, may_continue=lambda: next(asked, False))
    assert count(database, Delivery) == 5
    folded = prune(database, KEEP, now=now)
    assert folded.deliveries == 5
    assert (
        count(database, EventRow) == count(database, RecipientCounter) == count(database, Delivery)
    )
    assert count(database, Delivery) == 0
    assert prune(database, KEEP, now=now) == PruneReport()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_on_postgresql_each_month_has_a_table(database: Engine, sent: int) -> None:
    now = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    prune(database, KEEP, now=now)
    stamps = [datetime(2027, month, 15, tzinfo=UTC) for month in (1, 2, 7)]
    take(database, *(entry(sent, 1, "open", at=int(at.timestamp())) for at in stamps))
    with database.connect() as connection:
        rows = connection.execute(
            text("SELECT tableoid::regclass::text FROM event ORDER BY at")
        ).scalars()
        assert list(rows) == ["event_2027_01", "event_2027_02", "event_other"]
    folded = prune(database, KEEP, now=datetime(2027, 5, 2, tzinfo=UTC))
    assert folded.events > 0
    with database.connect() as connection:
        left = connection.execute(text("SELECT tableoid::regclass::text FROM event")).scalars()
        assert list(left) == ["event_2027_02", "event_other"]
