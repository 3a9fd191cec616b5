"""Recovers abandoned batches and resolves uncertain ones.

A batch is uncertain if its request left and no answer came. Events may prove it accepted
(newsletter.tracking); otherwise the policy resends it, or an operator decides.
"""

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
#: Whether the operator resolved a batch as sent → the words of the audit entry.
_RESOLVED = {True: "marked as sent", False: "sent again"}
#: Tells the operator that resending may send a third copy.
_RESENT = "; it was sent again before"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """How many batches ``recover`` changed."""

    requeued: int
    uncertain: int
    resent: int


@dataclass(frozen=True, slots=True)
class UncertainBatch:
    """A batch whose request was not answered: the provider may have accepted it."""

    number: int
    people: int
    departed_at: datetime
    why: str


def recover(
    session: Session,
    *,
    now: datetime,
    grace: timedelta,
    policy: str,
    warm_up: WarmUp | None = None,
) -> RecoveryReport:
    """Recover the batches of dead workers; with policy ``resend``, resend uncertain ones once.

    A batch is resent when it left more than ``grace`` ago.
    """
    requeued, uncertain = batches.recover_abandoned(session, now=now)
    batches.drop_cancelled(session, now=now)
    resent = 0
    if policy == "resend":
        resent = batches.resend_uncertain(session, departed_before=now - grace, now=now)
    if resent:
        reschedule.reschedule_resent(session, now=now, warm_up=warm_up)
    return RecoveryReport(requeued, uncertain, resent)


def list_uncertain(session: Session, send_id: int) -> list[UncertainBatch]:
    """The uncertain batches of a send, by number."""
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


def count_overdue(session: Session, *, before: datetime) -> dict[int, int]:
    """Send → its uncertain batches that left before this time."""
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
    """Resolve an uncertain batch as the operator decided: it was sent, or it is sent again.

    Raises SendError if the batch is not uncertain.
    """
    uncertain = _lock_uncertain(session, send_id, _batch.c.number == number)
    if not _resolve(session, send_id, uncertain, sent=sent, now=now, warm_up=warm_up):
        numbers = ", ".join(str(one.number) for one in list_uncertain(session, send_id)) or "none"
        raise SendError(
            "this batch is not uncertain",
            place=f"send {send_id}, batch {number}",
            hint=f"Uncertain batches: {numbers}.",
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
    """Resolve all uncertain batches of a send in the same way; returns how many.

    ``left_by`` limits this to batches that left by then, which the operator has seen. Raises
    SendError if no batch is uncertain.
    """
    condition = _batch.c.departed_at <= left_by if left_by else true()
    uncertain = _lock_uncertain(session, send_id, condition)
    settled = _resolve(session, send_id, uncertain, sent=sent, now=now, warm_up=warm_up)
    if not settled:
        raise SendError(
            "this send has no uncertain batch",
            place=f"send {send_id}",
            hint="Look at the send again: events have settled it, or another user has.",
        )
    action = f"{settled} uncertain {'batch' if settled == 1 else 'batches'} {_RESOLVED[sent]}"
    audit.record(session, by, action, now=now, subject=send_subject(session, send_id))
    return settled


def _lock_uncertain(session: Session, send_id: int, which: ColumnElement[bool]) -> list[int]:
    """Lock the uncertain batches that meet a condition until the transaction ends.

    Returns their numbers. Only uncertain batches: a wrong number must not mark a pending batch
    as sent.
    """
    return list(
        session.scalars(
            select(_batch.c.number)
            .where(_batch.c.send_id == send_id, _batch.c.state == BatchState.UNCERTAIN, which)
            .order_by(_batch.c.number)
            .with_for_update()
        )
    )


def _resolve(
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
            session, keys, now=now, detail="resolved as sent by an operator"
        )
    settled = batches.resend_by_operator(session, send_id, numbers, now=now)
    reschedule.reschedule_resent(session, now=now, warm_up=warm_up)
    # A cancelled send sends nothing again: its recipients are marked as not sent.
    batches.drop_cancelled(session, now=now)
    return settled
