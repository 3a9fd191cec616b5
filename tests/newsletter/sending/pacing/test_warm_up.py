"""The volumes of a warm-up are kept by all sends together, whatever is done with them."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine

from newsletter.accounts.audit import Actor
from newsletter.db.engine import transaction
from newsletter.provider.gateway import Refused
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.planner import plan
from tests.conftest import NOW
from tests.newsletter.sending.conftest import FakeGateway, batches, drain, make_send, send_state

pytestmark = pytest.mark.both_databases

_DAY = timedelta(days=1)


def make_plan(
    database: Engine, send: int, warm_up: WarmUp, *, now: datetime, batch_size: int = 5
) -> None:
    with transaction(database) as session:
        plan(session, send, now=now, batch_size=batch_size, warm_up=warm_up)


def days_of(database: Engine, *sends: int) -> dict[date, int]:
    """Day → people whose mail goes out then."""
    days: dict[date, int] = {}
    for batch in (batch for send in sends for batch in batches(database, send)):
        if batch.state not in {"rejected", "skipped"}:
            left = batch.departed_at if batch.state == "accepted" else None
            day = (left or batch.not_before).date()
            days[day] = days.get(day, 0) + batch.size
    return days


def test_after_a_pause_a_send_without_a_timetable_keeps_to_it(
    database: Engine, five: list[int]
) -> None:
    warm_up = WarmUp(begins=NOW.date(), volumes=(1,) * 10)
    send = make_send(database)
    make_plan(database, send, warm_up, now=NOW, batch_size=1)
    with transaction(database) as session:
        send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason="wait", now=NOW)
        send_lifecycle.resume(
            session, send, by=Actor(None, "operator"), now=NOW + 4 * _DAY, warm_up=warm_up
        )
    later = {NOW.date() + n * _DAY: 1 for n in range(4, 9)}
    assert days_of(database, send) == later


@pytest.mark.parametrize("limit", ["warm-up", "per day"])
def test_a_retry_counts_what_its_send_has_mailed_today(
    database: Engine, five: list[int], limit: str
) -> None:
    now = datetime.now(UTC)
    warm_up = WarmUp(begins=now.date(), volumes=(2,) * 5 if limit == "warm-up" else ())
    timetable = Timetable(per_day=2 if limit == "per day" else None)
    send = make_send(database, at=now, timetable=timetable)
    make_plan(database, send, warm_up, now=now, batch_size=2)
    gateway = drain(database, FakeGateway())
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=now)
        send_lifecycle.retry(
            session, send, by=Actor(None, "operator"), now=now, batch_size=2, warm_up=warm_up
        )
    drain(database, gateway)
    assert len(gateway.mailed) == 2
    assert days_of(database, send) == {
        now.date(): 2,
        now.date() + _DAY: 2,
        now.date() + 2 * _DAY: 1,
    }


def test_what_waits_counts_on_the_day_on_which_it_goes_out(
    database: Engine, five: list[int]
) -> None:
    now = datetime.now(UTC)
    at = (now + _DAY).replace(second=0, microsecond=0)
    warm_up = WarmUp(begins=now.date(), volumes=(100, 5, 5))
    first, second = (
        make_send(
            database,
            slug=slug,
            at=now,
            timetable=Timetable(local_time=at.time(), local_date=at.date()),
        )
        for slug in ("first", "second")
    )
    make_plan(database, first, warm_up, now=now)
    make_plan(database, second, warm_up, now=now)
    assert days_of(database, first, second) == {at.date(): 5, at.date() + _DAY: 5}


def test_what_was_put_back_counts_on_its_new_day(database: Engine, five: list[int]) -> None:
    now = datetime.now(UTC)
    tomorrow = now + _DAY
    warm_up = WarmUp(begins=now.date(), volumes=(5,) * 5)
    first, second = make_send(database, at=now), make_send(database, slug="second", at=now)
    make_plan(database, first, warm_up, now=now)
    drain(database, FakeGateway(Refused(401, "key")))
    assert send_state(database, first) == "paused"
    with transaction(database) as session:
        send_lifecycle.resume(
            session, first, by=Actor(None, "operator"), now=tomorrow, warm_up=warm_up
        )
    make_plan(database, second, warm_up, now=tomorrow)
    assert days_of(database, first, second) == {
        tomorrow.date(): 5,
        tomorrow.date() + _DAY: 5,
    }
