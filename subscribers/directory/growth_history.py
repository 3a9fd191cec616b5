"""The growth of the audience: one row for each day, written by the scheduler's counting job."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import select

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from subscribers.directory.status_counts import StatusCounts, SubscriberStatus
from subscribers.models import AudienceDay

_day = table_of(AudienceDay)
#: A small list is counted for each page view, but its row is rewritten no more often than this.
_EVERY = timedelta(hours=1)


def is_due(session: Session, *, now: datetime) -> bool:
    """Whether today's row is missing or old."""
    last = session.scalar(
        select(_day.c.counted_at).where(_day.c.day == _name(now.astimezone(UTC).date()))
    )
    return last is None or now - last >= _EVERY


def save_day(session: Session, counts: StatusCounts, *, now: datetime) -> None:
    """Write or replace today's row."""
    values = {"people": counts.people, "active": counts.by_status.get(SubscriberStatus.ACTIVE, 0)}
    insert = insert_into(session, _day).values(
        day=_name(now.astimezone(UTC).date()), counted_at=now, **values
    )
    session.execute(
        insert.on_conflict_do_update(index_elements=["day"], set_={**values, "counted_at": now})
    )


def since(session: Session, day: date) -> list[AudienceDay]:
    """The recorded days from ``day`` on, oldest first."""
    rows = select(AudienceDay).where(_day.c.day >= _name(day)).order_by(_day.c.day)
    return list(session.scalars(rows))


def _name(day: date) -> str:
    return day.isoformat()
