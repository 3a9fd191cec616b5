"""Pages through the recipients of a send: all, or only those that failed or were skipped.

Every query uses an index, however large the send is. Recipients with delivered emails can be
paged through and found by address, but not filtered: a filter would read a million rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select, true, tuple_

from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import PROBLEMS, UNSETTLED, BatchState, DeliveryState
from subscribers.models import Subscriber

_batch, _delivery, _subscriber = table_of(Batch), table_of(Delivery), table_of(Subscriber)

#: The states that a page can be filtered by.
FILTERS = (DeliveryState.PLANNED, *PROBLEMS)


@dataclass(frozen=True, slots=True)
class RecipientPosition:
    """The position of a recipient in a send; the next page begins after it."""

    batch: int
    subscriber_id: int


#: The key in ``problem_counts`` of recipients whose batch never left: the send was cancelled.
NOT_SENT = "not_sent"
_NOT_SENT = (_batch.c.state == BatchState.REJECTED) & _batch.c.departed_at.is_(None)
#: Rejected batches that no worker claimed; they may have a million recipients.
_NEVER_CLAIMED = _NOT_SENT & (_batch.c.attempt == 0)


def problem_counts(session: Session, send: Send) -> dict[str, int]:
    """Count the recipients that failed or were skipped: state, or NOT_SENT → recipients.

    Recipients that the provider rejected count as rejected; those of a batch that never left
    count as NOT_SENT. Unclaimed batches, which may be many, are counted from the index alone.
    """
    if send.summarized_at is not None:
        counts = {state: n for state in PROBLEMS if (n := send.final_counts.get(state, 0))}
        size = select(func.sum(_batch.c.size)).where(_batch.c.send_id == send.id, _NOT_SENT)
        not_sent = min(int(session.scalar(size) or 0), counts.get(DeliveryState.REJECTED, 0))
        counts[DeliveryState.REJECTED] = counts.get(DeliveryState.REJECTED, 0) - not_sent
        return _by_name(counts, not_sent)
    in_batch = (_delivery.c.send_id == _batch.c.send_id) & (_delivery.c.batch == _batch.c.number)
    few = select(func.count()).select_from(_batch.join(_delivery, in_batch))
    few = few.where(_batch.c.send_id == send.id, _delivery.c.reason.is_not(None))
    not_sent = session.scalar(few.where(_NEVER_CLAIMED)) or 0
    others = few.add_columns(_delivery.c.state, _NOT_SENT.label("not_sent"))
    others = others.where(~_NEVER_CLAIMED).group_by(_delivery.c.state, "not_sent")
    counts = dict[DeliveryState, int]()
    for people, state, never_left in session.execute(others):
        if never_left and state == DeliveryState.REJECTED:
            not_sent += people
        else:
            counts[state] = counts.get(state, 0) + people
    return _by_name(counts, not_sent)


def _by_name(counts: Mapping[DeliveryState, int], not_sent: int) -> dict[str, int]:
    named = {str(state): counts[state] for state in PROBLEMS if counts.get(state)}
    return named | ({NOT_SENT: not_sent} if not_sent else {})


def page(
    session: Session,
    send_id: int,
    *,
    state: DeliveryState | None = None,
    after: RecipientPosition | None = None,
    limit: int,
) -> Sequence[Row[Any]]:
    """Recipients in batch order: ``id``, ``email``, ``state``, ``reason``, ``batch``.

    ``email`` is None for an erased subscriber. ``state`` is one of FILTERS.
    """
    rows = _rows().where(_delivery.c.send_id == send_id)
    if state is not None:
        # Only batches that may have recipients in this state are read.
        in_scope: ColumnElement[bool] = true()
        if state is DeliveryState.PLANNED:
            in_scope = _batch.c.state.in_(UNSETTLED)
        else:
            rows = rows.where(_delivery.c.reason.is_not(None))
            if state is not DeliveryState.REJECTED:
                in_scope = ~_NEVER_CLAIMED
        batches = select(_batch.c.number).where(_batch.c.send_id == send_id, in_scope)
        rows = rows.where(_delivery.c.state == state, _delivery.c.batch.in_(batches))
    if after is not None:
        position = tuple_(_delivery.c.batch, _delivery.c.subscriber_id)
        rows = rows.where(position > (after.batch, after.subscriber_id))
    rows = rows.order_by(_delivery.c.batch, _delivery.c.subscriber_id).limit(limit)
    return session.execute(rows).all()


def find_recipient(session: Session, send: Send, address_hash: bytes | None) -> Sequence[Row[Any]]:
    """The recipient of this address in the send, as a page of one row or none."""
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
