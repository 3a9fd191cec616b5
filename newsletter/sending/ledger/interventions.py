"""Records in the departure log when an operator pauses, cancels or resumes a send.

Each intervention is a line in the log, and ``send.intervened_at`` has the time of the latest. A
line with a later time is an intervention that a restored database has lost. The send is then
paused, so that a cancelled send does not go on, and the operator decides.
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

#: The key of ``Session.info`` under which interventions wait for the departure log.
INTERVENTIONS: Final = "interventions"
PAUSED, CANCELLED, RESUMED = "paused", "cancelled", "went on"
KINDS: Final = frozenset({PAUSED, CANCELLED, RESUMED})
_KIND: Final[Mapping[SendState, str]] = {
    SendState.PAUSED: PAUSED,
    SendState.CANCELLED: CANCELLED,
    SendState.SENDING: RESUMED,
    SendState.SCHEDULED: RESUMED,
}


class Intervention(NamedTuple):
    """What an operator did with a send; ``send_id`` and ``made_at`` identify the send."""

    send_id: int
    made_at: datetime
    what: str
    at: datetime


def record(session: Session, send: Send, target: SendState, *, now: datetime) -> None:
    """Record that an operator moved a send to this state.

    Its time is later than that of the previous intervention, even if a machine's clock is behind.
    """
    at = max(now, send.intervened_at + timedelta(microseconds=1)) if send.intervened_at else now
    session.execute(update(_send).where(_send.c.id == send.id).values(intervened_at=at))
    recorded = session.info.setdefault(INTERVENTIONS, [])
    recorded.append(Intervention(send.id, send.created_at, _KIND[target], at))


def restore(session: Session, send_id: int, what: str, at: datetime, *, now: datetime) -> bool:
    """Pause a send whose pause or cancellation the restored database has lost.

    Returns whether it was paused.
    """
    send = session.execute(select(_send).where(_send.c.id == send_id).with_for_update()).one()
    if send.intervened_at is not None and send.intervened_at >= at:
        return False
    session.execute(update(_send).where(_send.c.id == send.id).values(intervened_at=at))
    if what == RESUMED:
        return False
    when = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    reason = f"it was {what} at {when}, and the database was restored from an older backup"
    if send.state == SendState.PAUSED:
        why = {"reason": reason, "paused_by": PauseCause.RESTORE}
        session.execute(update(_send).where(_send.c.id == send.id).values(**why))
        return True
    return sends.pause(session, send.id, PauseCause.RESTORE, reason=reason, now=now)
