"""From a send to its deliveries: one INSERT … SELECT writes them all, or none.

The audience is frozen here. The primary key (issue, subscriber) keeps out whoever
had this issue through another send; nothing loops over people.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, case, exists, func, insert, literal, select

from newsletter.errors import SendError
from newsletter.sending import oversight
from newsletter.sending.models import Batch, Delivery, Send, Variant
from newsletter.sending.states import BatchState, DeliveryState, SendState
from newsletter.sending.timetable import departures
from subscribers import segments
from subscribers.models import Subscriber
from subscribers.schema import Session, insert_into, table_of

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_variant, _subscriber = table_of(Variant), table_of(Subscriber)

#: The reason shown for people whom another send of the same issue has reached or will.
HAD_IT = "had this issue"


def plan(session: Session, send_id: int, *, now: datetime, batch_size: int) -> int:
    """Write the deliveries and batches of a scheduled send and let it go; returns how many people.

    Raises SendError when the send is not scheduled. All of it happens in the
    caller's transaction: a crash leaves the send scheduled, with nothing planned.
    """
    if not oversight.move_send(session, send_id, SendState.PLANNING, started_at=now):
        raise SendError("it is not scheduled, so it cannot be planned", place=f"send {send_id}")
    send = session.execute(select(_send).where(_send.c.id == send_id)).one()
    expressions = [segment["expression"] for segment in send.segments]
    left_out = left_out_of(session, send.issue_id, expressions, send.topics, now=now)
    _write_deliveries(session, send, expressions, now, batch_size)
    planned = _write_batches(session, send, now)
    oversight.move_send(session, send_id, SendState.SENDING, planned=planned, left_out=left_out)
    if not planned:
        oversight.finish(session, now=now)
    return planned


def left_out_of(
    session: Session,
    issue_id: int | None,
    expressions: Sequence[str],
    topics: Sequence[str],
    *,
    now: datetime,
) -> dict[str, int]:
    """People of these segments who will not get the issue, counted by reason."""
    reason = _reason(issue_id, topics, now).label("reason")
    counted = session.execute(
        select(reason, func.count())
        .select_from(segments.PEOPLE)
        .where(segments.within(expressions, now), reason.is_not(None))
        .group_by(reason)
        .order_by(reason)
    )
    return {str(row[0]): int(row[1]) for row in counted}


def audience_size(
    session: Session,
    issue_id: int | None,
    expressions: Sequence[str],
    topics: Sequence[str],
    *,
    now: datetime,
) -> int:
    """How many people would get the issue if it were planned at ``now``."""
    counted = (
        select(func.count())
        .select_from(segments.PEOPLE)
        .where(segments.within(expressions, now), _reason(issue_id, topics, now).is_(None))
    )
    return int(session.execute(counted).scalar_one())


def _reason(
    issue_id: int | None, topics: Sequence[str], now: datetime
) -> ColumnElement[str | None]:
    objection = segments.objection(now, topics)
    if issue_id is None:
        return objection
    had_it = exists(
        select(1).where(
            _delivery.c.issue_id == issue_id, _delivery.c.subscriber_id == _subscriber.c.id
        )
    )
    return func.coalesce(objection, case((had_it, literal(HAD_IT))))


def _write_deliveries(
    session: Session, send: Row[Any], expressions: Sequence[str], now: datetime, batch_size: int
) -> None:
    number = (func.row_number().over(order_by=_subscriber.c.id) - 1) // batch_size + 1
    people = (
        select(
            literal(send.issue_id, _delivery.c.issue_id.type),
            _subscriber.c.id,
            literal(send.id, _delivery.c.send_id.type),
            number,
            literal(DeliveryState.PLANNED.value),
        )
        .select_from(segments.PEOPLE)
        .where(
            segments.within(expressions, now), _reason(send.issue_id, send.topics, now).is_(None)
        )
        .order_by(_subscriber.c.id)
    )
    columns = ["issue_id", "subscriber_id", "send_id", "batch", "state"]
    # Another send of the same issue may be planned at this moment: first come, first served.
    session.execute(
        insert_into(session, _delivery).from_select(columns, people).on_conflict_do_nothing()
    )


def _write_batches(session: Session, send: Row[Any], now: datetime) -> int:
    sizes = session.execute(
        select(_delivery.c.batch, func.count())
        .where(_delivery.c.send_id == send.id)
        .group_by(_delivery.c.batch)
        .order_by(_delivery.c.batch)
    ).all()
    variant_id = session.execute(
        select(_variant.c.id).where(_variant.c.send_id == send.id)
    ).scalar_one()
    moments = departures(
        (row[1] for row in sizes), start=now, rate=send.timetable.get("per_second")
    )
    rows = [
        {
            "send_id": send.id,
            "number": number,
            "variant_id": variant_id,
            "state": BatchState.PENDING,
            "size": size,
            "not_before": moment,
            "attempt": 0,
            "detail": "",
        }
        for (number, size), moment in zip(sizes, moments, strict=True)
    ]
    if rows:
        session.execute(insert(_batch), rows)
    return sum(int(size) for _, size in sizes)
