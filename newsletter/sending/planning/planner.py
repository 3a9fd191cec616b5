"""From a send to its deliveries: one INSERT … SELECT writes them all, or none.

The audience is frozen here. The primary key (issue, subscriber) keeps out whoever has
this issue through another send; nothing loops over people. Run it in a transaction that
sees one snapshot: the counts by which batches are cut are those of the people written.
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

from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, changed, table_of
from newsletter.errors import SendError
from newsletter.sending.ab_testing import ABTest, Measure, sample_rank
from newsletter.sending.ledger import restore_gate, send_store
from newsletter.sending.ledger.summarize import require_open
from newsletter.sending.models import Batch, Delivery, Part, Send, Variant
from newsletter.sending.pacing import warmup_usage
from newsletter.sending.pacing.quotas import WarmUp
from newsletter.sending.pacing.timetable import PlannedBatch, Timetable, ZoneGroup, cut
from newsletter.sending.planning.audience import (
    AudienceCounts,
    SendAudience,
    audience_of,
    count,
    zone_of_people,
)
from newsletter.sending.states import MISSED, BatchState, DeliveryState, SendState
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_variant, _subscriber = table_of(Variant), table_of(Subscriber)

#: What is held at the provider for less than this cannot be called back: it leaves on time.
_SHORTEST_HOLD = timedelta(minutes=10)


def plan(
    session: Session, send_id: int, *, now: datetime, batch_size: int, warm_up: WarmUp | None = None
) -> int:
    """Write the deliveries and batches of a scheduled send and let it go; returns how many people.

    Raises SendError when the send is not scheduled, and NotComparedError as long as a departure
    log is not compared. All of it happens in the caller's
    transaction: a crash leaves the send scheduled, with nothing planned.
    """
    restore_gate.require_open(session)
    if not send_store.move_send(session, send_id, SendState.PLANNING, started_at=now):
        raise SendError("it is not scheduled, so it cannot be planned", place=f"send {send_id}")
    send = session.execute(select(_send).where(_send.c.id == send_id)).one()
    # Some stand in it already where a lost plan was written again from the journal.
    recalled = session.scalar(_last_number(send_id)) is not None
    planned, excluded_counts = _write(
        session,
        send,
        audience_of(send, recalled=recalled),
        now=now,
        batch_size=batch_size,
        warm_up=warm_up,
    )
    _note_transferred(session, send)
    if recalled:
        mine = select(func.count()).where(_delivery.c.send_id == send_id)
        planned = session.execute(mine).scalar_one()
    send_store.move_send(
        session, send_id, SendState.SENDING, planned=planned, excluded_counts=excluded_counts
    )
    if not planned:
        send_store.finish(session, now=now)
    return planned


def plan_missed(
    session: Session, send_id: int, *, now: datetime, batch_size: int, warm_up: WarmUp | None = None
) -> int:
    """Write new batches for those who missed a send's issue and may be mailed now; counts them.

    Whoever has the issue, or left, is in none of the batches.
    """
    restore_gate.require_open(session)
    send = session.execute(select(_send).where(_send.c.id == send_id)).one()
    people, _ = _write(
        session,
        send,
        audience_of(send, missed=True),
        now=now,
        batch_size=batch_size,
        warm_up=warm_up,
        again=True,
    )
    if people:
        _count_sizes(session, _batch.c.send_id == send_id)
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
    """When the last batch would leave if this were planned at ``start``; SendError if never.

    Zones are told apart in ``counted`` if they matter to the timetable.
    """
    slots = cut(
        timetable,
        [ZoneGroup(zone, people, start) for zone, people in counted.zones],
        start=start,
        batch_size=batch_size,
        warm_up=warmup_usage.with_others(session, warm_up, timetable, None),
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
    again: bool = False,
) -> tuple[int, dict[str, int]]:
    require_open(session, send.issue_id)
    timetable = Timetable.from_json(send.timetable)
    variants = _variants(session, send, again=again)
    test = None if again else ABTest.from_json(send.test)
    counted = count(session, audience, now=now, split=timetable.by_zone)
    total = counted.people
    sizes = test.sizes(total, len(variants)) if test else []
    people = _people(audience, now, send.issue_id, sizes, by_zone=timetable.by_zone)
    groups = _groups(session, people) if test else [(0, zone, n) for zone, n in counted.zones]
    wait = test.wait if test and test.by is not Measure.OPERATOR else timedelta()
    slots = cut(
        timetable,
        [
            ZoneGroup(zone, n, now if part < len(sizes) or not test else now + wait)
            for part, zone, n in groups
        ],
        start=now,
        batch_size=batch_size,
        warm_up=warmup_usage.with_others(session, warm_up, timetable, send.id),
        left=warmup_usage.of_its_own(session, send.id, now=now),
    )
    first = 1 + (session.scalar(_last_number(send.id)) or 0)
    number = _number(slots, first, func.row_number().over(order_by=_order(people)))
    written = _insert(session, send, people, number)
    if written != total:
        raise SendError("people changed while it was planned", place=f"send {send.id}")
    rows: list[dict[str, Any]] = []
    for (part, zone, _), batches in zip(groups, slots, strict=True):
        words = variants[part] if part < len(variants) else variants[0]
        in_test = (Part.SAMPLE if part < len(sizes) else Part.REST) if test else Part.WHOLE
        for slot in batches:
            rows.append(
                {
                    "send_id": send.id,
                    "number": first + len(rows),
                    "variant_id": words,
                    "part": in_test,
                    "zone": zone,
                    "state": BatchState.PENDING,
                    "size": slot.size,
                    "attempt": 0,
                    "detail": "",
                    **departure(timetable, slot.moment, now),
                }
            )
    if rows:
        session.execute(insert(_batch), rows)
    return total, dict(counted.excluded_counts)


def departure(timetable: Timetable, moment: datetime, now: datetime) -> dict[str, datetime | None]:
    """When a batch for ``moment`` leaves, and until when the provider is to hold it."""
    ahead = timetable.ahead or timedelta()
    if not ahead or moment - now <= _SHORTEST_HOLD:
        return {"not_before": moment, "hold_until": None}
    return {"not_before": max(now, moment - ahead), "hold_until": moment}


def _variants(session: Session, send: Row[Any], *, again: bool) -> list[int]:
    """The variants in the order of their labels; for a retry the one that won, or the first."""
    rows = session.execute(
        select(_variant.c.label, _variant.c.id)
        .where(_variant.c.send_id == send.id)
        .order_by(_variant.c.label)
    ).all()
    won = [row.id for row in rows if row.label == send.winner]
    return won or [rows[0].id] if again else [row.id for row in rows]


def _people(
    audience: SendAudience, now: datetime, issue_id: int, sizes: Sequence[int], *, by_zone: bool
) -> FromClause:
    """Everybody who gets it: id, zone, and the part of the test, in the order of the batches."""
    columns: list[Any] = [_subscriber.c.id, zone_of_people(split=by_zone).label("zone")]
    if sizes:
        drawn = [sample_rank(issue_id, _subscriber.c.id), _subscriber.c.id]
        columns.append(func.row_number().over(order_by=drawn).label("place"))
    found = (
        select(*columns)
        .select_from(segment_store.PEOPLE)
        .where(audience.meant(now), audience.reasons(now).is_(None))
        .subquery("found")
    )
    if not sizes:
        return found
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    part = case(*((found.c.place <= end, n) for n, end in enumerate(ends)), else_=len(sizes))
    return select(found.c.id, found.c.zone, part.label("part")).subquery("people")


def _groups(session: Session, people: FromClause) -> list[tuple[int, str, int]]:
    rows = session.execute(
        select(people.c.part, people.c.zone, func.count())
        .group_by(people.c.part, people.c.zone)
        .order_by(people.c.part, people.c.zone)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def _order(people: FromClause) -> list[Any]:
    return [column for name in ("part", "zone", "id") if (column := people.c.get(name)) is not None]


def _number(
    slots: Sequence[Sequence[PlannedBatch]], first: int, row: ColumnElement[int]
) -> ColumnElement[int]:
    """The batch of the row-th person: division within each stretch of equal batches."""
    stretches: list[list[int]] = []  # first row, first batch, size
    at, number, closed = 1, first, True
    for slot in (slot for batches in slots for slot in batches):
        if closed or slot.size > stretches[-1][2]:
            stretches.append([at, number, slot.size])
            closed = False
        # A smaller one may end a stretch, and only end it.
        closed = slot.size != stretches[-1][2]
        at, number = at + slot.size, number + 1
    return _choose(stretches, row) if stretches else literal(first)


def _choose(stretches: Sequence[Sequence[int]], row: ColumnElement[int]) -> ColumnElement[int]:
    """By halves: a person's batch costs few comparisons, however many stretches there are."""
    if len(stretches) == 1:
        begin, number, size = stretches[0]
        return (row - begin) // size + number
    middle = len(stretches) // 2
    return case(
        (row < stretches[middle][0], _choose(stretches[:middle], row)),
        else_=_choose(stretches[middle:], row),
    )


def _insert(
    session: Session, send: Row[Any], people: FromClause, number: ColumnElement[int]
) -> int:
    """Write the deliveries; whoever missed the issue before is taken over."""
    rows = select(
        literal(send.issue_id, _delivery.c.issue_id.type),
        people.c.id,
        literal(send.id, _delivery.c.send_id.type),
        number,
        literal(DeliveryState.PLANNED.value),
        # SQLite cannot tell an upsert's ON from a join's without a WHERE.
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


def _note_transferred(session: Session, send: Row[Any]) -> None:
    """Other sends of the issue lose those whom this one took over; their sums must still hold.

    What stays as it is is not written: a worker may be writing it meanwhile, and of two that
    write the same row PostgreSQL lets a plan, which sees one snapshot, be the one that fails.
    """
    left = select(func.count()).where(_delivery.c.send_id == _send.c.id).scalar_subquery()
    others = session.scalars(
        update(_send)
        .where(
            _send.c.issue_id == send.issue_id,
            not_(_send.c.id == send.id),
            _send.c.started_at.is_not(None),
            _send.c.transferred != _send.c.planned - left,
        )
        .values(transferred=_send.c.planned - left)
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
