"""What events say around a doubtful batch: whether those of others came, and none of its own.

An event of its own would have settled it. That events of batches that left later have come
makes it likely that it was not taken, and proves nothing: events may be late, or lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select

from newsletter.db.orm import Session, table_of
from newsletter.sending.models import Batch, Delivery
from newsletter.sending.recovery.uncertain_batches import UncertainBatch
from newsletter.sending.states import TOLD, BatchState
from newsletter.tracking.models import EventRow

_batch, _delivery, _event = table_of(Batch), table_of(Delivery), table_of(EventRow)
#: Batches looked at: enough to see that events come.
_AT_MOST = 500


@dataclass(frozen=True, slots=True)
class Silence:
    """Of a doubtful batch, which no event names."""

    #: Batches that left later and that events name, of any send; 0 when there are none.
    heard: int
    #: When the first of these events came.
    since: datetime | None


def around(session: Session, doubtful: Sequence[UncertainBatch]) -> dict[int, Silence]:
    """Number of each of these batches → what is known beside it."""
    if not doubtful:
        return {}
    first = min(one.departed_at for one in doubtful)
    person = (
        select(_delivery.c.subscriber_id)
        .where(
            _delivery.c.send_id == _batch.c.send_id,
            _delivery.c.batch == _batch.c.number,
            _delivery.c.state.in_(TOLD),
        )
        .limit(1)
        .scalar_subquery()
    )
    later = session.execute(
        select(_batch.c.send_id, _batch.c.departed_at, person.label("person"))
        .where(_batch.c.state == BatchState.ACCEPTED, _batch.c.departed_at > first)
        .order_by(_batch.c.departed_at)
        .limit(_AT_MOST)
    ).all()
    named = [row for row in later if row.person is not None]
    came = _came(session, named)
    return {
        one.number: _silence([row for row in named if row.departed_at > one.departed_at], came)
        for one in doubtful
    }


def _silence(later: Sequence[Row[Any]], came: dict[tuple[int, int], datetime]) -> Silence:
    moments = [came[place] for row in later if (place := (row.send_id, row.person)) in came]
    return Silence(len(later), min(moments, default=None))


def _came(session: Session, named: Sequence[Row[Any]]) -> dict[tuple[int, int], datetime]:
    """(send, subscriber) → when the first event of this mail came."""
    if not named:
        return {}
    wanted = {(row.send_id, row.person) for row in named}
    rows = session.execute(
        select(_event.c.send_id, _event.c.subscriber_id, func.min(_event.c.received_at))
        .where(
            _event.c.subscriber_id.in_(sorted({person for _, person in wanted})),
            _event.c.send_id.in_(sorted({send for send, _ in wanted})),
        )
        .group_by(_event.c.send_id, _event.c.subscriber_id)
    )
    return {(row[0], row[1]): row[2] for row in rows if (row[0], row[1]) in wanted}
