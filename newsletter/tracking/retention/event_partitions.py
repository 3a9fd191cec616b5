"""Partitions of the event table, one for each month.

On PostgreSQL each month is a partition, so that deleting one costs nothing and leaves no dead
rows. On SQLite old rows are deleted in slices, and new rows fill their space.
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
#: The partitions of this many months are created before they begin.
_MONTHS_AHEAD = 2
#: How long a change of the table waits for readers; after that the next run tries again.
_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '5s'")
_TABLES = text(
    "SELECT relid::regclass::text FROM pg_partition_tree('event') WHERE isleaf ORDER BY 1"
)


def month_start(at: datetime) -> datetime:
    """The start of the month that ``at`` is in, in UTC."""
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def prepare(session: Session, *, now: datetime) -> None:
    """On PostgreSQL, create the partitions of this month and the next ones."""
    if not is_postgresql(session):
        return
    existing, month = set(session.scalars(_TABLES)), month_start(now)
    for _ in range(1 + _MONTHS_AHEAD):
        if _name(month) not in existing:
            try:
                with session.begin_nested():
                    session.execute(_LOCK_TIMEOUT)
                    session.execute(text(_create_statement(month)))
            except DBAPIError as error:
                # Its events go to the default partition, and nothing is lost.
                _log.warning("cannot create %s: %s", _name(month), str(error.orig).strip())
        month = _next_month(month)


def remove(session: Session, *, before: datetime, at_most: int) -> int:
    """Delete events from before the start of a month; returns how many partitions or rows.

    It returns 0 once none are left. On PostgreSQL it drops partitions first, and then deletes rows
    of the default partition, which are few.
    """
    if is_postgresql(session):
        old = [name for name in _months(session) if name < _name(before)]
        if old:
            session.execute(_LOCK_TIMEOUT)
            session.execute(text(f"DROP TABLE {', '.join(old)}"))
            return len(old)
    # Rows up to a time, which may be more than a slice if many share that time.
    keys = select(_event.c.at, _event.c.key).where(_event.c.at < before).order_by(_event.c.at)
    last = session.execute(keys.offset(at_most - 1).limit(1)).first()
    only = _event.c.at < before if last is None else _event.c.at <= last.at
    return changed(session, delete(_event).where(only))


def _months(session: Session) -> Iterator[str]:
    return (name for name in session.scalars(_TABLES) if name != "event_other")


def _name(month: datetime) -> str:
    return f"event_{month:%Y_%m}"


def _create_statement(month: datetime) -> str:
    return (
        f"CREATE TABLE {_name(month)} PARTITION OF event "
        f"FOR VALUES FROM ('{month:%Y-%m-%d}T00:00Z') TO ('{_next_month(month):%Y-%m-%d}T00:00Z')"
    )
