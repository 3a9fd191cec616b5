"""Changes the state of batches in bulk: by evidence, by the clock and by operators.

Evidence (an event, a departure log) outranks the database, which may have been restored from a
backup: it marks a batch as accepted in any open state. It never causes an email to be sent.
batch_store.py moves one batch from claim to settlement.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Integer, and_, exists, select, tuple_, update

from newsletter.db import bulk_rows
from newsletter.db.orm import Id, Session, changed, table_of
from newsletter.sending import traces
from newsletter.sending.ledger import deliveries, sends
from newsletter.sending.models import Batch, Delivery, Send, Worker
from newsletter.sending.states import BatchState, SendState, batches_that_may_become

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_worker = table_of(Worker)

_UNDER_WAY = (SendState.SENDING, SendState.PAUSED)


class DeliveryRef(NamedTuple):
    """The custom arguments of an email, which identify its delivery."""

    send_id: int
    batch: int
    issue_id: int
    subscriber_id: int


def open_batches_of(session: Session, refs: Iterable[DeliveryRef]) -> list[tuple[int, int]]:
    """The (send, number) of open batches that contain one of these deliveries.

    After a restore, a new plan may have other recipients under the same batch numbers. Then an
    event about a recipient who is not in the batch proves nothing about it.
    """
    by_batch: dict[tuple[int, int], list[DeliveryRef]] = {}
    for one in refs:
        by_batch.setdefault((one.send_id, one.batch), []).append(one)
    if not by_batch:
        return []
    still_open = session.execute(
        select(_batch.c.send_id, _batch.c.number).where(
            tuple_(_batch.c.send_id, _batch.c.number).in_(sorted(by_batch)),
            _batch.c.state.in_(batches_that_may_become(BatchState.ACCEPTED)),
        )
    ).all()
    if not still_open:  # nearly always; saves reading deliveries
        return []
    row = bulk_rows.table(session, send_id=Id, batch=Integer, issue_id=Id, subscriber_id=Id)
    rows = (one._asdict() for batch in still_open for one in sorted(by_batch[batch[0], batch[1]]))
    found = session.execute(
        select(row.c.send_id, row.c.batch)
        .join(_delivery, and_(*(_delivery.c[name] == row.c[name] for name in DeliveryRef._fields)))
        .distinct(),
        bulk_rows.values(session, rows),
    )
    return [(one[0], one[1]) for one in found]


def mark_accepted(
    session: Session,
    batches: Collection[tuple[int, int]],
    *,
    now: datetime,
    detail: str,
    finish: bool = True,
) -> int:
    """Mark (send, number) batches as accepted, by evidence; returns how many changed.

    Without ``finish`` no send is marked as sent, because the caller may still mark batches
    uncertain.
    """
    if not batches:
        return 0
    accepted = session.execute(
        update(_batch)
        .where(
            tuple_(_batch.c.send_id, _batch.c.number).in_(sorted(batches)),
            _batch.c.state.in_(batches_that_may_become(BatchState.ACCEPTED)),
        )
        .values(state=BatchState.ACCEPTED, settled_at=now, detail=detail)
        .returning(_batch.c.send_id, _batch.c.number)
    ).all()
    for send_id, number in sorted((row.send_id, row.number) for row in accepted):
        deliveries.accept(session, send_id, number)
    if accepted and finish:
        sends.finish(session, now=now)
    return len(accepted)


def mark_uncertain(
    session: Session, send_id: int, numbers: Collection[int], *, now: datetime, detail: str
) -> int:
    """Mark batches uncertain that left according to the departure log; returns how many."""
    return changed(
        session,
        update(_batch)
        .where(
            _batch.c.send_id == send_id,
            _batch.c.number.in_(sorted(numbers)),
            _batch.c.state.in_(batches_that_may_become(BatchState.UNCERTAIN)),
        )
        .values(state=BatchState.UNCERTAIN, departed_at=now, detail=detail),
    )


def recover_abandoned(session: Session, *, now: datetime) -> tuple[int, int]:
    """Recover the batches of dead workers: returns (claims released, batches now uncertain).

    A claimed batch has not left, so it is pending again. One in flight may have been accepted.
    A worker is dead when its heartbeat has stopped, even if the batch's lease lasts. A worker
    that was only slow has lost its claim, or settles the uncertain batch with its late answer.
    """
    alive = exists(select(1).where(_worker.c.name == _batch.c.worker, _worker.c.alive_until > now))
    abandoned = (_batch.c.lease_until < now) | ~alive
    released = changed(
        session,
        update(_batch)
        .where(_batch.c.state == BatchState.CLAIMED, abandoned)
        .values(state=BatchState.PENDING, worker=None, lease_until=None),
    )
    uncertain = session.execute(
        update(_batch)
        .where(_batch.c.state == BatchState.IN_FLIGHT, abandoned)
        .values(state=BatchState.UNCERTAIN, detail="the worker ended before the answer came")
        .returning(_batch.c.send_id, _batch.c.number)
    ).all()
    if uncertain:
        traces.abandoned(session, [(row.send_id, row.number) for row in uncertain])
    return released, len(uncertain)


def resend_uncertain(session: Session, *, departed_before: datetime, now: datetime) -> int:
    """Make uncertain batches pending again, as the policy says; risks a second copy.

    A batch is resent once: if it is uncertain again, it waits for an operator.
    """
    return _resend(
        session,
        _batch.c.departed_at < departed_before,
        _batch.c.resent.is_(False),
        # Batches of an ended send stay uncertain, so that evidence can still settle them. If
        # they were dropped, their recipients would count as having missed the issue.
        _batch.c.send_id.in_(select(_send.c.id).where(_send.c.state.in_(_UNDER_WAY))),
        now=now,
        detail="sent again: no event proved it accepted within the grace time",
    )


def resend_by_operator(
    session: Session, send_id: int, numbers: Collection[int], *, now: datetime
) -> int:
    """Make uncertain batches pending again, as the operator decided; returns how many were."""
    return _resend(
        session,
        _batch.c.send_id == send_id,
        _batch.c.number.in_(sorted(numbers)),
        now=now,
        detail="sent again, because the operator says that it was not sent",
    )


def _resend(session: Session, *conditions: ColumnElement[bool], now: datetime, detail: str) -> int:
    return changed(
        session,
        update(_batch)
        .where(_batch.c.state == BatchState.UNCERTAIN, *conditions)
        .values(state=BatchState.PENDING, not_before=now, resent=True, detail=detail),
    )


def drop_pending(session: Session, send_id: int, *, now: datetime, reason: str) -> int:
    """Reject the pending batches of a send; returns the number of their recipients."""
    dropped = session.scalars(
        update(_batch)
        .where(_batch.c.send_id == send_id, _batch.c.state == BatchState.PENDING)
        .values(state=BatchState.REJECTED, settled_at=now, detail=reason)
        .returning(_batch.c.number)
    ).all()
    return deliveries.reject(session, send_id, dropped, reason=reason) if dropped else 0


def drop_cancelled(session: Session, *, now: datetime) -> int:
    """Reject batches that were released after their send was cancelled; returns how many rows."""
    cancelled = session.scalars(
        select(_send.c.id).where(
            _send.c.state == SendState.CANCELLED,
            exists(
                select(1).where(
                    _batch.c.send_id == _send.c.id, _batch.c.state == BatchState.PENDING
                )
            ),
        )
    ).all()
    return sum(drop_pending(session, send_id, now=now, reason="cancelled") for send_id in cancelled)
