"""The outbox of single emails: written in the transaction that causes them, sent within seconds.

A single email has the states of a batch, with one difference: when its answer is lost it is
sent again, because a second confirmation does no harm and a missing one costs a subscriber.
After a few lost answers it is given up, as each try may be one more copy. An email that was
surely not accepted is tried for a day.
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

_notice = table_of(OutboxEmail)

#: At most so many copies leave when every answer is lost.
_MAX_ATTEMPTS = 5
#: What can become of a single email, the weakest first; a stronger event replaces a weaker one.
_OUTCOMES = (
    EventKind.DELIVERED,
    EventKind.BLOCKED,
    EventKind.BOUNCE,
    EventKind.DROPPED,
    EventKind.SPAM_REPORT,
)
_AGAIN = timedelta(seconds=30)
#: An email that was surely not accepted is tried for so long; most links in it expire later.
_TRIED_FOR = timedelta(days=1)
#: The longest wait between two such tries: someone waits for the email.
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
    """Put an email into the outbox; it leaves after the caller's commit, or not at all."""
    notice = OutboxEmail(
        kind=kind,
        email=email,
        subject=mail.subject,
        html=mail.html,
        text=mail.text,
        created_at=now,
        not_before=now,
    )
    session.add(notice)
    session.flush()
    return notice.id


def any_due(session: Session, *, now: datetime) -> bool:
    """Whether an email is due; unlike a claim, this read delays no writer."""
    due = select(1).where(_notice.c.state == BatchState.PENDING, _notice.c.not_before <= now)
    return session.scalar(due.limit(1)) is not None


def claim(session: Session, *, now: datetime, lease: timedelta) -> ClaimedEmail | None:
    """Claim the earliest due email; it is in flight once the transaction is committed."""
    due = (
        select(_notice.c.id)
        .where(_notice.c.state == BatchState.PENDING, _notice.c.not_before <= now)
        .order_by(_notice.c.not_before, _notice.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    notice_id = session.scalar(due)
    if notice_id is None:
        return None
    row = session.execute(
        update(_notice)
        .where(_notice.c.id == notice_id, _notice.c.state == BatchState.PENDING)
        .values(state=BatchState.IN_FLIGHT, attempt=_notice.c.attempt + 1, lease_until=now + lease)
        .returning(_notice)
    ).one()
    mail = OutgoingEmail(row.subject, row.html, row.text)
    return ClaimedEmail(row.id, row.attempt, row.kind, row.email, mail, row.created_at)


def request(
    notice: ClaimedEmail, *, sender_email: str, sender_name: str, reply_to: str = ""
) -> MailRequest:
    """The request for one email, without tracking, as no one has agreed to that.

    The header keeps programs from answering it (RFC 3834, section 5).
    """
    return MailRequest(
        sender_email=sender_email,
        sender_name=sender_name,
        reply_to=reply_to or None,
        headers={"Auto-Submitted": "auto-generated"},
        subject=notice.mail.subject,
        text=notice.mail.text,
        html=notice.mail.html,
        recipients=[Recipient(notice.email, {}, {}, {})],
        custom_args={NOTICE: str(notice.id)},
        categories=(f"notice-{notice.kind}",),
        answers=True,
    )


def settle(session: Session, notice: ClaimedEmail, decision: Decision, *, now: datetime) -> None:
    """Write what follows from the provider's answer to an email."""
    match decision:
        case Settled(message_id):
            _move(session, notice, BatchState.ACCEPTED, settled_at=now, message_id=message_id)
        case RejectBatch(reason) | RejectOne(_, reason) | Split(reason):
            _move(session, notice, BatchState.REJECTED, settled_at=now, detail=reason[:1000])
        case TryAgain(wait, reason, asked):
            _not_taken(
                session, notice, wait if asked else max(wait, _pause(notice, now)), reason, now
            )
        case StopSend(_, reason):
            # An operator corrects it; those who signed up meanwhile still get their email.
            _not_taken(session, notice, max(_AGAIN, _pause(notice, now)), reason, now)
        case Uncertain(reason) if notice.attempt < _MAX_ATTEMPTS:
            after = now + _AGAIN * notice.attempt
            _move(session, notice, BatchState.PENDING, not_before=after, detail=reason[:1000])
        case Uncertain(reason):
            _move(session, notice, BatchState.REJECTED, settled_at=now, detail=reason[:1000])


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
            update(_notice)
            .where(
                _notice.c.id == event.notice_id,
                func.lower(_notice.c.email) == (event.email or "").lower(),
                _notice.c.outcome.in_(weaker),
            )
            .values(outcome=event.kind, outcome_reason=without_addresses(event.reason))
        )


def recover_abandoned(session: Session, *, now: datetime) -> None:
    """Make emails pending again that a dead worker had in flight."""
    session.execute(
        update(_notice)
        .where(_notice.c.state == BatchState.IN_FLIGHT, _notice.c.lease_until < now)
        .values(state=BatchState.PENDING, not_before=now)
    )


def sweep(session: Session, *, settled_before: datetime) -> None:
    """Delete old emails, because they contain addresses and links."""
    session.execute(delete(_notice).where(_notice.c.settled_at < settled_before))


def _pause(notice: ClaimedEmail, now: datetime) -> timedelta:
    """As long as it has waited already, so that tries become rare while trouble lasts."""
    return min(now - notice.created_at, _LONGEST_WAIT)


def _not_taken(
    session: Session, notice: ClaimedEmail, wait: timedelta, reason: str, now: datetime
) -> None:
    """Try again without counting this try, because no copy can have arrived."""
    if now - notice.created_at >= _TRIED_FOR:
        _move(session, notice, BatchState.REJECTED, settled_at=now, detail=reason[:1000])
        return
    # The attempt of this claim is not used again before the next claim counts it up.
    _move(
        session,
        notice,
        BatchState.PENDING,
        attempt=notice.attempt - 1,
        not_before=now + wait,
        detail=reason[:1000],
    )


def _move(session: Session, notice: ClaimedEmail, target: BatchState, **values: object) -> None:
    session.execute(
        update(_notice)
        .where(
            _notice.c.id == notice.id,
            _notice.c.attempt == notice.attempt,
            _notice.c.state == BatchState.IN_FLIGHT,
        )
        .values(state=target, **values)
    )
