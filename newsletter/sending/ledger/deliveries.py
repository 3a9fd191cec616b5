"""State of deliveries, the rows of a send's recipients: what workers and events write of them."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Text, Update, bindparam, select, update

from newsletter.db import bulk_rows
from newsletter.db.dialect import by_code_points
from newsletter.db.orm import Id, Session, changed, table_of
from newsletter.sending.ledger.claimed_batch import SkippedRecipient
from newsletter.sending.models import Delivery
from newsletter.sending.states import TOLD, DeliveryState, may_become

_delivery = table_of(Delivery)

_ACCEPT = (
    update(_delivery)
    .where(
        _delivery.c.send_id == bindparam("of_send"),
        _delivery.c.batch == bindparam("of_batch"),
        _delivery.c.state == DeliveryState.PLANNED,
    )
    .values(state=DeliveryState.ACCEPTED)
)
_SKIP = (
    update(_delivery)
    .where(
        _delivery.c.issue_id == bindparam("of_issue"),
        _delivery.c.subscriber_id == bindparam("person"),
        _delivery.c.state == DeliveryState.PLANNED,
    )
    .values(state=DeliveryState.SKIPPED, reason=bindparam("why"))
)


def accept(session: Session, send_id: int, number: int) -> None:
    """The provider accepted the batch: mark its deliveries that are still planned."""
    session.execute(_ACCEPT, {"of_send": send_id, "of_batch": number})


def skip(session: Session, issue_id: int, skipped: Sequence[SkippedRecipient]) -> None:
    """Write who is not in a request although the plan put them there, and why."""
    if skipped:
        session.connection().execute(
            _SKIP,
            [{"of_issue": issue_id, "person": one["person"], "why": one["why"]} for one in skipped],
        )


def reject(session: Session, send_id: int, numbers: Collection[int], *, reason: str) -> int:
    """The recipients of these batches do not get the issue; returns how many.

    Only those who were in the request: skipped deliveries keep their own reason.
    """
    return changed(
        session,
        update(_delivery)
        .where(
            _delivery.c.send_id == send_id,
            _delivery.c.batch.in_(numbers),
            _delivery.c.state.in_(may_become(DeliveryState.REJECTED)),
        )
        .values(state=DeliveryState.REJECTED, reason=reason[:300]),
    )


def reject_one(session: Session, issue_id: int, subscriber_id: int, *, reason: str) -> None:
    """One recipient does not get the issue; the batch goes out again without them."""
    session.execute(
        update(_delivery)
        .where(
            _delivery.c.issue_id == issue_id,
            _delivery.c.subscriber_id == subscriber_id,
            _delivery.c.state.in_(may_become(DeliveryState.REJECTED)),
        )
        .values(state=DeliveryState.REJECTED, reason=reason[:300])
    )


def planned(session: Session, send_id: int, number: int, *, at_most: int) -> list[int]:
    """Subscribers of a batch to whom it has not been sent: the first ones, by their ids."""
    rows = (
        select(_delivery.c.subscriber_id)
        .where(
            _delivery.c.send_id == send_id,
            _delivery.c.batch == number,
            _delivery.c.state == DeliveryState.PLANNED,
        )
        .order_by(_delivery.c.subscriber_id)
        .limit(at_most)
    )
    return list(session.scalars(rows))


def move_to_batch(
    session: Session, issue_id: int, subscribers: Sequence[int], *, number: int
) -> None:
    """Put these recipients into another batch of the same send."""
    session.execute(
        update(_delivery)
        .where(_delivery.c.issue_id == issue_id, _delivery.c.subscriber_id.in_(subscribers))
        .values(batch=number)
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
