"""What other sends take of a warm-up's days: its volumes are for all of them together."""

from collections import Counter
from dataclasses import replace
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from newsletter.sending.hours import local_moment
from newsletter.sending.limits import WarmUp
from newsletter.sending.models import Batch
from newsletter.sending.states import BatchState
from newsletter.sending.timetable import Timetable
from subscribers.schema import Session, table_of

_batch = table_of(Batch)
_TURN = "newsletter warm-up"


def with_others(
    session: Session, warm_up: WarmUp | None, timetable: Timetable, send_id: int | None
) -> WarmUp | None:
    """The warm-up with what every other send has taken, or will take, of each day.

    Whoever writes a plan by it names the send, and has the days alone until the transaction
    ends; without a send it is a look at what would be.
    """
    if warm_up is None or not warm_up.volumes:
        return None
    if send_id is not None and session.get_bind().dialect.name == "postgresql":
        # SQLite has one writer at a time anyway.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(_TURN))))
    zone = ZoneInfo(timetable.zone)
    leaves = func.coalesce(_batch.c.departed_at, _batch.c.hold_until, _batch.c.not_before)
    rows = session.execute(
        select(leaves, _batch.c.size).where(
            _batch.c.send_id != (send_id or 0),
            _batch.c.state.not_in([BatchState.REJECTED, BatchState.SKIPPED]),
            leaves >= local_moment(warm_up.begins, time.min, zone),
        )
    )
    used = Counter[date]()
    for moment, size in rows:
        assert isinstance(moment, datetime)
        used[moment.astimezone(zone).date()] += size
    return replace(warm_up, used=used)
