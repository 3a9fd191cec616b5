"""From a decision to the ledger: the one place where each kind of decision is written down."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from newsletter.db.orm import Session
from newsletter.sending.delivery.retry_policy import (
    Decision,
    RejectBatch,
    RejectOne,
    Settled,
    Split,
    StopSend,
    TryAgain,
    Uncertain,
    backoff,
)
from newsletter.sending.ledger import batch_store, provider_backoff, send_store
from newsletter.sending.ledger.batch_store import ClaimedBatch
from newsletter.sending.ledger.recipients import EligibleRecipient
from newsletter.sending.states import SendState

_log = logging.getLogger(__name__)


def settle(
    session: Session,
    batch: ClaimedBatch,
    people: Sequence[EligibleRecipient],
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
            batch_store.accepted(session, batch, now=now, message_id=message_id)
        case TryAgain(wait, reason, asked=True):
            batch_store.put_back(session, batch, detail=reason)
            provider_backoff.back_off(session, now=now, until=now + wait, reason=reason)
        case TryAgain(_, reason):
            batch_store.put_back(session, batch, detail=reason)
            _stop_all(session, batch, reason, now=now, patience=patience, jitter=jitter)
        case RejectBatch(reason):
            batch_store.rejected(session, batch, now=now, reason=reason)
        case RejectOne(index, reason):
            batch_store.rejected_one(session, batch, people[index]["id"], reason=reason)
        case Split(reason):
            half = [person["id"] for person in people[len(people) // 2 :]]
            batch_store.split(session, batch, half, reason=reason)
        case StopSend(reason):
            batch_store.put_back(session, batch, detail=reason)
            _pause(session, batch, reason, now)
        case Uncertain(reason):
            batch_store.doubted(session, batch, reason=reason)
            _stop_all(session, batch, reason, now=now, patience=patience, jitter=jitter)


def _stop_all(
    session: Session,
    batch: ClaimedBatch,
    reason: str,
    *,
    now: datetime,
    patience: timedelta,
    jitter: float,
) -> None:
    lasted = provider_backoff.fail(
        session,
        now=now,
        reason=reason,
        wait=lambda failures: backoff(failures, jitter),
        probe=batch.probe,
    )
    if lasted > patience:
        minutes = int(lasted.total_seconds() // 60)
        why = f"for {minutes} minutes: {reason}. Fix it, then resume the send."
        _pause(session, batch, why, now)


def _pause(session: Session, batch: ClaimedBatch, reason: str, now: datetime) -> None:
    send_store.move_send(
        session, batch.send_id, SendState.PAUSED, reason=reason[:1000], paused_at=now
    )
