"""From a decision to the ledger: the one place where each kind of decision is written down."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from newsletter.sending import hold, ledger, oversight
from newsletter.sending.ledger import Claimed
from newsletter.sending.recipients import Person
from newsletter.sending.retry import (
    Decision,
    Doubt,
    Reject,
    RejectOne,
    Settled,
    Split,
    StopSend,
    TryAgain,
)
from newsletter.sending.states import SendState
from subscribers.schema import Session

_log = logging.getLogger(__name__)


def settle(
    session: Session,
    batch: Claimed,
    people: Sequence[Person],
    decision: Decision,
    *,
    now: datetime,
    patience: timedelta,
) -> None:
    """Write down what became of a batch of these people.

    Trouble on the line that lasts longer than ``patience`` pauses the send.
    """
    if not isinstance(decision, Settled):
        _log.warning("send %s, batch %s: %s", batch.send_id, batch.number, decision)
    match decision:
        case Settled(message_id):
            ledger.accepted(session, batch, now=now, message_id=message_id)
        case TryAgain(wait, reason, asked):
            ledger.put_back(session, batch, detail=reason)
            lasted = hold.impose(session, now=now, until=now + wait, reason=reason)
            if lasted > patience and not asked:
                minutes = int(lasted.total_seconds() // 60)
                why = f"for {minutes} minutes: {reason}. Mend it, then `newsletter sends resume`."
                _pause(session, batch, why, now)
        case Reject(reason):
            ledger.rejected(session, batch, now=now, reason=reason)
        case RejectOne(index, reason):
            ledger.rejected_one(session, batch, people[index]["id"], reason=reason)
        case Split(reason):
            half = [person["id"] for person in people[len(people) // 2 :]]
            ledger.split(session, batch, half, reason=reason)
        case StopSend(reason):
            ledger.put_back(session, batch, detail=reason)
            _pause(session, batch, reason, now)
        case Doubt(reason):
            ledger.doubted(session, batch, reason=reason)


def _pause(session: Session, batch: Claimed, reason: str, now: datetime) -> None:
    oversight.move_send(
        session, batch.send_id, SendState.PAUSED, reason=reason[:1000], paused_at=now
    )
