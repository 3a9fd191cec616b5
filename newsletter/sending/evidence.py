"""What events and journals tell of batches and deliveries: the ledger's third hand.

Evidence outranks what stands in the database, which may have been restored from a
backup. It settles a batch as accepted wherever the batch stands, and nothing that it
says can make a mail leave.
"""

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import bindparam, tuple_, update

from newsletter.sending import oversight
from newsletter.sending.models import Batch, Delivery
from newsletter.sending.states import (
    BatchState,
    DeliveryState,
    batches_that_may_become,
    may_become,
)
from subscribers.schema import Session, changed, table_of

_batch, _delivery = table_of(Batch), table_of(Delivery)

#: Events that come in one post touch few sends; ids go into one IN list up to this many.
_CHUNK = 1000

_HAND_OVER = (
    update(_delivery)
    .where(
        _delivery.c.send_id == bindparam("of_send"),
        _delivery.c.batch == bindparam("of_batch"),
        _delivery.c.state == DeliveryState.PLANNED,
    )
    .values(state=DeliveryState.ACCEPTED)
)


def prove(
    session: Session, batches: Collection[tuple[int, int]], *, now: datetime, detail: str
) -> int:
    """Settle (send, number) batches as accepted: evidence shows that the provider took them."""
    if not batches:
        return 0
    proved = session.execute(
        update(_batch)
        .where(
            tuple_(_batch.c.send_id, _batch.c.number).in_(sorted(batches)),
            _batch.c.state.in_(batches_that_may_become(BatchState.ACCEPTED)),
        )
        .values(state=BatchState.ACCEPTED, settled_at=now, detail=detail)
        .returning(_batch.c.send_id, _batch.c.number)
    ).all()
    for send_id, number in sorted((row.send_id, row.number) for row in proved):
        hand_over(session, send_id, number)
    if proved:
        oversight.finish(session, now=now)
    return len(proved)


def hand_over(session: Session, send_id: int, number: int) -> None:
    """Whoever of an accepted batch was still planned is with the provider."""
    session.execute(_HAND_OVER, {"of_send": send_id, "of_batch": number})


def left_unanswered(
    session: Session, send_id: int, numbers: Collection[int], *, now: datetime, detail: str
) -> int:
    """Put batches in doubt that left, by what the journal says; returns how many."""
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


def advance(
    session: Session, issue_id: int, people: Iterable[int], state: DeliveryState, reason: str | None
) -> int:
    """Move deliveries forward as an event says; those that are further already stay."""
    ids, moved = sorted(set(people)), 0
    for start in range(0, len(ids), _CHUNK):
        moved += changed(
            session,
            update(_delivery)
            .where(
                _delivery.c.issue_id == issue_id,
                _delivery.c.subscriber_id.in_(ids[start : start + _CHUNK]),
                _delivery.c.state.in_(may_become(state)),
            )
            .values(state=state, reason=reason),
        )
    return moved
