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
    backoff,
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
    jitter: float,
) -> None:
    """Write down what became of a batch of these people.

    A provider that cannot be reached, or of which nobody knows what it did, is asked by one
    probe at a time; trouble that lasts longer than ``patience`` pauses the send. ``jitter``
    is in [0, 1): how long until the next probe.
    """
    if not isinstance(decision, Settled):
        _log.warning("send %s, batch %s: %s", batch.send_id, batch.number, decision)
    match decision:
        case Settled(message_id):
            ledger.accepted(session, batch, now=now, message_id=message_id)
        case TryAgain(wait, reason, asked=True):
            ledger.put_back(session, batch, detail=reason)
            hold.impose(session, now=now, until=now + wait, reason=reason)
        case TryAgain(_, reason):
            ledger.put_back(session, batch, detail=reason)
            _stop_all(session, batch, reason, now=now, patience=patience, jitter=jitter)
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
            _stop_all(session, batch, reason, now=now, patience=patience, jitter=jitter)


def _stop_all(
    session: Session,
    batch: Claimed,
    reason: str,
    *,
    now: datetime,
    patience: timedelta,
    jitter: float,
) -> None:
    lasted = hold.fail(
        session,
        now=now,
        reason=reason,
        wait=lambda failures: backoff(failures, jitter),
        probe=batch.probe,
    )
    if lasted > patience:
        minutes = int(lasted.total_seconds() // 60)
        why = f"for {minutes} minutes: {reason}. Mend it, then `newsletter sends resume`."
        _pause(session, batch, why, now)


def _pause(session: Session, batch: Claimed, reason: str, now: datetime) -> None:
    oversight.move_send(
        session, batch.send_id, SendState.PAUSED, reason=reason[:1000], paused_at=now
    )
