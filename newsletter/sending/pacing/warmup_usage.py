"""Counts the emails of each day, sent and scheduled, against the volumes of a warm-up.

The volumes are for all sends together. An email counts on the day on which it leaves.
"""

from collections import Counter
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import case, func, select

from newsletter.db.dialect import lock
from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Batch
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.sending_windows import local_moment
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.states import BatchState

_batch = table_of(Batch)
#: The name of the advisory lock under which volumes are given to sends.
_LOCK = "newsletter warm-up"
#: A day on which the clocks are put back an hour.
_LONGEST_DAY = timedelta(hours=25)
#: Batches in these states reach no recipient.
_NOT_SENT = (BatchState.REJECTED, BatchState.SKIPPED)
_leaves_at = case(
    # A batch that is pending again left once and was not accepted, so departed_at is past.
    (_batch.c.state.in_([BatchState.PENDING, BatchState.CLAIMED]), _batch.c.not_before),
    else_=func.coalesce(_batch.c.departed_at, _batch.c.not_before),
)


def with_other_sends(
    session: Session, warm_up: WarmUp | None, timetable: Timetable, send_id: int | None
) -> WarmUp | None:
    """The warm-up with what all other sends have used, or will use, of each day's volume.

    A caller that writes a plan gives ``send_id``: it then holds a lock until its transaction
    ends, so that no other plan uses the same volume. Without ``send_id`` it is an estimate.
    """
    if warm_up is None or not warm_up.volumes:
        return None
    if send_id is not None:
        lock(session, _LOCK)
    zone = ZoneInfo(timetable.zone)
    rows = session.execute(
        select(_leaves_at, _batch.c.size).where(
            _batch.c.send_id != (send_id or 0),
            _batch.c.state.not_in(_NOT_SENT),
            _leaves_at >= local_moment(warm_up.begins, time.min, zone),
        )
    )
    used = Counter[date]()
    for moment, size in rows:
        assert isinstance(moment, datetime)
        used[moment.astimezone(zone).date()] += size
    return replace(warm_up, used=used)


def usage_of_send(session: Session, send_id: int, *, now: datetime) -> list[tuple[datetime, int]]:
    """(time, size) of the send's batches that left within the last day, or are about to leave."""
    rows = session.execute(
        select(_batch.c.state, _leaves_at, _batch.c.size).where(
            _batch.c.send_id == send_id,
            _batch.c.state.not_in([*_NOT_SENT, BatchState.PENDING]),
            (_batch.c.state == BatchState.CLAIMED) | (_leaves_at > now - _LONGEST_DAY),
        )
    )
    return [(now if state == BatchState.CLAIMED else at, size) for state, at, size in rows]
