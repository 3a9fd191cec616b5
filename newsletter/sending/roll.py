"""Who is in a send, a page at a time: everybody, or those whom something set apart.

Every question is answered by an index, however large the send: the many who simply got
their mail can be looked up by address, and be paged through, but not be filtered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, select, tuple_

from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import APART, UNSETTLED, DeliveryState
from subscribers.models import Subscriber
from subscribers.schema import Session, table_of

_batch, _delivery, _subscriber = table_of(Batch), table_of(Delivery), table_of(Subscriber)

#: What a page can be asked for, beside everybody.
FILTERS = (DeliveryState.PLANNED, *APART)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order of a send's people; the page after it is asked for by it."""

    batch: int
    subscriber_id: int


def apart(session: Session, send: Send) -> dict[str, int]:
    """How many stand in each of the states that set people apart, from the few rows they have."""
    if send.folded_at is not None:
        return {state: n for state in APART if (n := send.folded.get(state, 0))}
    rows = session.execute(
        select(_delivery.c.state, func.count())
        .where(_delivery.c.send_id == send.id, _delivery.c.reason.is_not(None))
        .group_by(_delivery.c.state)
    )
    return {row[0]: row[1] for row in rows}


def page(
    session: Session,
    send_id: int,
    *,
    state: DeliveryState | None = None,
    after: Place | None = None,
    limit: int,
) -> Sequence[Row[Any]]:
    """People in the order of their batches: ``id``, ``email``, ``state``, ``reason``, ``batch``.

    The address is None when the person was erased. ``state`` is one of FILTERS.
    """
    rows = _rows().where(_delivery.c.send_id == send_id)
    if state is DeliveryState.PLANNED:
        # Whoever is planned is in a batch that is not settled; there are at most thousands.
        unsettled = select(_batch.c.number).where(
            _batch.c.send_id == send_id, _batch.c.state.in_(UNSETTLED)
        )
        rows = rows.where(_delivery.c.batch.in_(unsettled))
    elif state is not None:
        rows = rows.where(_delivery.c.reason.is_not(None))
    if state is not None:
        rows = rows.where(_delivery.c.state == state)
    if after is not None:
        here = tuple_(_delivery.c.batch, _delivery.c.subscriber_id)
        rows = rows.where(here > (after.batch, after.subscriber_id))
    rows = rows.order_by(_delivery.c.batch, _delivery.c.subscriber_id).limit(limit)
    return session.execute(rows).all()


def one(session: Session, send: Send, address_hash: bytes | None) -> Sequence[Row[Any]]:
    """The person of this address in the send, as a page of one or none."""
    rows = _rows().where(
        _delivery.c.issue_id == send.issue_id,
        _delivery.c.send_id == send.id,
        _subscriber.c.address_hash == address_hash,
    )
    return session.execute(rows).all()


def _rows() -> Select[Any]:
    return select(
        _delivery.c.subscriber_id.label("id"),
        _subscriber.c.email,
        _delivery.c.state,
        _delivery.c.reason,
        _delivery.c.batch,
    ).select_from(_delivery.outerjoin(_subscriber, _subscriber.c.id == _delivery.c.subscriber_id))
