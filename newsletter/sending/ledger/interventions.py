"""Remembers in the departure log when an operator pauses, cancels or resumes a send.

Each intervention is a line in the log, and its time is a column of the send. A line later than
that time is an intervention that a restored database has forgotten. The send is paused then,
so that a cancelled one does not run again, and the operator decides.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import select, update

from newsletter.db.orm import Session, table_of
from newsletter.sending.ledger import sends
from newsletter.sending.models import Send
from newsletter.sending.reasons import PauseCause
from newsletter.sending.states import SendState

_send = table_of(Send)

#: Where a session's ``info`` keeps its interventions, for the departure log.
INTERVENTIONS: Final = "interventions"
PAUSED, CANCELLED, WENT_ON = "paused", "cancelled", "went on"
KINDS: Final = frozenset({PAUSED, CANCELLED, WENT_ON})
_KIND: Final[Mapping[SendState, str]] = {
    SendState.PAUSED: PAUSED,
    SendState.CANCELLED: CANCELLED,
    SendState.SENDING: WENT_ON,
    SendState.SCHEDULED: WENT_ON,
}


class Intervention(NamedTuple):
    """What an operator did with a send, identified by its number and when it was made."""

    send_id: int
    made_at: datetime
    what: str
    at: datetime


def record(session: Session, send: Send, target: SendState, *, now: datetime) -> None:
    """Record that an operator moved a send to ``target``; later than any before, by any clock."""
    at = max(now, send.intervened_at + timedelta(microseconds=1)) if send.intervened_at else now
    session.execute(update(_send).where(_send.c.id == send.id).values(intervened_at=at))
    noted = session.info.setdefault(INTERVENTIONS, [])
    noted.append(Intervention(send.id, send.created_at, _KIND[target], at))


def recall(session: Session, send_id: int, what: str, at: datetime, *, now: datetime) -> bool:
    """Pause a send that an operator had paused or cancelled, if the database has forgotten it."""
    send = session.execute(select(_send).where(_send.c.id == send_id).with_for_update()).one()
    if send.intervened_at is not None and send.intervened_at >= at:
        return False
    session.execute(update(_send).where(_send.c.id == send.id).values(intervened_at=at))
    if what == WENT_ON:
        return False
    when = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    reason = (
        f"it was {what} before the database was restored ({when}); emails that left since the "
        "backup cannot be recalled"
    )
    if send.state == SendState.PAUSED:
        why = {"reason": reason, "paused_by": PauseCause.RESTORE}
        session.execute(update(_send).where(_send.c.id == send.id).values(**why))
        return True
    return sends.pause(session, send.id, PauseCause.RESTORE, reason=reason, now=now)
