"""Events by the month in which they happened: whole months go at once.

On PostgreSQL each month is a table of its own (a partition), so that removing one costs
nothing and leaves no holes. SQLite removes rows in slices and fills the room again.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import delete, select, text
from sqlalchemy.exc import DBAPIError

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Session, changed, table_of
from newsletter.tracking.models import EventRow

_log = logging.getLogger(__name__)
_event = table_of(EventRow)
#: Months that have their table before they begin.
_AHEAD = 2
#: Whoever reads events meanwhile is waited for so long, and otherwise till the next time.
_PATIENCE = text("SET LOCAL lock_timeout = '5s'")
_TABLES = text(
    "SELECT relid::regclass::text FROM pg_partition_tree('event') WHERE isleaf ORDER BY 1"
)


def first_of(moment: datetime) -> datetime:
    """The beginning of the moment's month, in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def after(month: datetime) -> datetime:
    """The beginning of the month after this one's."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def prepare(session: Session, *, now: datetime) -> None:
    """On PostgreSQL, make the tables of this month and the next ones."""
    if not is_postgresql(session):
        return
    there, month = set(session.scalars(_TABLES)), first_of(now)
    for _ in range(1 + _AHEAD):
        if _name(month) not in there:
            try:
                with session.begin_nested():
                    session.execute(_PATIENCE)
                    session.execute(text(_make(month)))
            except DBAPIError as error:
                # Its events go to the table of all other months, and nothing is lost.
                _log.warning("%s cannot be made: %s", _name(month), str(error.orig).strip())
        month = after(month)


def remove(session: Session, *, before: datetime, at_most: int) -> int:
    """Remove events from before a month's beginning; returns how many tables or rows, 0 at the end.

    On PostgreSQL whole tables, and then rows of other months, which are few.
    """
    if is_postgresql(session):
        old = [name for name in _months(session) if name < _name(before)]
        if old:
            session.execute(_PATIENCE)
            session.execute(text(f"DROP TABLE {', '.join(old)}"))
            return len(old)
    # One key after the other: rows of one moment may be more than a slice.
    keys = select(_event.c.at, _event.c.key).where(_event.c.at < before).order_by(_event.c.at)
    last = session.execute(keys.offset(at_most - 1).limit(1)).first()
    only = _event.c.at < before if last is None else _event.c.at <= last.at
    return changed(session, delete(_event).where(only))


def _months(session: Session) -> Iterator[str]:
    return (name for name in session.scalars(_TABLES) if name != "event_other")


def _name(month: datetime) -> str:
    return f"event_{month:%Y_%m}"


def _make(month: datetime) -> str:
    return (
        f"CREATE TABLE {_name(month)} PARTITION OF event "
        f"FOR VALUES FROM ('{month:%Y-%m-%d}T00:00Z') TO ('{after(month):%Y-%m-%d}T00:00Z')"
    )
