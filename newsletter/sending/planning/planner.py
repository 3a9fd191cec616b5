"""Plans a send: writes its deliveries and batches.

One INSERT … SELECT writes all deliveries, which fixes the audience; no loop handles single
subscribers. The primary key (issue, subscriber) excludes subscribers who get this issue by
another send. The transaction must see one snapshot (SERIALIZABLE or REPEATABLE READ): batch
sizes come from a count, which has to match the deliveries that are written.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    case,
    func,
    insert,
    literal,
    not_,
    select,
    update,
)

from newsletter import tracing
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import SendError
from newsletter.sending import traces
from newsletter.sending.ab_testing import ABTest, Measure, sample_rank
from newsletter.sending.ledger import restore_gate, sends
from newsletter.sending.ledger.summarize import require_open
from newsletter.sending.models import Batch, Delivery, Part, Send, Variant
from newsletter.sending.pacing import warmup_usage
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import PlannedBatch, Timetable, ZoneGroup, cut_batches
from newsletter.sending.planning.audience import (
    AudienceCounts,
    SendAudience,
    audience_of,
    count,
    zone_column,
)
from newsletter.sending.states import MISSED, BatchState, DeliveryState, SendState
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_variant, _subscriber = table_of(Variant), table_of(Subscriber)


def plan(
    session: Session, send_id: int, *, now: datetime, batch_size: int, warm_up: WarmUp | None = None
) -> int:
    """Write the deliveries and batches of a scheduled send and start it; returns its recipients.

    Raises SendError when the send is not scheduled, and NotComparedError while a departure log
    is not compared. Everything happens in the caller's transaction: a crash leaves the send
    scheduled, with nothing planned.
    """
    begun = tracing.now()
    restore_gate.require_open(session)
    if not sends.move_send(session, send_id, SendState.PLANNING, started_at=now):
        raise SendError("only a scheduled send can be planned", place=f"send {send_id}")
    send = session.execute(select(_send).where(_send.c.id == send_id)).one()
    # The departure log may have restored some batches of a plan that the database lost.
    restored = session.scalar(_last_number(send_id)) is not None
    planned, excluded_counts = _write(
        session,
        send,
        audience_of(send, restored=restored),
        now=now,
        batch_size=batch_size,
        warm_up=warm_up,
    )
    _update_transferred(session, send)
    if restored:
        own = select(func.count()).where(_delivery.c.send_id == send_id)
        planned = session.execute(own).scalar_one()
    sends.move_send(
        session, send_id, SendState.SENDING, planned=planned, excluded_counts=excluded_counts
    )
    traces.planned(session, send_id, begun=begun, people=planned)
    sends.report(session, WebhookEvent.SEND_STARTED, send_id, now=now)
    if not planned:
        sends.finish(session, now=now)
    return planned


def plan_missed(
    session: Session, send_id: int, *, now: datetime, batch_size: int, warm_up: WarmUp | None = None
) -> int:
    """Write new batches for recipients who missed the issue and may get it now; returns how many.

    Subscribers who have the issue, or unsubscribed, are not among them.
    """
    begun = tracing.now()
    restore_gate.require_open(session)
    send = session.execute(select(_send).where(_send.c.id == send_id)).one()
    people, _ = _write(
        session,
        send,
        audience_of(send, missed=True),
        now=now,
        batch_size=batch_size,
        warm_up=warm_up,
        is_retry=True,
    )
    if people:
        _count_sizes(session, _batch.c.send_id == send_id)
        traces.planned(session, send_id, begun=begun, people=people)
    return people


def forecast(
    session: Session,
    counted: AudienceCounts,
    timetable: Timetable,
    *,
    start: datetime,
    batch_size: int,
    warm_up: WarmUp | None = None,
) -> datetime:
    """When the last batch would leave if the audience were planned at ``start``.

    ``counted`` must be split by zone if ``timetable.by_zone``. Raises SendError when the
    timetable needs longer than a send may take.
    """
    slots = cut_batches(
        timetable,
        [ZoneGroup(zone, people, start) for zone, people in counted.zones],
        start=start,
        batch_size=batch_size,
        warm_up=warmup_usage.with_other_sends(session, warm_up, timetable, None),
    )
    return max((slot.moment for batches in slots for slot in batches), default=start)


def _write(
    session: Session,
    send: Row[Any],
    audience: SendAudience,
    *,
    now: datetime,
    batch_size: int,
    warm_up: WarmUp | None,
    is_retry: bool = False,
) -> tuple[int, dict[str, int]]:
    require_open(session, send.issue_id)
    timetable = Timetable.from_json(send.timetable)
    variants = _variants(session, send, is_retry=is_retry)
    test = None if is_retry else ABTest.from_json(send.test)
    counted = count(session, audience, now=now, split=timetable.by_zone)
    total = counted.people
    sizes = test.sizes(total, len(variants)) if test else []
    people = _select_recipients(
        session, audience, now, send.issue_id, sizes, by_zone=timetable.by_zone
    )
    groups = _count_groups(session, people) if test else [(0, zone, n) for zone, n in counted.zones]
    wait = test.wait if test and test.by is not Measure.OPERATOR else timedelta()
    slots = cut_batches(
        timetable,
        [
            ZoneGroup(zone, n, now if part < len(sizes) or not test else now + wait)
            for part, zone, n in groups
        ],
        start=now,
        batch_size=batch_size,
        warm_up=warmup_usage.with_other_sends(session, warm_up, timetable, send.id),
        departed=warmup_usage.usage_of_send(session, send.id, now=now),
    )
    first = 1 + (session.scalar(_last_number(send.id)) or 0)
    number = _batch_number(slots, first, func.row_number().over(order_by=_order(people)))
    written = _insert(session, send, people, number)
    if written != total:
        raise SendError("the audience changed while the send was planned", place=f"send {send.id}")
    rows: list[dict[str, Any]] = []
    for (part, zone, _), batches in zip(groups, slots, strict=True):
        variant_id = variants[part] if part < len(variants) else variants[0]
        in_test = (Part.SAMPLE if part < len(sizes) else Part.REST) if test else Part.WHOLE
        for slot in batches:
            rows.append(
                {
                    "send_id": send.id,
                    "number": first + len(rows),
                    "variant_id": variant_id,
                    "part": in_test,
                    "zone": zone,
                    "state": BatchState.PENDING,
                    "size": slot.size,
                    "attempt": 0,
                    "detail": "",
                    "not_before": slot.moment,
                }
            )
    if rows:
        session.execute(insert(_batch), rows)
    return total, dict(counted.excluded_counts)


def _variants(session: Session, send: Row[Any], *, is_retry: bool) -> list[int]:
    """Variant ids in the order of their labels; for a retry only the winner, or the first."""
    rows = session.execute(
        select(_variant.c.label, _variant.c.id)
        .where(_variant.c.send_id == send.id)
        .order_by(_variant.c.label)
    ).all()
    won = [row.id for row in rows if row.label == send.winner]
    return won or [rows[0].id] if is_retry else [row.id for row in rows]


def _select_recipients(
    session: Session,
    audience: SendAudience,
    now: datetime,
    issue_id: int,
    sizes: Sequence[int],
    *,
    by_zone: bool,
) -> FromClause:
    """Selects the recipients: id, zone and, in an A/B test, its part."""
    columns: list[Any] = [_subscriber.c.id, zone_column(split=by_zone).label("zone")]
    if sizes:
        rank = [sample_rank(issue_id, _subscriber.c.id), _subscriber.c.id]
        columns.append(func.row_number().over(order_by=rank).label("place"))
    chosen = (
        select(*columns)
        .select_from(segment_store.PEOPLE)
        .where(audience.is_chosen(session, now), audience.exclusion_reason(session, now).is_(None))
        .subquery("chosen")
    )
    if not sizes:
        return chosen
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    part = case(*((chosen.c.place <= end, n) for n, end in enumerate(ends)), else_=len(sizes))
    return select(chosen.c.id, chosen.c.zone, part.label("part")).subquery("people")


def _count_groups(session: Session, people: FromClause) -> list[tuple[int, str, int]]:
    rows = session.execute(
        select(people.c.part, people.c.zone, func.count())
        .group_by(people.c.part, people.c.zone)
        .order_by(people.c.part, people.c.zone)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def _order(people: FromClause) -> list[Any]:
    return [column for name in ("part", "zone", "id") if (column := people.c.get(name)) is not None]


def _batch_number(
    slots: Sequence[Sequence[PlannedBatch]], first: int, row: ColumnElement[int]
) -> ColumnElement[int]:
    """The SQL expression of the batch number of the recipient in this row.

    Within each run of batches of equal size it is a division.
    """
    runs: list[list[int]] = []  # first row, first batch, size
    at, number, closed = 1, first, True
    for slot in (slot for batches in slots for slot in batches):
        if closed or slot.size > runs[-1][2]:
            runs.append([at, number, slot.size])
            closed = False
        # Only the last batch of a run may be smaller.
        closed = slot.size != runs[-1][2]
        at, number = at + slot.size, number + 1
    return _search_runs(runs, row) if runs else literal(first)


def _search_runs(runs: Sequence[Sequence[int]], row: ColumnElement[int]) -> ColumnElement[int]:
    """A binary search of the runs, so that a row needs few comparisons."""
    if len(runs) == 1:
        begin, number, size = runs[0]
        return (row - begin) // size + number
    middle = len(runs) // 2
    return case(
        (row < runs[middle][0], _search_runs(runs[:middle], row)),
        else_=_search_runs(runs[middle:], row),
    )


def _insert(
    session: Session, send: Row[Any], people: FromClause, number: ColumnElement[int]
) -> int:
    """Write the deliveries. Recipients who missed the issue in another send move to this one."""
    rows = select(
        literal(send.issue_id, _delivery.c.issue_id.type),
        people.c.id,
        literal(send.id, _delivery.c.send_id.type),
        number,
        literal(DeliveryState.PLANNED.value),
        # Without a WHERE, SQLite parses the ON of the upsert as that of a join.
    ).where(people.c.id.is_not(None))
    columns = ["issue_id", "subscriber_id", "send_id", "batch", "state"]
    statement = insert_into(session, _delivery).from_select(columns, rows)
    new = statement.excluded
    return changed(
        session,
        statement.on_conflict_do_update(
            index_elements=["issue_id", "subscriber_id"],
            set_={"send_id": new.send_id, "batch": new.batch, "state": new.state, "reason": None},
            where=_delivery.c.state.in_(MISSED),
        ),
    )


def _update_transferred(session: Session, send: Row[Any]) -> None:
    """Update the counts of other sends whose recipients moved to this one.

    Rows whose count stays the same are not written: a worker may write them meanwhile, and
    PostgreSQL would then abort this transaction, because it sees one snapshot.
    """
    remaining = select(func.count()).where(_delivery.c.send_id == _send.c.id).scalar_subquery()
    others = session.scalars(
        update(_send)
        .where(
            _send.c.issue_id == send.issue_id,
            not_(_send.c.id == send.id),
            _send.c.started_at.is_not(None),
            _send.c.transferred != _send.c.planned - remaining,
        )
        .values(transferred=_send.c.planned - remaining)
        .returning(_send.c.id)
    ).all()
    if others:
        _count_sizes(session, _batch.c.send_id.in_(others))


def _count_sizes(session: Session, which: ColumnElement[bool]) -> None:
    sizes = (
        select(func.count())
        .where(_delivery.c.send_id == _batch.c.send_id, _delivery.c.batch == _batch.c.number)
        .scalar_subquery()
    )
    session.execute(update(_batch).where(which, _batch.c.size != sizes).values(size=sizes))


def _last_number(send_id: int) -> Select[Any]:
    return select(func.max(_batch.c.number)).where(_batch.c.send_id == send_id)
