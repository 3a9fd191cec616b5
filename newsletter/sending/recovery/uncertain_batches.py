"""Doubtful batches: evidence first (newsletter.tracking), then policy, then the operator's word."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, true

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.sending.ledger import batches, reschedule
from newsletter.sending.models import Batch
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.queries.send_status import send_subject
from newsletter.sending.states import BatchState

_batch = table_of(Batch)
#: What the audit log says of resolved batches: whether the operator said that they were sent.
_RESOLVED = {True: "marked as sent", False: "sent again"}
#: Who decides has to know that it may be a third copy.
_RESENT = "; it was sent again before"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a look at abandoned and doubtful batches changed."""

    freed: int
    doubtful: int
    resent: int


@dataclass(frozen=True, slots=True)
class UncertainBatch:
    """A batch of which nobody knows whether the provider took it."""

    number: int
    people: int
    departed_at: datetime
    why: str


def sweep(
    session: Session,
    *,
    now: datetime,
    grace: timedelta,
    policy: str,
    warm_up: WarmUp | None = None,
) -> RecoveryReport:
    """Take back what dead workers held; after ``grace``, resend doubtful batches once if wanted."""
    freed, doubtful = batches.recover_abandoned(session, now=now)
    batches.drop_cancelled(session, now=now)
    resent = 0
    if policy == "resend":
        resent = batches.resend_uncertain(session, departed_before=now - grace, now=now)
    if resent:
        reschedule.reschedule_resent(session, now=now, warm_up=warm_up)
    return RecoveryReport(freed, doubtful, resent)


def listed(session: Session, send_id: int) -> list[UncertainBatch]:
    """The doubtful batches of a send, with what is known of them."""
    rows = session.execute(
        select(
            _batch.c.number, _batch.c.size, _batch.c.departed_at, _batch.c.detail, _batch.c.resent
        )
        .where(_batch.c.send_id == send_id, _batch.c.state == BatchState.UNCERTAIN)
        .order_by(_batch.c.number)
    )
    return [
        UncertainBatch(number, size, departed_at, detail + (_RESENT if resent else ""))
        for number, size, departed_at, detail, resent in rows
    ]


def overdue(session: Session, *, before: datetime) -> dict[int, int]:
    """Send → how many of its batches left before that time, and were not confirmed since."""
    rows = session.execute(
        select(_batch.c.send_id, func.count().label("batches"))
        .where(_batch.c.state == BatchState.UNCERTAIN, _batch.c.departed_at < before)
        .group_by(_batch.c.send_id)
        .order_by(_batch.c.send_id)
    )
    return {row.send_id: row.batches for row in rows}


def resolve(
    session: Session,
    send_id: int,
    number: int,
    *,
    by: Actor,
    sent: bool,
    now: datetime,
    warm_up: WarmUp | None = None,
) -> None:
    """Settle a doubtful batch by the operator's word; SendError when it is not in doubt."""
    doubtful = _locked(session, send_id, _batch.c.number == number)
    if not _settle(session, send_id, doubtful, sent=sent, now=now, warm_up=warm_up):
        numbers = ", ".join(str(one.number) for one in listed(session, send_id)) or "none"
        raise SendError(
            "this batch is not in doubt",
            place=f"send {send_id}, batch {number}",
            hint=f"In doubt: {numbers}.",
        )
    action = f"batch {number} {_RESOLVED[sent]}"
    audit.record(session, by, action, now=now, subject=send_subject(session, send_id))


def resolve_all(
    session: Session,
    send_id: int,
    *,
    by: Actor,
    sent: bool,
    now: datetime,
    left_by: datetime | None = None,
    warm_up: WarmUp | None = None,
) -> int:
    """Settle all doubtful batches of a send alike, by the operator's word; returns how many.

    ``left_by`` leaves out what left later, and was not in doubt when the operator looked.
    SendError when nothing is in doubt.
    """
    meant = _batch.c.departed_at <= left_by if left_by else true()
    doubtful = _locked(session, send_id, meant)
    settled = _settle(session, send_id, doubtful, sent=sent, now=now, warm_up=warm_up)
    if not settled:
        raise SendError(
            "nothing of it is in doubt",
            place=f"send {send_id}",
            hint="Look at the send again: events have settled it, or another user has.",
        )
    action = f"{settled} uncertain {'batch' if settled == 1 else 'batches'} {_RESOLVED[sent]}"
    audit.record(session, by, action, now=now, subject=send_subject(session, send_id))
    return settled


def _locked(session: Session, send_id: int, which: ColumnElement[bool]) -> list[int]:
    """Numbers of doubtful batches, which stay so until the transaction ends.

    Evidence may prove any batch; the operator is asked of doubtful ones alone, and a wrong
    number must not make one that still waits count as sent.
    """
    return list(
        session.scalars(
            select(_batch.c.number)
            .where(_batch.c.send_id == send_id, _batch.c.state == BatchState.UNCERTAIN, which)
            .order_by(_batch.c.number)
            .with_for_update()
        )
    )


def _settle(
    session: Session,
    send_id: int,
    numbers: Sequence[int],
    *,
    sent: bool,
    now: datetime,
    warm_up: WarmUp | None,
) -> int:
    if not numbers:
        return 0
    if sent:
        keys = [(send_id, number) for number in numbers]
        return batches.mark_accepted(
            session, keys, now=now, detail="the operator says that it was sent"
        )
    settled = batches.resend_by_operator(session, send_id, numbers, now=now)
    reschedule.reschedule_resent(session, now=now, warm_up=warm_up)
    # Of a send that was cancelled nothing goes out again: its people miss it, and say so.
    batches.drop_cancelled(session, now=now)
    return settled
