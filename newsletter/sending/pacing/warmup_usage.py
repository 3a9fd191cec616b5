"""What has been mailed on each day, and will be: by other sends, and by a send itself.

The volumes of a warm-up are for all sends together. A mail counts on the day on which it
goes out: when the provider is to send it on, if it holds it until then.
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
_TURN = "newsletter warm-up"
#: No day is longer.
_LONGEST_DAY = timedelta(hours=25)
#: Nobody gets these.
_NEVER = (BatchState.REJECTED, BatchState.SKIPPED)
_planned = func.coalesce(_batch.c.hold_until, _batch.c.not_before)
_goes_out = case(
    # Whatever was put back had left once, and did not arrive.
    (_batch.c.state.in_([BatchState.PENDING, BatchState.CLAIMED]), _planned),
    (_batch.c.hold_until > _batch.c.departed_at, _batch.c.hold_until),
    else_=func.coalesce(_batch.c.departed_at, _planned),
)


def with_others(
    session: Session, warm_up: WarmUp | None, timetable: Timetable, send_id: int | None
) -> WarmUp | None:
    """The warm-up with what every other send has taken, or will take, of each day.

    Whoever writes a plan by it names the send, and has the days alone until the transaction
    ends; without a send it is a look at what would be.
    """
    if warm_up is None or not warm_up.volumes:
        return None
    if send_id is not None:
        lock(session, _TURN)
    zone = ZoneInfo(timetable.zone)
    rows = session.execute(
        select(_goes_out, _batch.c.size).where(
            _batch.c.send_id != (send_id or 0),
            _batch.c.state.not_in(_NEVER),
            _goes_out >= local_moment(warm_up.begins, time.min, zone),
        )
    )
    used = Counter[date]()
    for moment, size in rows:
        assert isinstance(moment, datetime)
        used[moment.astimezone(zone).date()] += size
    return replace(warm_up, used=used)


def of_its_own(session: Session, send_id: int, *, now: datetime) -> list[tuple[datetime, int]]:
    """What a send has mailed within the longest day, or will without being planned anew."""
    rows = session.execute(
        select(_batch.c.state, _goes_out, _batch.c.size).where(
            _batch.c.send_id == send_id,
            _batch.c.state.not_in([*_NEVER, BatchState.PENDING]),
            (_batch.c.state == BatchState.CLAIMED) | (_goes_out > now - _LONGEST_DAY),
        )
    )
    return [(now if state == BatchState.CLAIMED else at, size) for state, at, size in rows]
