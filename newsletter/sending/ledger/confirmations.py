"""What events and journals tell of batches and deliveries: the ledger's third hand.

Evidence outranks what stands in the database, which may have been restored from a
backup. It settles a batch as accepted wherever the batch stands, and nothing that it
says can make a mail leave.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Integer, Text, Update, and_, bindparam, select, tuple_, update

from newsletter.db import bulk_rows
from newsletter.db.dialect import by_code_points
from newsletter.db.orm import Id, Session, changed, table_of
from newsletter.sending.ledger import send_store
from newsletter.sending.models import Batch, Delivery
from newsletter.sending.states import (
    TOLD,
    BatchState,
    DeliveryState,
    batches_that_may_become,
    may_become,
)

_batch, _delivery = table_of(Batch), table_of(Delivery)

_HAND_OVER = (
    update(_delivery)
    .where(
        _delivery.c.send_id == bindparam("of_send"),
        _delivery.c.batch == bindparam("of_batch"),
        _delivery.c.state == DeliveryState.PLANNED,
    )
    .values(state=DeliveryState.ACCEPTED)
)


class DeliveryRef(NamedTuple):
    """What a mail says of where it came from."""

    send_id: int
    batch: int
    issue_id: int
    subscriber_id: int


def open_batches_of(session: Session, carried: Iterable[DeliveryRef]) -> list[tuple[int, int]]:
    """The (send, number) of open batches in which somebody stands whom such a mail reached.

    A plan that was lost and made anew has other people under the same numbers: what a mail
    to somebody else says proves nothing of them.
    """
    by_batch: dict[tuple[int, int], list[DeliveryRef]] = {}
    for one in carried:
        by_batch.setdefault((one.send_id, one.batch), []).append(one)
    if not by_batch:
        return []
    still_open = session.execute(
        select(_batch.c.send_id, _batch.c.number).where(
            tuple_(_batch.c.send_id, _batch.c.number).in_(sorted(by_batch)),
            _batch.c.state.in_(batches_that_may_become(BatchState.ACCEPTED)),
        )
    ).all()
    if not still_open:  # nearly always, so that the people need not be looked up
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
    """Settle (send, number) batches as accepted: evidence shows that the provider took them.

    Without ``finish`` no send is called sent yet: the caller knows more that may be in doubt.
    """
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
        mark_delivered_to_provider(session, send_id, number)
    if proved and finish:
        send_store.finish(session, now=now)
    return len(proved)


def mark_delivered_to_provider(session: Session, send_id: int, number: int) -> None:
    """Whoever of an accepted batch was still planned is with the provider."""
    session.execute(_HAND_OVER, {"of_send": send_id, "of_batch": number})


def mark_uncertain(
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


class DeliveryUpdate(NamedTuple):
    """What an event says of a delivery."""

    issue_id: int
    subscriber_id: int
    state: DeliveryState
    reason: str | None


def apply_updates(session: Session, told: Iterable[DeliveryUpdate]) -> int:
    """Move deliveries forward as events say; those that are further already stay.

    Any order of events ends the same: the strongest state stands, and of several reasons for
    it the one that sorts first, which matters to nobody as long as it is always the same.
    """
    strongest: dict[tuple[int, int], DeliveryUpdate] = {}
    for one in told:
        known = strongest.setdefault((one.issue_id, one.subscriber_id), one)
        if known is not one and _weight(one) > _weight(known):
            strongest[one.issue_id, one.subscriber_id] = one
    rows: dict[DeliveryState, list[dict[str, Any]]] = {}
    for _, one in sorted(strongest.items()):
        rows.setdefault(one.state, []).append(one._asdict())
    return sum(
        changed(session, _move(session, state), bulk_rows.values(session, rows[state]))
        for state in TOLD
        if state in rows
    )


def _weight(told: DeliveryUpdate) -> tuple[int, bool, list[int]]:
    # Any reason before none; of two the one that sorts first.
    return TOLD.index(told.state), told.reason is not None, [-ord(c) for c in told.reason or ""]


def _move(session: Session, state: DeliveryState) -> Update:
    row = bulk_rows.table(session, issue_id=Id, subscriber_id=Id, reason=Text)
    stored = by_code_points(session, _delivery.c.reason)
    better = _delivery.c.reason.is_(None) | (row.c.reason < stored)
    return (
        update(_delivery)
        .where(
            _delivery.c.issue_id == row.c.issue_id,
            _delivery.c.subscriber_id == row.c.subscriber_id,
            _delivery.c.state.in_(may_become(state))
            | ((_delivery.c.state == state) & row.c.reason.is_not(None) & better),
        )
        .values(state=state, reason=row.c.reason)
    )
