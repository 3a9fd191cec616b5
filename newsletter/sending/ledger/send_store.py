"""The ledger's other half: what the clock and the operator write of sends and batches.

Like ledger.py, every change names the states that it starts from; it happens, or it
changes nothing and says so.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import bindparam, exists, func, or_, select, update

from newsletter.accounts import operator_messages
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.orm import Session, changed, table_of
from newsletter.sending import held
from newsletter.sending.models import Batch, Delivery, Send, Worker
from newsletter.sending.queries import archive as archive_queries
from newsletter.sending.states import (
    UNSETTLED,
    BatchState,
    DeliveryState,
    SendState,
    may_become,
    sends_that_may_become,
)

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_worker = table_of(Worker)

_FINISHED = select(_send.c.id).where(
    _send.c.state == SendState.SENDING,
    ~exists(select(1).where(_batch.c.send_id == _send.c.id, _batch.c.state.in_(UNSETTLED))),
    # What the provider holds has reached nobody, and can be stopped.
    ~exists(select(1).where(_batch.c.send_id == _send.c.id, held.is_held(bindparam("now")))),
)
#: Where a batch may stand that was to be held, when the provider throws away what it holds.
_CALLED_BACK = (
    BatchState.CLAIMED,
    BatchState.IN_FLIGHT,
    BatchState.UNCERTAIN,
    BatchState.ACCEPTED,
)
_UNDER_WAY = (SendState.SENDING, SendState.PAUSED)
_LEFT_OVER = select(func.count()).where(
    _delivery.c.send_id == bindparam("of_send"), _delivery.c.state == DeliveryState.PLANNED
)

#: Whose mail was handed over, once nobody is planned any more.
_HANDED_OVER = (
    _send.c.planned
    - _send.c.transferred
    - select(func.count())
    .where(
        _delivery.c.send_id == _send.c.id,
        _delivery.c.state.in_([DeliveryState.SKIPPED, DeliveryState.REJECTED]),
        _delivery.c.reason.is_not(None),  # they have one, and an index by it
    )
    .scalar_subquery()
)


def move_send(
    session: Session,
    send_id: int,
    target: SendState,
    *,
    only_from: Collection[SendState] | None = None,
    by_operator: bool = False,
    **values: object,
) -> bool:
    """Move a send if the table allows it from where it stands; False when it does not.

    A pause that is not ``by_operator`` is told to the operators by email.
    """
    sources = sends_that_may_become(target) & frozenset(only_from or SendState)
    moved = changed(
        session,
        update(_send)
        .where(_send.c.id == send_id, _send.c.state.in_(sources))
        .values(state=target, **values),
    )
    paused_at = values.get("paused_at")
    if moved and isinstance(paused_at, datetime) and not by_operator:
        operator_messages.post(
            session,
            MessageKind.SEND_PAUSED,
            send_id,
            now=paused_at,
            occasion=paused_at.isoformat(),
            detail=str(values.get("reason", "")),
        )
    return moved == 1


def hold_back(session: Session, send_id: int, *, reason: str, now: datetime) -> bool:
    """Pause a send that has not begun, for the operator to decide; False when it has."""
    return move_send(
        session,
        send_id,
        SendState.PAUSED,
        only_from=[SendState.SCHEDULED],
        reason=reason[:1000],
        paused_at=now,
    )


def finish(session: Session, *, now: datetime) -> int:
    """Call every send under way sent that adds up: no batch is open or held by the provider,
    nobody is still planned.

    Returns how many. A send that does not add up, which cannot happen by this program
    alone, is paused and says so.
    """
    done = session.scalars(_FINISHED, {"now": now}).all()
    for send_id in done:
        left_over = session.scalar(_LEFT_OVER, {"of_send": send_id})
        if left_over:
            why = f"it does not add up: {left_over:,} planned people are in no open batch"
            move_send(session, send_id, SendState.PAUSED, reason=why, paused_at=now)
        elif move_send(
            session, send_id, SendState.SENT, finished_at=now, accepted_count=_HANDED_OVER
        ):
            archive_queries.publish(session, send_id, now=now)
    return len(done)


def recover_abandoned(session: Session, *, now: datetime) -> tuple[int, int]:
    """Take back what dead workers held: (claims made pending again, requests now in doubt).

    A claim never left, so it is simply free again. A request in flight may have been taken.
    A worker is dead that has not been heard of for a while, whatever its lease says; one
    that was only slow finds its claim gone, or settles the doubt with its late answer.
    """
    alive = exists(select(1).where(_worker.c.name == _batch.c.worker, _worker.c.alive_until > now))
    abandoned = (_batch.c.lease_until < now) | ~alive
    freed = changed(
        session,
        update(_batch)
        .where(_batch.c.state == BatchState.CLAIMED, abandoned)
        .values(state=BatchState.PENDING, worker=None, lease_until=None),
    )
    doubtful = changed(
        session,
        update(_batch)
        .where(_batch.c.state == BatchState.IN_FLIGHT, abandoned)
        .values(state=BatchState.UNCERTAIN, detail="the worker ended before the answer came"),
    )
    return freed, doubtful


def resend_uncertain(session: Session, *, departed_before: datetime, now: datetime) -> int:
    """Make doubtful batches claimable again: the operator's policy risks a second copy.

    One, not more: what was sent again and is in doubt once more waits for the operator.
    """
    return changed(
        session,
        update(_batch)
        .where(
            _batch.c.state == BatchState.UNCERTAIN,
            _batch.c.departed_at < departed_before,
            _batch.c.resent.is_(False),
            # Of an ended send nothing goes out again. Its doubt stays, so that evidence can
            # still settle it; dropped instead, its people would count as having missed the issue.
            _batch.c.send_id.in_(select(_send.c.id).where(_send.c.state.in_(_UNDER_WAY))),
        )
        .values(
            state=BatchState.PENDING,
            not_before=now,
            resent=True,
            detail="sent again: no event proved it accepted within the grace time",
        ),
    )


def resend_by_operator(
    session: Session, send_id: int, numbers: Collection[int], *, now: datetime
) -> int:
    """Make doubtful batches claimable again, by the operator's word; returns how many were."""
    return changed(
        session,
        update(_batch)
        .where(
            _batch.c.send_id == send_id,
            _batch.c.number.in_(sorted(numbers)),
            _batch.c.state == BatchState.UNCERTAIN,
        )
        .values(
            state=BatchState.PENDING,
            not_before=now,
            resent=True,
            detail="sent again, because the operator says that it was not sent",
        ),
    )


def drop_pending(session: Session, send_id: int, *, now: datetime, reason: str) -> int:
    """Reject what of a send has not left; returns how many people that leaves without the issue."""
    dropped = session.scalars(
        update(_batch)
        .where(_batch.c.send_id == send_id, _batch.c.state == BatchState.PENDING)
        .values(state=BatchState.REJECTED, settled_at=now, detail=reason)
        .returning(_batch.c.number)
    ).all()
    return _reject_planned(session, send_id, dropped, reason)


def drop_cancelled(session: Session, *, now: datetime) -> int:
    """Reject what came back from a worker after its send was cancelled; returns how many people."""
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


def call_back(session: Session, send_id: int, *, now: datetime, surely: timedelta) -> int:
    """Note that the provider will not send what it still holds of a cancelled send.

    Nor what it takes from now on: a request under way and one in doubt belong to what is
    thrown away, whatever their answer is. What it holds for less than ``surely`` may be on
    its way, unless it keeps it back. Returns how many people stay without the issue.
    """
    called_back = session.scalars(
        update(_batch)
        .where(
            _batch.c.send_id == send_id,
            or_(
                held.KEPT,
                _batch.c.state.in_(_CALLED_BACK) & (_batch.c.hold_until > now + surely),
            ),
        )
        .values(
            state=BatchState.REJECTED,
            settled_at=func.coalesce(_batch.c.settled_at, now),
            detail="called back from the provider",
        )
        .returning(_batch.c.number)
    ).all()
    held.let_go(session, send_id)
    return _reject_planned(session, send_id, called_back, "called back before it left the provider")


def _reject_planned(session: Session, send_id: int, batches: Sequence[int], reason: str) -> int:
    if not batches:
        return 0
    return changed(
        session,
        update(_delivery)
        .where(
            _delivery.c.send_id == send_id,
            _delivery.c.batch.in_(batches),
            _delivery.c.state.in_(may_become(DeliveryState.REJECTED)),
        )
        .values(state=DeliveryState.REJECTED, reason=reason),
    )
