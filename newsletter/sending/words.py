"""The operator's words on a send, which a restored database has forgotten: pause, cancel, go on.

Each is a line in the departure log, and its time stands at the send. A line that is later than
that tells of a word which the database does not know, so that a send which was cancelled does
not come back to life: it is paused, and the operator decides.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import select, update

from newsletter.sending import oversight
from newsletter.sending.models import Send
from newsletter.sending.states import SendState
from subscribers.schema import Session, table_of

_send = table_of(Send)

#: Where a session's ``info`` keeps the words that were said in it, for the departure log.
SAID: Final = "words"
PAUSED, CANCELLED, WENT_ON = "paused", "cancelled", "went on"
WORDS: Final = frozenset({PAUSED, CANCELLED, WENT_ON})
_WORD: Final[Mapping[SendState, str]] = {
    SendState.PAUSED: PAUSED,
    SendState.CANCELLED: CANCELLED,
    SendState.SENDING: WENT_ON,
    SendState.SCHEDULED: WENT_ON,
}


class Word(NamedTuple):
    """What an operator said of a send, which is known by its number and when it was made."""

    send_id: int
    made_at: datetime
    what: str
    at: datetime


def say(session: Session, send: Send, target: SendState, *, now: datetime) -> None:
    """Write down that an operator moved a send to that state, whatever the clocks of machines."""
    at = max(now, send.told_at + timedelta(microseconds=1)) if send.told_at else now
    session.execute(update(_send).where(_send.c.id == send.id).values(told_at=at))
    said = session.info.setdefault(SAID, [])
    said.append(Word(send.id, send.created_at, _WORD[target], at))


def recall(session: Session, send_id: int, what: str, at: datetime, *, now: datetime) -> bool:
    """Pause a send that was paused or cancelled, if the database does not know that."""
    send = session.execute(select(_send).where(_send.c.id == send_id).with_for_update()).one()
    if send.told_at is not None and send.told_at >= at:
        return False
    session.execute(update(_send).where(_send.c.id == send.id).values(told_at=at))
    if what == WENT_ON:
        return False
    when = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    reason = (
        f"it was {what} before the database was restored ({when}); what had left since the backup "
        f"has left. Cancel it, or go on with it: newsletter sends cancel {send.id}, or resume"
    )
    if send.state == SendState.PAUSED:
        session.execute(update(_send).where(_send.c.id == send.id).values(reason=reason))
        return True
    return oversight.move_send(session, send.id, SendState.PAUSED, reason=reason, paused_at=now)
