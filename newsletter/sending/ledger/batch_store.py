"""The ledger: what workers write of batches and deliveries.

With oversight.py (clock and operator) and evidence.py (events and journals) it is the
only writer of states. Every change names the state that it starts from, and a settlement
also the attempt that it settles. Whoever comes late changes nothing and is told so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict

from sqlalchemy import (
    ColumnElement,
    Row,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from newsletter.db.orm import Session, changed, table_of
from newsletter.sending.ledger import confirmations, provider_backoff, restore_gate
from newsletter.sending.ledger.provider_backoff import Probe
from newsletter.sending.models import Batch, Delivery, Part, Send
from newsletter.sending.pacing.timetable import is_paced
from newsletter.sending.states import BATCH_NEXT, BatchState, DeliveryState, SendState, may_become

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)

#: No batch is larger: what SendGrid takes in one request.
_LARGEST = 1000

#: Where an answer finds its batch: under way, or given up as lost.
_ANSWERED = (BatchState.IN_FLIGHT, BatchState.UNCERTAIN)


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch in this worker's hands, by the attempt that fences it from others."""

    send_id: int
    number: int
    issue_id: int
    variant_id: int
    attempt: int
    #: Deliveries that the plan put into it.
    size: int
    topics: tuple[str, ...]
    #: When the send was made: tells it from another of the same number in a restored database.
    made_at: datetime
    #: When it was to go out, and whether anything but the workers' haste says so.
    due: datetime
    paced: bool
    #: It finds out whether the provider works again, while everybody else waits.
    probe: Probe | None = None
    #: What the provider is asked to measure.
    track_clicks: bool = False
    track_opens: bool = False


class SkippedRecipient(TypedDict):
    """Somebody of a batch who may not be mailed any more, and why."""

    person: int
    #: The beginning of their address hash in hex; None of whoever was erased.
    hash: str | None
    why: str


# Built once: every batch needs these.
_WAITING = (
    select(
        _batch.c.send_id,
        _batch.c.number,
        _batch.c.variant_id,
        _batch.c.attempt,
        _batch.c.size,
        _batch.c.not_before,
        _send.c.issue_id,
        _send.c.topics,
        _send.c.created_at,
        _send.c.timetable,
        _send.c.track_clicks,
        _send.c.track_opens,
    )
    .join(_send, _send.c.id == _batch.c.send_id)
    .where(
        # The word itself, not a parameter: only so does the partial index serve.
        _batch.c.state == literal_column(f"'{BatchState.PENDING}'"),
        _batch.c.not_before <= bindparam("now"),
        _batch.c.part != Part.REST,
        _send.c.state == SendState.SENDING,
        ~restore_gate.CLOSED,
    )
    .limit(1)
    .with_for_update(of=_batch, skip_locked=True)
)
_EARLIEST = (_batch.c.not_before, _batch.c.send_id, _batch.c.number)
_DUE = _WAITING.where(~provider_backoff.blocks()).order_by(*_EARLIEST)
_DUE_NAMED = _DUE.where(
    _batch.c.send_id == bindparam("of_send"), _batch.c.number == bindparam("of_number")
)
#: What is cut in two has its evidence cut in two as well: a batch that may have been taken
#: before is a probe only where there is no other, and then as a whole.
_FIT_FOR_PROBE = _WAITING.add_columns(_batch.c.resent).order_by(
    _batch.c.resent, _batch.c.size > bindparam("most"), *_EARLIEST
)
_IS = (
    _batch.c.send_id == bindparam("of_send"),
    _batch.c.number == bindparam("of_number"),
    _batch.c.attempt == bindparam("of_attempt"),
)
_TAKE = (
    update(_batch)
    .where(*_IS, _batch.c.state == BatchState.PENDING)
    .values(
        state=BatchState.CLAIMED,
        attempt=bindparam("of_attempt") + 1,
        worker=bindparam("by"),
        lease_until=bindparam("until"),
    )
)
_DEPART = (
    update(_batch)
    .where(
        *_IS,
        _batch.c.state == BatchState.CLAIMED,
        exists(
            select(1).where(_send.c.id == bindparam("of_send"), _send.c.state == SendState.SENDING)
        ),
        ~provider_backoff.blocks(),
    )
    .values(
        state=BatchState.IN_FLIGHT, departed_at=bindparam("now"), lease_until=bindparam("until")
    )
)
_ACCEPT = (
    update(_batch)
    .where(*_IS, _batch.c.state == BatchState.IN_FLIGHT)
    .values(
        state=BatchState.ACCEPTED,
        settled_at=bindparam("now"),
        message_id=bindparam("answer"),
        detail="",
    )
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


def claim(
    session: Session,
    worker: str,
    *,
    now: datetime,
    lease: timedelta,
    only: tuple[int, int] | None = None,
) -> ClaimedBatch | None:
    """Take the earliest batch that is due, of any send under way; None when there is none.

    ``only`` names one (send, number) to take, or none. Nothing is due while a hold lasts.
    """
    asked: dict[str, Any] = {"now": now, "probe": provider_backoff.NO_PROBE}
    if only is None:
        found = session.execute(_DUE, asked).one_or_none()
    else:
        named = {**asked, "of_send": only[0], "of_number": only[1]}
        found = session.execute(_DUE_NAMED, named).one_or_none()
    if found is None:
        return None
    at = _Place(found.number, found.attempt, found.size)
    return _take(session, found, at, worker, now=now, lease=lease)


def claim_probe(
    session: Session, worker: str, *, now: datetime, lease: timedelta
) -> ClaimedBatch | None:
    """Take a batch that finds out whether the provider works again, if it is time to.

    The first is small: so many are cut off a larger batch, the rest of which keeps its number
    and its time. None while there is no trouble, its wait lasts, another probe is under way,
    or nothing is due.
    """
    probe = provider_backoff.due_probe(session, now=now)
    if probe is None:
        return None
    most = _LARGEST if probe.whole else provider_backoff.PROBE_SIZE
    found = session.execute(_FIT_FOR_PROBE, {"now": now, "most": most}).one_or_none()
    if found is None:
        return None
    at, some = _Place(found.number, found.attempt, found.size), list[int]()
    if found.size > most and not found.resent:
        some = _some_planned(session, found, most)
    if some:
        at = _Place(_free_number(session, found.send_id), 0, len(some))
    if not provider_backoff.take(
        session,
        probe,
        send_id=found.send_id,
        batch=at.number,
        attempt=at.attempt + 1,
        now=now,
    ):
        return None
    if some:
        _cut_off(session, found, some, number=at.number)
    return _take(session, found, at, worker, now=now, lease=lease, probe=probe)


class _Place(NamedTuple):
    """Which batch is taken, as it stands."""

    number: int
    attempt: int
    size: int


def _take(
    session: Session,
    found: Row[Any],
    at: _Place,
    worker: str,
    *,
    now: datetime,
    lease: timedelta,
    probe: Probe | None = None,
) -> ClaimedBatch | None:
    taken = {
        "of_send": found.send_id,
        "of_number": at.number,
        "of_attempt": at.attempt,
        "by": worker,
        "until": now + lease,
    }
    if not changed(session, _TAKE, taken):
        return None
    return ClaimedBatch(
        send_id=found.send_id,
        number=at.number,
        issue_id=found.issue_id,
        variant_id=found.variant_id,
        attempt=at.attempt + 1,
        size=at.size,
        topics=tuple(found.topics),
        made_at=found.created_at,
        due=found.not_before,
        paced=is_paced(found.timetable),
        probe=probe,
        track_clicks=found.track_clicks,
        track_opens=found.track_opens,
    )


def depart(
    session: Session,
    batch: ClaimedBatch,
    barred: Sequence[SkippedRecipient],
    *,
    now: datetime,
    lease: timedelta,
) -> bool:
    """Mark the batch in flight, to be committed before its request leaves; skip the barred.

    False when the claim was lost, its send paused or cancelled, or all sending was stopped
    since: then nothing may leave.
    """
    probe = provider_backoff.NO_PROBE if batch.probe is None else batch.probe.number
    values = {**_named(batch), "now": now, "until": now + lease, "probe": probe}
    leaves = changed(session, _DEPART, values) == 1
    if leaves:
        skip(session, batch.issue_id, barred)
    return leaves


def accepted(
    session: Session, batch: ClaimedBatch, *, now: datetime, message_id: str | None
) -> None:
    """The provider took the batch. An event may have proved that already; the id is kept anyway."""
    if batch.probe is not None:
        provider_backoff.passed(session, batch.probe)
    if changed(session, _ACCEPT, {**_named(batch), "now": now, "answer": message_id}):
        confirmations.mark_delivered_to_provider(session, batch.send_id, batch.number)
        return
    # Proved by an event, or given up as lost: then the late answer settles the doubt.
    confirmations.mark_accepted(
        session, [(batch.send_id, batch.number)], now=now, detail="the answer came late"
    )
    session.execute(
        update(_batch)
        .where(*_is(batch), _batch.c.state == BatchState.ACCEPTED, _batch.c.message_id.is_(None))
        .values(message_id=message_id)
    )


def put_back(
    session: Session,
    batch: ClaimedBatch,
    *,
    detail: str,
    departed: bool = True,
) -> bool:
    """Make the batch claimable again: its request was surely not taken, or never left.

    It keeps its place in the timetable. An answer that comes late, after others had given
    the worker up, ends the doubt just as well.
    """
    return _move(
        session,
        batch,
        _ANSWERED if departed else (BatchState.CLAIMED,),
        BatchState.PENDING,
        detail=detail[:1000],
        worker=None,
        lease_until=None,
        # Nothing of it has left after all.
        departed_at=None,
    )


def rejected(session: Session, batch: ClaimedBatch, *, now: datetime, reason: str) -> None:
    """The provider will never take the batch: its people stand in the list with the reason."""
    settled = {"settled_at": now, "detail": reason[:1000]}
    if _move(session, batch, _ANSWERED, BatchState.REJECTED, **settled):
        in_batch = (_delivery.c.send_id == batch.send_id) & (_delivery.c.batch == batch.number)
        # Only who was in the request: the skipped keep their own reason.
        session.execute(
            update(_delivery)
            .where(in_batch, _delivery.c.state == DeliveryState.PLANNED)
            .values(state=DeliveryState.REJECTED, reason=reason[:300])
        )


def rejected_one(session: Session, batch: ClaimedBatch, person: int, *, reason: str) -> None:
    """One person stands in the list with the reason; the batch goes out again without them."""
    if put_back(session, batch, detail=reason):
        session.execute(
            update(_delivery)
            .where(
                _delivery.c.issue_id == batch.issue_id,
                _delivery.c.subscriber_id == person,
                _delivery.c.state.in_(may_become(DeliveryState.REJECTED)),
            )
            .values(state=DeliveryState.REJECTED, reason=reason[:300])
        )


def split(session: Session, batch: ClaimedBatch, people: Sequence[int], *, reason: str) -> None:
    """Give these people of the batch a batch of their own; both go out again."""
    if not put_back(session, batch, detail=reason):
        return
    _cut_off(session, batch, people, number=_free_number(session, batch.send_id))


def _free_number(session: Session, send_id: int) -> int:
    last = select(func.max(_batch.c.number)).where(_batch.c.send_id == send_id)
    return int(session.execute(last).scalar_one()) + 1


def _some_planned(session: Session, batch: Row[Any], most: int) -> list[int]:
    """So many people of a batch who are still to get it."""
    planned = (
        select(_delivery.c.subscriber_id)
        .where(
            _delivery.c.send_id == batch.send_id,
            _delivery.c.batch == batch.number,
            _delivery.c.state == DeliveryState.PLANNED,
        )
        .order_by(_delivery.c.subscriber_id)
        .limit(most)
    )
    return list(session.scalars(planned))


def _cut_off(
    session: Session, batch: ClaimedBatch | Row[Any], people: Sequence[int], *, number: int
) -> None:
    """Give these people of a pending batch a batch of their own, of this number."""
    same = _batch.c.send_id == batch.send_id, _batch.c.number == batch.number
    changed(session, update(_batch).where(*same).values(size=_batch.c.size - len(people)))
    row = session.execute(select(_batch).where(*same)).mappings().one()
    session.execute(
        insert(_batch).values(
            **{**row, "number": number, "size": len(people), "attempt": 0, "departed_at": None}
        )
    )
    session.execute(
        update(_delivery)
        .where(_delivery.c.issue_id == batch.issue_id, _delivery.c.subscriber_id.in_(people))
        .values(batch=number)
    )


def doubted(session: Session, batch: ClaimedBatch, *, reason: str) -> None:
    """Nobody knows whether the provider has the batch."""
    _move(session, batch, (BatchState.IN_FLIGHT,), BatchState.UNCERTAIN, detail=reason[:1000])


def skipped(
    session: Session, batch: ClaimedBatch, barred: Sequence[SkippedRecipient], *, now: datetime
) -> None:
    """Nobody of the batch may be mailed any more."""
    if _move(session, batch, (BatchState.CLAIMED,), BatchState.SKIPPED, settled_at=now):
        skip(session, batch.issue_id, barred)


def skip(session: Session, issue_id: int, barred: Sequence[SkippedRecipient]) -> None:
    """Write down who is left out of a request, and why."""
    if barred:
        session.connection().execute(
            _SKIP,
            [{"of_issue": issue_id, "person": one["person"], "why": one["why"]} for one in barred],
        )


def _move(
    session: Session,
    batch: ClaimedBatch,
    sources: Sequence[BatchState],
    target: BatchState,
    **values: object,
) -> bool:
    assert all(target in BATCH_NEXT[source] for source in sources), target
    moved = (
        update(_batch)
        .where(*_is(batch), _batch.c.state.in_(sources))
        .values(state=target, **values)
    )
    return changed(session, moved) == 1


def _named(batch: ClaimedBatch) -> dict[str, Any]:
    return {"of_send": batch.send_id, "of_number": batch.number, "of_attempt": batch.attempt}


def _is(batch: ClaimedBatch) -> tuple[ColumnElement[bool], ...]:
    return (
        _batch.c.send_id == batch.send_id,
        _batch.c.number == batch.number,
        _batch.c.attempt == batch.attempt,
    )
