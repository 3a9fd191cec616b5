"""Who is in a send, a page at a time: everybody, or those whom something set apart.

Every question is answered by an index, however large the send: the many who simply got
their mail can be looked up by address, and be paged through, but not be filtered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select, true, tuple_

from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import APART, UNSETTLED, BatchState, DeliveryState
from subscribers.models import Subscriber

_batch, _delivery, _subscriber = table_of(Batch), table_of(Delivery), table_of(Subscriber)

#: What a page can be asked for, beside everybody.
FILTERS = (DeliveryState.PLANNED, *APART)


@dataclass(frozen=True, slots=True)
class RecipientPosition:
    """A place in the order of a send's people; the page after it is asked for by it."""

    batch: int
    subscriber_id: int


#: What ``apart`` calls the recipients of batches that never left, because the send was cancelled.
NOT_SENT = "not_sent"
_NOT_SENT = (_batch.c.state == BatchState.REJECTED) & _batch.c.departed_at.is_(None)
#: Nobody took it up: everybody in it is rejected, and there may be a million of them.
_NEVER_CLAIMED = _NOT_SENT & (_batch.c.attempt == 0)


def apart(session: Session, send: Send) -> dict[str, int]:
    """How many stand in each of the states that set people apart, from the few rows they have.

    The rejected are those whom the provider refused; whoever was in a batch that never left is
    NOT_SENT. Of batches that nobody took up, which may be many, the index alone is read.
    """
    if send.summarized_at is not None:
        found = {state: n for state in APART if (n := send.final_counts.get(state, 0))}
        size = select(func.sum(_batch.c.size)).where(_batch.c.send_id == send.id, _NOT_SENT)
        not_sent = min(int(session.scalar(size) or 0), found.get(DeliveryState.REJECTED, 0))
        found[DeliveryState.REJECTED] = found.get(DeliveryState.REJECTED, 0) - not_sent
        return _named(found, not_sent)
    in_batch = (_delivery.c.send_id == _batch.c.send_id) & (_delivery.c.batch == _batch.c.number)
    few = select(func.count()).select_from(_batch.join(_delivery, in_batch))
    few = few.where(_batch.c.send_id == send.id, _delivery.c.reason.is_not(None))
    not_sent = session.scalar(few.where(_NEVER_CLAIMED)) or 0
    others = few.add_columns(_delivery.c.state, _NOT_SENT.label("not_sent"))
    others = others.where(~_NEVER_CLAIMED).group_by(_delivery.c.state, "not_sent")
    found = dict[DeliveryState, int]()
    for people, state, never_left in session.execute(others):
        if never_left and state == DeliveryState.REJECTED:
            not_sent += people
        else:
            found[state] = found.get(state, 0) + people
    return _named(found, not_sent)


def _named(found: Mapping[DeliveryState, int], not_sent: int) -> dict[str, int]:
    parted = {str(state): found[state] for state in APART if found.get(state)}
    return parted | ({NOT_SENT: not_sent} if not_sent else {})


def page(
    session: Session,
    send_id: int,
    *,
    state: DeliveryState | None = None,
    after: RecipientPosition | None = None,
    limit: int,
) -> Sequence[Row[Any]]:
    """People in the order of their batches: ``id``, ``email``, ``state``, ``reason``, ``batch``.

    The address is None when the person was erased. ``state`` is one of FILTERS.
    """
    rows = _rows().where(_delivery.c.send_id == send_id)
    if state is not None:
        # Only batches that may hold such people are looked through.
        theirs: ColumnElement[bool] = true()
        if state is DeliveryState.PLANNED:
            theirs = _batch.c.state.in_(UNSETTLED)
        else:
            rows = rows.where(_delivery.c.reason.is_not(None))
            if state is not DeliveryState.REJECTED:
                theirs = ~_NEVER_CLAIMED
        batches = select(_batch.c.number).where(_batch.c.send_id == send_id, theirs)
        rows = rows.where(_delivery.c.state == state, _delivery.c.batch.in_(batches))
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
