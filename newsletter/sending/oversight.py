"""The ledger's other half: what the clock and the operator write of sends and batches.

Like ledger.py, every change names the states that it starts from; it happens, or it
changes nothing and says so.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, exists, select, update

from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import (
    UNSETTLED,
    BatchState,
    DeliveryState,
    SendState,
    may_become,
    sends_that_may_become,
)
from subscribers.schema import Session, table_of

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)


def move_send(
    session: Session,
    send_id: int,
    target: SendState,
    *,
    only_from: Collection[SendState] | None = None,
    **values: object,
) -> bool:
    """Move a send if the table allows it from where it stands; False when it does not."""
    sources = sends_that_may_become(target) & frozenset(only_from or SendState)
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_send)
        .where(_send.c.id == send_id, _send.c.state.in_(sources))
        .values(state=target, **values)
    )
    return result.rowcount == 1


def finish(session: Session, *, now: datetime) -> int:
    """Call every send under way sent of which no batch is open; returns how many."""
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_send)
        .where(
            _send.c.state.in_(sends_that_may_become(SendState.SENT)),
            ~exists(select(1).where(_batch.c.send_id == _send.c.id, _batch.c.state.in_(UNSETTLED))),
        )
        .values(state=SendState.SENT, finished_at=now)
    )
    return result.rowcount


def recall_abandoned(session: Session, *, now: datetime) -> tuple[int, int]:
    """Take back what dead workers held: (claims made pending again, requests now in doubt).

    A claim never left, so it is simply free again. A request in flight may have been taken.
    """
    expired = _batch.c.lease_until < now
    freed: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_batch)
        .where(_batch.c.state == BatchState.CLAIMED, expired)
        .values(state=BatchState.PENDING, worker=None, lease_until=None)
    )
    doubtful: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_batch)
        .where(_batch.c.state == BatchState.IN_FLIGHT, expired)
        .values(state=BatchState.UNCERTAIN, detail="the worker ended before the answer came")
    )
    return freed.rowcount, doubtful.rowcount


def resend_doubted(session: Session, *, departed_before: datetime, now: datetime) -> int:
    """Make doubtful batches claimable again: the operator's policy risks a second copy."""
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_batch)
        .where(_batch.c.state == BatchState.UNCERTAIN, _batch.c.departed_at < departed_before)
        .values(
            state=BatchState.PENDING,
            not_before=now,
            detail="sent again: no event proved it accepted within the grace time",
        )
    )
    return result.rowcount


def resend_one(session: Session, send_id: int, number: int, *, now: datetime) -> bool:
    """Make one doubtful batch claimable again, by the operator's word; False if it is not one."""
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_batch)
        .where(
            _batch.c.send_id == send_id,
            _batch.c.number == number,
            _batch.c.state == BatchState.UNCERTAIN,
        )
        .values(
            state=BatchState.PENDING,
            not_before=now,
            detail="sent again, because the operator says that it was not sent",
        )
    )
    return result.rowcount == 1


def drop_pending(session: Session, send_id: int, *, now: datetime, reason: str) -> int:
    """Reject what of a send has not left; returns how many people that leaves without the issue."""
    dropped = session.scalars(
        update(_batch)
        .where(_batch.c.send_id == send_id, _batch.c.state == BatchState.PENDING)
        .values(state=BatchState.REJECTED, settled_at=now, detail=reason)
        .returning(_batch.c.number)
    ).all()
    if not dropped:
        return 0
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_delivery)
        .where(
            _delivery.c.send_id == send_id,
            _delivery.c.batch.in_(dropped),
            _delivery.c.state.in_(may_become(DeliveryState.REJECTED)),
        )
        .values(state=DeliveryState.REJECTED, reason=reason)
    )
    return result.rowcount
