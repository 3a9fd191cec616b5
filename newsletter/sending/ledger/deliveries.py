"""Changes the state of deliveries, as workers and events report."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Text, Update, bindparam, select, update

from newsletter.db import bulk_rows
from newsletter.db.dialect import by_code_points
from newsletter.db.orm import Id, Session, changed, table_of
from newsletter.sending.ledger.claimed_batch import SkippedRecipient
from newsletter.sending.models import Delivery
from newsletter.sending.states import REPORTED, DeliveryState, may_become

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
    """Mark the planned deliveries of a batch as accepted."""
    session.execute(_ACCEPT, {"of_send": send_id, "of_batch": number})


def skip(session: Session, issue_id: int, skipped: Sequence[SkippedRecipient]) -> None:
    """Mark deliveries that are not in the request as skipped, with their reasons."""
    if skipped:
        session.connection().execute(
            _SKIP,
            [{"of_issue": issue_id, "person": one["person"], "why": one["why"]} for one in skipped],
        )


def reject(session: Session, send_id: int, numbers: Collection[int], *, reason: str) -> int:
    """Mark the deliveries of these batches as rejected; returns how many.

    Skipped deliveries stay, with their own reasons.
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
    """Mark one delivery as rejected; its batch is sent again without it."""
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
    """The first planned recipients of a batch, by subscriber id."""
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
    """Move these recipients to another batch of the same send."""
    session.execute(
        update(_delivery)
        .where(_delivery.c.issue_id == issue_id, _delivery.c.subscriber_id.in_(subscribers))
        .values(batch=number)
    )


class DeliveryUpdate(NamedTuple):
    """The state of a delivery that an event reports."""

    issue_id: int
    subscriber_id: int
    state: DeliveryState
    reason: str | None


def apply_updates(session: Session, updates: Iterable[DeliveryUpdate]) -> int:
    """Apply the states that events report; a delivery in a stronger state stays.

    The order of events does not matter: the strongest state remains, and of several reasons for
    it the one that sorts first.
    """
    strongest: dict[tuple[int, int], DeliveryUpdate] = {}
    for one in updates:
        known = strongest.setdefault((one.issue_id, one.subscriber_id), one)
        if known is not one and _strength(one) > _strength(known):
            strongest[one.issue_id, one.subscriber_id] = one
    rows: dict[DeliveryState, list[dict[str, Any]]] = {}
    for _, one in sorted(strongest.items()):
        rows.setdefault(one.state, []).append(one._asdict())
    return sum(
        changed(session, _move(session, state), bulk_rows.values(session, rows[state]))
        for state in REPORTED
        if state in rows
    )


def _strength(one: DeliveryUpdate) -> tuple[int, bool, list[int]]:
    # A reason is stronger than none; of two reasons, the one that sorts first.
    return REPORTED.index(one.state), one.reason is not None, [-ord(c) for c in one.reason or ""]


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
