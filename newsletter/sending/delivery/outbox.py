"""The outbox of single emails: written in the caller's transaction, sent within seconds.

A single email has the states of a batch, with one difference. When its answer is lost, it is
sent again: a second confirmation does no harm, and a missing one costs a subscriber. After a few
lost answers it is rejected, because each try may be one more copy. An email that the provider did
not accept is tried for a day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update

from newsletter.db.orm import Session, table_of
from newsletter.provider.events import NOTICE, Event, EventKind
from newsletter.provider.gateway import MailRequest, Recipient
from newsletter.sending.models import OutboxEmail
from newsletter.sending.retry_policy import (
    Decision,
    RejectBatch,
    RejectOne,
    Settled,
    Split,
    StopSend,
    TryAgain,
    Uncertain,
)
from newsletter.sending.states import BatchState
from subscribers.email_address import without_addresses

_outbox = table_of(OutboxEmail)

#: The most tries with lost answers, and so the most copies.
_MAX_ATTEMPTS = 5
#: What can become of a single email, the weakest first; a stronger event replaces a weaker one.
_OUTCOMES = (
    EventKind.DELIVERED,
    EventKind.BLOCKED,
    EventKind.BOUNCE,
    EventKind.DROPPED,
    EventKind.SPAM_REPORT,
)
_RETRY_DELAY = timedelta(seconds=30)
#: An email that was not accepted is tried for this long; most links in it expire later.
_MAX_AGE = timedelta(days=1)
#: The longest wait between two such tries: a subscriber waits for the email.
_LONGEST_WAIT = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class OutgoingEmail:
    """The complete content of one email: nothing in it is substituted."""

    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class ClaimedEmail:
    """A single email that this worker has claimed."""

    id: int
    attempt: int
    kind: str
    email: str
    mail: OutgoingEmail
    created_at: datetime


def enqueue(session: Session, *, kind: str, email: str, mail: OutgoingEmail, now: datetime) -> int:
    """Put an email into the outbox; it is sent after the caller's commit."""
    row = OutboxEmail(
        kind=kind,
        email=email,
        subject=mail.subject,
        html=mail.html,
        text=mail.text,
        created_at=now,
        not_before=now,
    )
    session.add(row)
    session.flush()
    return row.id


def any_due(session: Session, *, now: datetime) -> bool:
    """Whether an email is due; unlike a claim, this read delays no writer."""
    due = select(1).where(_outbox.c.state == BatchState.PENDING, _outbox.c.not_before <= now)
    return session.scalar(due.limit(1)) is not None


def claim(session: Session, *, now: datetime, lease: timedelta) -> ClaimedEmail | None:
    """Claim the earliest due email; it is in flight once the transaction is committed."""
    due = (
        select(_outbox.c.id)
        .where(_outbox.c.state == BatchState.PENDING, _outbox.c.not_before <= now)
        .order_by(_outbox.c.not_before, _outbox.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    email_id = session.scalar(due)
    if email_id is None:
        return None
    row = session.execute(
        update(_outbox)
        .where(_outbox.c.id == email_id, _outbox.c.state == BatchState.PENDING)
        .values(state=BatchState.IN_FLIGHT, attempt=_outbox.c.attempt + 1, lease_until=now + lease)
        .returning(_outbox)
    ).one()
    mail = OutgoingEmail(row.subject, row.html, row.text)
    return ClaimedEmail(row.id, row.attempt, row.kind, row.email, mail, row.created_at)


def request(
    claimed: ClaimedEmail, *, sender_email: str, sender_name: str, reply_to: str = ""
) -> MailRequest:
    """The request for one email. Without tracking, because the recipient has not agreed to it.

    The Auto-Submitted header keeps programs from replying to it (RFC 3834, section 5).
    """
    return MailRequest(
        sender_email=sender_email,
        sender_name=sender_name,
        reply_to=reply_to or None,
        headers={"Auto-Submitted": "auto-generated"},
        subject=claimed.mail.subject,
        text=claimed.mail.text,
        html=claimed.mail.html,
        recipients=[Recipient(claimed.email, {}, {}, {})],
        custom_args={NOTICE: str(claimed.id)},
        categories=(f"notice-{claimed.kind}",),
        answers=True,
    )


def settle(session: Session, claimed: ClaimedEmail, decision: Decision, *, now: datetime) -> None:
    """Write what follows from the provider's answer to an email."""
    match decision:
        case Settled(message_id):
            _move(session, claimed, BatchState.ACCEPTED, settled_at=now, message_id=message_id)
        case RejectBatch(reason) | RejectOne(_, reason) | Split(reason):
            _move(session, claimed, BatchState.REJECTED, settled_at=now, detail=reason[:1000])
        case TryAgain(wait, reason, set_by_provider):
            _retry(
                session,
                claimed,
                wait if set_by_provider else max(wait, _retry_wait(claimed, now)),
                reason,
                now,
            )
        case StopSend(_, reason):
            # After an operator has corrected the cause, the email is still sent.
            _retry(session, claimed, max(_RETRY_DELAY, _retry_wait(claimed, now)), reason, now)
        case Uncertain(reason) if claimed.attempt < _MAX_ATTEMPTS:
            after = now + _RETRY_DELAY * claimed.attempt
            _move(session, claimed, BatchState.PENDING, not_before=after, detail=reason[:1000])
        case Uncertain(reason):
            _move(session, claimed, BatchState.REJECTED, settled_at=now, detail=reason[:1000])


def note_outcomes(session: Session, events: Sequence[Event]) -> None:
    """Write what events report about single emails; the strongest event of each stays.

    The address has to match: another installation on the account uses the same numbers.
    """
    for event in sorted(
        (one for one in events if one.notice_id is not None and one.kind in _OUTCOMES),
        key=lambda one: (one.notice_id or 0, one.key),
    ):
        weaker = ["", *_OUTCOMES[: _OUTCOMES.index(event.kind)]]
        session.execute(
            update(_outbox)
            .where(
                _outbox.c.id == event.notice_id,
                func.lower(_outbox.c.email) == (event.email or "").lower(),
                _outbox.c.outcome.in_(weaker),
            )
            .values(outcome=event.kind, outcome_reason=without_addresses(event.reason))
        )


def recover_abandoned(session: Session, *, now: datetime) -> None:
    """Make emails pending again that a dead worker had in flight."""
    session.execute(
        update(_outbox)
        .where(_outbox.c.state == BatchState.IN_FLIGHT, _outbox.c.lease_until < now)
        .values(state=BatchState.PENDING, not_before=now)
    )


def delete_old(session: Session, *, settled_before: datetime) -> None:
    """Delete old emails, because they contain addresses and links."""
    session.execute(delete(_outbox).where(_outbox.c.settled_at < settled_before))


def _retry_wait(claimed: ClaimedEmail, now: datetime) -> timedelta:
    """The time since the email was created: tries become rarer while the trouble lasts."""
    return min(now - claimed.created_at, _LONGEST_WAIT)


def _retry(
    session: Session, claimed: ClaimedEmail, wait: timedelta, reason: str, now: datetime
) -> None:
    """Try again later. The attempt does not count, because the provider accepted no copy."""
    if now - claimed.created_at >= _MAX_AGE:
        _move(session, claimed, BatchState.REJECTED, settled_at=now, detail=reason[:1000])
        return
    # The next claim gets the same attempt number, which is safe: this claim writes nothing more.
    _move(
        session,
        claimed,
        BatchState.PENDING,
        attempt=claimed.attempt - 1,
        not_before=now + wait,
        detail=reason[:1000],
    )


def _move(session: Session, claimed: ClaimedEmail, target: BatchState, **values: object) -> None:
    session.execute(
        update(_outbox)
        .where(
            _outbox.c.id == claimed.id,
            _outbox.c.attempt == claimed.attempt,
            _outbox.c.state == BatchState.IN_FLIGHT,
        )
        .values(state=target, **values)
    )
