"""How the audience grew: a row for each day, written by the clock as it counts people."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import select

from newsletter.db.orm import Session, insert_into, table_of
from subscribers.directory.status_counts import Headcounts, State
from subscribers.models import AudienceDay

_day = table_of(AudienceDay)
#: A small list is counted for each page, but written down no more often than this.
_EVERY = timedelta(hours=1)


def is_due(session: Session, *, now: datetime) -> bool:
    """Whether today's row is missing or old."""
    last = session.scalar(
        select(_day.c.counted_at).where(_day.c.day == _name(now.astimezone(UTC).date()))
    )
    return last is None or now - last >= _EVERY


def keep(session: Session, counted: Headcounts, *, now: datetime) -> None:
    """Write today's row, or write it anew."""
    values = {"people": counted.people, "active": counted.by_state.get(State.ACTIVE, 0)}
    insert = insert_into(session, _day).values(
        day=_name(now.astimezone(UTC).date()), counted_at=now, **values
    )
    session.execute(
        insert.on_conflict_do_update(index_elements=["day"], set_={**values, "counted_at": now})
    )


def since(session: Session, day: date) -> list[AudienceDay]:
    """The days from that one on for which there are figures, the first first."""
    wanted = select(AudienceDay).where(_day.c.day >= _name(day)).order_by(_day.c.day)
    return list(session.scalars(wanted))


def _name(day: date) -> str:
    return day.isoformat()
