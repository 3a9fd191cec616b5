"""What the provider holds of a send until its time, because it was handed over ahead.

It has reached nobody yet: its send is not over, and can be stopped. The batch says what the
provider was told of it, once the provider has heard it: what it keeps back beyond its time
has not left either, and what it was asked to let go may have.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.models import Batch, Send
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.states import BatchState

_send, _batch = table_of(Send), table_of(Batch)
#: What the provider holds for less may be on its way ("stopping a scheduled send").
SURELY = timedelta(minutes=10)
#: Details of accepted batches.
_KEPT = "the provider keeps it until the send goes on"
_LET_GO = "the provider was asked to let it go, and has not answered"
#: Whether the provider keeps it back, whatever its time is.
KEPT = (_batch.c.state == BatchState.ACCEPTED) & (_batch.c.detail == _KEPT)
#: Requests that may have left, or are about to.
_OUT = (BatchState.CLAIMED, BatchState.IN_FLIGHT, BatchState.UNCERTAIN, BatchState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Held:
    """How many people's mail the provider holds, and until when."""

    people: int
    until: datetime
    #: It is stopped there: its time alone does not let it go.
    stopped: bool


def is_held(now: ColumnElement[datetime] | datetime) -> ColumnElement[bool]:
    """Whether the provider has the batch, and has not sent it on by ``now``."""
    waits = or_(_batch.c.hold_until > now, _batch.c.detail.in_([_KEPT, _LET_GO]))
    return (_batch.c.state == BatchState.ACCEPTED) & waits


def of(session: Session, send_id: int, *, now: datetime) -> Held | None:
    """What the provider holds of a send; None when it is nothing."""
    stopped = _batch.c.detail.in_([_KEPT, _LET_GO])
    row = session.execute(
        select(
            func.sum(_batch.c.size),
            func.max(_batch.c.hold_until),
            func.count().filter(stopped),
        ).where(_batch.c.send_id == send_id, is_held(now))
    ).one()
    return Held(int(row[0]), row[1], bool(row[2])) if row[0] else None


def keep(session: Session, send_id: int, *, now: datetime) -> None:
    """Note that the provider has heard that it is to keep back what it holds by now."""
    session.execute(
        update(_batch)
        .where(
            _batch.c.send_id == send_id,
            _batch.c.state == BatchState.ACCEPTED,
            _batch.c.hold_until > now + SURELY,
        )
        .values(detail=_KEPT)
    )


def begin_to_let_go(session: Session, send_id: int) -> None:
    """Note that the provider is about to be told to let go what it keeps back."""
    _note(session, send_id, _KEPT, _LET_GO)


def let_go(session: Session, send_id: int) -> None:
    """Note that the provider has heard it, and what it held goes out at its time, or now; or
    that nobody will ever know."""
    _note(session, send_id, _LET_GO, "")


def _note(session: Session, send_id: int, before: str, after: str) -> None:
    session.execute(
        update(_batch)
        .where(
            _batch.c.send_id == send_id,
            _batch.c.state == BatchState.ACCEPTED,
            _batch.c.detail == before,
        )
        .values(detail=after)
    )


def is_wanted(session: Session, send_id: int) -> bool:
    """Whether a retry of the send needs a name for what the provider is to hold."""
    stored = session.scalar(select(_send.c.timetable).where(_send.c.id == send_id))
    return Timetable.from_json(stored or {}).ahead is not None


def require_none(session: Session, send_id: int, *, now: datetime) -> None:
    """Raise SendError while the provider holds some of an ended send, or may take it to hold.

    Whoever waits for that has not missed the issue, and may yet be called back.
    """
    until = session.scalar(
        select(func.max(_batch.c.hold_until)).where(
            _batch.c.send_id == send_id,
            _batch.c.state.in_(_OUT),
            or_(_batch.c.hold_until > now, is_held(now)),
        )
    )
    if until is not None:
        raise SendError(
            f"SendGrid holds some of it until {until:%Y-%m-%d %H:%M} UTC",
            place=f"send {send_id}",
            hint=f"Wait for that, or: newsletter sends cancel {send_id}",
        )
