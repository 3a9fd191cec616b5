"""The ledger: what workers and events write of batches and deliveries.

With oversight.py, which holds what the clock and the operator write, it is the only
writer of states. Every change names the state that it starts from, and a settlement also
the attempt that it settles. Whoever comes late changes nothing and is told so.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    bindparam,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)

from newsletter.sending import oversight
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import (
    BATCH_NEXT,
    BatchState,
    DeliveryState,
    SendState,
    batches_that_may_become,
    may_become,
)
from subscribers.models import Subscriber, Suppression
from subscribers.schema import Session, table_of

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_subscriber, _suppression = table_of(Subscriber), table_of(Suppression)

#: Events that come in one post touch few sends; ids go into one IN list up to this many.
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Claimed:
    """A batch in this worker's hands, by the attempt that fences it from others."""

    send_id: int
    number: int
    issue_id: int
    variant_id: int
    attempt: int
    topics: tuple[str, ...]


class Barred(TypedDict):
    """Somebody of a batch who may not be mailed any more, and why."""

    person: int
    why: str


def claim(session: Session, worker: str, *, now: datetime, lease: timedelta) -> Claimed | None:
    """Take the earliest batch that is due, of any send under way; None when there is none."""
    due = (
        select(_batch.c.send_id, _batch.c.number, _send.c.issue_id, _send.c.topics)
        .join(_send, _send.c.id == _batch.c.send_id)
        .where(
            _batch.c.state == BatchState.PENDING,
            _batch.c.not_before <= now,
            _send.c.state == SendState.SENDING,
        )
        .order_by(_batch.c.not_before, _batch.c.send_id, _batch.c.number)
        .limit(1)
        .with_for_update(of=_batch, skip_locked=True)
    )
    found = session.execute(due).one_or_none()
    if found is None:
        return None
    row = session.execute(
        update(_batch)
        .where(
            _batch.c.send_id == found.send_id,
            _batch.c.number == found.number,
            _batch.c.state == BatchState.PENDING,
        )
        .values(
            state=BatchState.CLAIMED,
            attempt=_batch.c.attempt + 1,
            worker=worker,
            lease_until=now + lease,
        )
        .returning(_batch.c.variant_id, _batch.c.attempt)
    ).one()
    return Claimed(
        found.send_id,
        found.number,
        found.issue_id,
        row.variant_id,
        row.attempt,
        tuple(found.topics),
    )


def depart(
    session: Session,
    batch: Claimed,
    barred: Sequence[Barred],
    *,
    now: datetime,
    lease: timedelta,
) -> bool:
    """Mark the batch in flight, to be committed before its request leaves; skip the barred.

    False when the claim was lost, or its send paused or cancelled: then nothing may leave.
    """
    may_leave = exists(
        select(1).where(_send.c.id == batch.send_id, _send.c.state == SendState.SENDING)
    )
    leaves = _move(
        session,
        batch,
        BatchState.CLAIMED,
        BatchState.IN_FLIGHT,
        may_leave,
        departed_at=now,
        lease_until=now + lease,
    )
    if leaves:
        _skip(session, batch, barred)
    return leaves


def accepted(session: Session, batch: Claimed, *, now: datetime, message_id: str | None) -> None:
    """The provider took the batch. An event may have proved that already; the id is kept anyway."""
    if _move(
        session,
        batch,
        BatchState.IN_FLIGHT,
        BatchState.ACCEPTED,
        settled_at=now,
        message_id=message_id,
        detail="",
    ):
        _hand_over(session, [(batch.send_id, batch.number)])
        return
    # Proved by an event, or given up as lost: then the late answer settles the doubt.
    prove(session, [(batch.send_id, batch.number)], now=now, detail="the answer came late")
    session.execute(
        update(_batch)
        .where(*_is(batch), _batch.c.state == BatchState.ACCEPTED, _batch.c.message_id.is_(None))
        .values(message_id=message_id)
    )


def put_back(
    session: Session, batch: Claimed, *, after: datetime, detail: str, departed: bool = True
) -> bool:
    """Make the batch claimable again: its request was surely not taken, or never left."""
    source = BatchState.IN_FLIGHT if departed else BatchState.CLAIMED
    return _move(
        session,
        batch,
        source,
        BatchState.PENDING,
        not_before=after,
        detail=detail[:1000],
        worker=None,
        lease_until=None,
    )


def rejected(session: Session, batch: Claimed, *, now: datetime, reason: str) -> None:
    """The provider will never take the batch: its people stand in the list with the reason."""
    if _move(
        session,
        batch,
        BatchState.IN_FLIGHT,
        BatchState.REJECTED,
        settled_at=now,
        detail=reason[:1000],
    ):
        session.execute(
            update(_delivery)
            .where(_in_batch(batch), _delivery.c.state.in_(may_become(DeliveryState.REJECTED)))
            .values(state=DeliveryState.REJECTED, reason=reason[:300])
        )


def rejected_one(
    session: Session, batch: Claimed, person: int, *, now: datetime, reason: str
) -> None:
    """One person stands in the list with the reason; the batch goes out again without them."""
    if put_back(session, batch, after=now, detail=reason):
        session.execute(
            update(_delivery)
            .where(
                _delivery.c.issue_id == batch.issue_id,
                _delivery.c.subscriber_id == person,
                _delivery.c.state.in_(may_become(DeliveryState.REJECTED)),
            )
            .values(state=DeliveryState.REJECTED, reason=reason[:300])
        )


def split(
    session: Session, batch: Claimed, people: Sequence[int], *, now: datetime, reason: str
) -> None:
    """Give these people of the batch a batch of their own; both go out again."""
    if not put_back(session, batch, after=now, detail=reason):
        return
    last = select(func.max(_batch.c.number)).where(_batch.c.send_id == batch.send_id)
    number = session.execute(last).scalar_one() + 1
    session.execute(
        insert(_batch).values(
            send_id=batch.send_id,
            number=number,
            variant_id=batch.variant_id,
            state=BatchState.PENDING,
            size=len(people),
            not_before=now,
            attempt=0,
            detail=reason[:1000],
        )
    )
    session.execute(
        update(_delivery)
        .where(_delivery.c.issue_id == batch.issue_id, _delivery.c.subscriber_id.in_(people))
        .values(batch=number)
    )
    session.execute(update(_batch).where(*_is(batch)).values(size=_batch.c.size - len(people)))


def doubted(session: Session, batch: Claimed, *, reason: str) -> None:
    """Nobody knows whether the provider has the batch."""
    _move(session, batch, BatchState.IN_FLIGHT, BatchState.UNCERTAIN, detail=reason[:1000])


def skipped(session: Session, batch: Claimed, barred: Sequence[Barred], *, now: datetime) -> None:
    """Nobody of the batch may be mailed any more."""
    if _move(session, batch, BatchState.CLAIMED, BatchState.SKIPPED, settled_at=now):
        _skip(session, batch, barred)


def prove(
    session: Session, batches: Collection[tuple[int, int]], *, now: datetime, detail: str
) -> int:
    """Settle (send, number) batches as accepted: evidence shows that the provider took them."""
    if not batches:
        return 0
    proved = session.execute(
        update(_batch)
        .where(
            tuple_(_batch.c.send_id, _batch.c.number).in_(list(batches)),
            _batch.c.state.in_(batches_that_may_become(BatchState.ACCEPTED)),
        )
        .values(state=BatchState.ACCEPTED, settled_at=now, detail=detail)
        .returning(_batch.c.send_id, _batch.c.number)
    ).all()
    _hand_over(session, [(row.send_id, row.number) for row in proved])
    if proved:
        oversight.finish(session, now=now)
    return len(proved)


def advance(
    session: Session, issue_id: int, people: Iterable[int], state: DeliveryState, reason: str | None
) -> int:
    """Move deliveries forward as an event says; those that are further already stay."""
    ids, moved = sorted(set(people)), 0
    for start in range(0, len(ids), _CHUNK):
        result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
            update(_delivery)
            .where(
                _delivery.c.issue_id == issue_id,
                _delivery.c.subscriber_id.in_(ids[start : start + _CHUNK]),
                _delivery.c.state.in_(may_become(state)),
            )
            .values(state=state, reason=reason)
        )
        moved += result.rowcount
    return moved


def _skip(session: Session, batch: Claimed, barred: Sequence[Barred]) -> None:
    if barred:
        session.connection().execute(
            update(_delivery)
            .where(
                _delivery.c.issue_id == batch.issue_id,
                _delivery.c.subscriber_id == bindparam("person"),
                _delivery.c.state == DeliveryState.PLANNED,
            )
            .values(state=DeliveryState.SKIPPED, reason=bindparam("why")),
            list(barred),
        )


def _hand_over(session: Session, batches: Sequence[tuple[int, int]]) -> None:
    for send_id, number in batches:
        session.execute(
            update(_delivery)
            .where(
                _delivery.c.send_id == send_id,
                _delivery.c.batch == number,
                _delivery.c.state == DeliveryState.PLANNED,
            )
            .values(state=DeliveryState.ACCEPTED)
        )


def _move(
    session: Session,
    batch: Claimed,
    source: BatchState,
    target: BatchState,
    *conditions: ColumnElement[bool],
    **values: object,
) -> bool:
    assert target in BATCH_NEXT[source], f"{source} may not become {target}"
    result: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(_batch)
        .where(*_is(batch), _batch.c.state == source, *conditions)
        .values(state=target, **values)
    )
    return result.rowcount == 1


def _is(batch: Claimed) -> tuple[ColumnElement[bool], ...]:
    return (
        _batch.c.send_id == batch.send_id,
        _batch.c.number == batch.number,
        _batch.c.attempt == batch.attempt,
    )


def _in_batch(batch: Claimed) -> ColumnElement[bool]:
    return (_delivery.c.send_id == batch.send_id) & (_delivery.c.batch == batch.number)
