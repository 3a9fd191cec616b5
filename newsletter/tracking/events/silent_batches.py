"""Whether events of later batches came, while none of an uncertain batch did.

An event of the uncertain batch would have settled it. Events of batches that left later make it
likely that the provider did not accept it. They prove nothing: events may be late, or lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select

from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Batch, Delivery
from newsletter.sending.recovery.uncertain_batches import UncertainBatch
from newsletter.sending.states import REPORTED, BatchState
from newsletter.tracking.models import EventRow

_batch, _delivery, _event = table_of(Batch), table_of(Delivery), table_of(EventRow)
#: Later batches that are checked: enough to see that events come.
_MAX_LATER_BATCHES = 500


@dataclass(frozen=True, slots=True)
class Silence:
    """The events of later batches, seen from an uncertain batch that has none."""

    #: Batches of any send that left later and have events.
    later_batches: int
    #: When the first of these events came.
    since: datetime | None


def silence_of(session: Session, uncertain: Sequence[UncertainBatch]) -> dict[int, Silence]:
    """Number of each of these batches → the events of later batches."""
    if not uncertain:
        return {}
    first = min(one.departed_at for one in uncertain)
    subscriber = (
        select(_delivery.c.subscriber_id)
        .where(
            _delivery.c.send_id == _batch.c.send_id,
            _delivery.c.batch == _batch.c.number,
            _delivery.c.state.in_(REPORTED),
        )
        .limit(1)
        .scalar_subquery()
    )
    later = session.execute(
        select(_batch.c.send_id, _batch.c.departed_at, subscriber.label("subscriber"))
        .where(_batch.c.state == BatchState.ACCEPTED, _batch.c.departed_at > first)
        .order_by(_batch.c.departed_at)
        .limit(_MAX_LATER_BATCHES)
    ).all()
    with_events = [row for row in later if row.subscriber is not None]
    first_events = _first_events(session, with_events)
    return {
        one.number: _silence(
            [row for row in with_events if row.departed_at > one.departed_at], first_events
        )
        for one in uncertain
    }


def _silence(later: Sequence[Row[Any]], first_events: dict[tuple[int, int], datetime]) -> Silence:
    keys = [(row.send_id, row.subscriber) for row in later]
    times = [first_events[key] for key in keys if key in first_events]
    return Silence(len(later), min(times, default=None))


def _first_events(session: Session, batches: Sequence[Row[Any]]) -> dict[tuple[int, int], datetime]:
    """(send, subscriber) → when the first event of this email came, for one email of each batch."""
    if not batches:
        return {}
    wanted = {(row.send_id, row.subscriber) for row in batches}
    rows = session.execute(
        select(_event.c.send_id, _event.c.subscriber_id, func.min(_event.c.received_at))
        .where(
            _event.c.subscriber_id.in_(sorted({subscriber for _, subscriber in wanted})),
            _event.c.send_id.in_(sorted({send for send, _ in wanted})),
        )
        .group_by(_event.c.send_id, _event.c.subscriber_id)
    )
    return {(row[0], row[1]): row[2] for row in rows if (row[0], row[1]) in wanted}
