"""Recomputes when pending batches leave: after a pause, a new pace, or a decided A/B test."""

from datetime import datetime

from sqlalchemy import bindparam, select, update

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, Part, Send
from newsletter.sending.pacing import warmup_usage
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import (
    ExistingBatch,
    Timetable,
    departure_times,
    is_paced,
)
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import BatchState, SendState

_send, _batch = table_of(Send), table_of(Batch)

_MOVE = (
    update(_batch)
    .where(
        _batch.c.send_id == bindparam("of_send"),
        _batch.c.number == bindparam("of_number"),
        _batch.c.state == BatchState.PENDING,
    )
    .values(not_before=bindparam("leaves"))
)


def reschedule(
    session: Session, send_id: int, *, now: datetime, warm_up: WarmUp | None = None
) -> int:
    """Set new departure times, from ``now`` on, for the pending batches; returns how many.

    Their order stays. Batches that wait for the winner of an A/B test are not changed:
    ``choose_winner`` reschedules them. Raises SendError when the timetable needs longer than a
    send may take.
    """
    send = session.execute(select(_send).where(_send.c.id == send_id)).one()
    timetable = Timetable.from_json(send.timetable)
    others = warmup_usage.with_other_sends(session, warm_up, timetable, send_id)
    # Without this lock, two concurrent calls would give the same quota to different batches.
    session.execute(select(_send.c.id).where(_send.c.id == send_id).with_for_update())
    rows = session.execute(
        select(_batch.c.number, _batch.c.size, _batch.c.zone)
        .where(
            _batch.c.send_id == send_id,
            _batch.c.state == BatchState.PENDING,
            _batch.c.part != Part.REST,
        )
        .order_by(_batch.c.not_before, _batch.c.number)
    ).all()
    times = departure_times(
        timetable,
        [ExistingBatch(row.zone, row.size, now) for row in rows],
        start=now,
        warm_up=others,
        began=send.started_at,
        departed=warmup_usage.usage_of_send(session, send_id, now=now),
    )
    values = [
        {"of_send": send_id, "of_number": row.number, "leaves": time}
        for row, time in zip(rows, times, strict=True)
    ]
    if values:
        session.connection().execute(_MOVE, values)
    return len(rows)


def reschedule_or_pause(
    session: Session, send_id: int, *, now: datetime, warm_up: WarmUp | None
) -> None:
    """Like ``reschedule``, but pauses the send on SendError, because no operator sees the error."""
    try:
        reschedule(session, send_id, now=now, warm_up=warm_up)
    except SendError as error:
        sends.pause(session, send_id, PauseCause.TIMETABLE, reason=str(error), now=now)


def reschedule_resent(session: Session, *, now: datetime, warm_up: WarmUp | None) -> None:
    """Apply the timetables to uncertain batches that became pending at ``now``."""
    again = session.execute(
        select(_send.c.id, _send.c.timetable).where(
            _send.c.state.in_([SendState.SENDING, SendState.PAUSED]),
            _send.c.id.in_(
                select(_batch.c.send_id).where(
                    _batch.c.state == BatchState.PENDING, _batch.c.not_before == now
                )
            ),
        )
    ).all()
    for send_id, timetable in again:
        if is_paced(timetable) or warm_up is not None:
            reschedule_or_pause(session, send_id, now=now, warm_up=warm_up)
