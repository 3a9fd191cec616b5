"""Where sends stand: read, never written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.issues.models import Issue
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import BatchState, DeliveryState, SendState
from subscribers.models import Subscriber

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_issue, _subscriber = table_of(Issue), table_of(Subscriber)
_NOT_HANDED_OVER = {DeliveryState.PLANNED, DeliveryState.SKIPPED, DeliveryState.REJECTED}


@dataclass(frozen=True, slots=True)
class SendStatus:
    """Where a send stands: its row, its issue's slug, and its people and batches by state."""

    send: Send
    slug: str
    batches: dict[str, int]
    people: dict[str, int]

    @property
    def adds_up(self) -> bool:
        """Whether every planned person stands in one state, or went on to another send."""
        return sum(self.people.values()) + self.send.transferred == self.send.planned


def find(session: Session, send_id: int) -> Send:
    """The send of this number; SendError when there is none."""
    send = session.get(Send, send_id)
    if send is None:
        raise SendError(
            "there is no such send", place=f"send {send_id}", hint="See newsletter sends."
        )
    return send


def of(session: Session, send_id: int) -> SendStatus:
    """Where a send stands, counted from its rows, or from their sums once they are gone."""
    send = find(session, send_id)
    slug = session.execute(select(_issue.c.slug).where(_issue.c.id == send.issue_id)).scalar_one()
    if send.summarized_at is not None:
        return SendStatus(send, slug, batch_states(session, send_id), send.final_counts)
    people = session.execute(
        select(_delivery.c.state, func.count())
        .where(_delivery.c.send_id == send_id)
        .group_by(_delivery.c.state)
    )
    return SendStatus(
        send, slug, batch_states(session, send_id), {row[0]: row[1] for row in people}
    )


def batch_states(session: Session, send_id: int) -> dict[str, int]:
    """People of a send by the state of their batch: cheap, for progress."""
    rows = session.execute(
        select(_batch.c.state, func.sum(_batch.c.size))
        .where(_batch.c.send_id == send_id)
        .group_by(_batch.c.state)
    )
    return {row[0]: int(row[1]) for row in rows}


def accepted_count(session: Session, sends: Sequence[Send]) -> dict[int, int]:
    """Send → people whose mail was handed to the provider, without counting a million rows.

    Of a send that is sent the number is kept. Of any other: the people of its accepted
    batches, but for those who had left when the batch did, and those whom the provider
    refused, without whom it went out again.
    """
    found = dict[int, int]()
    for send in sends:
        if send.summarized_at is not None:
            found[send.id] = sum(
                n for state, n in send.final_counts.items() if state not in _NOT_HANDED_OVER
            )
        elif send.state == SendState.SENT and send.accepted_count is not None:
            found[send.id] = send.accepted_count
    others = [send.id for send in sends if send.id not in found]
    if not others:
        return found
    accepted = (_batch.c.send_id.in_(others), _batch.c.state == BatchState.ACCEPTED)
    taken = session.execute(
        select(_batch.c.send_id, func.sum(_batch.c.size)).where(*accepted).group_by("send_id")
    )
    found |= dict.fromkeys(others, 0) | {row[0]: int(row[1]) for row in taken}
    in_batch = (_delivery.c.send_id == _batch.c.send_id) & (_delivery.c.batch == _batch.c.number)
    left = session.execute(
        select(_delivery.c.send_id, func.count())
        .select_from(_batch.join(_delivery, in_batch))
        .where(
            *accepted,
            _delivery.c.state.in_([DeliveryState.SKIPPED, DeliveryState.REJECTED]),
            _delivery.c.reason.is_not(None),  # they have one, and an index by it
        )
        .group_by(_delivery.c.send_id)
    )
    for send_id, people in left:
        found[send_id] -= people
    return found


def listed(session: Session, *, limit: int = 50) -> list[tuple[Send, str]]:
    """The latest sends with their issues' slugs, newest first."""
    rows = session.execute(
        select(Send, _issue.c.slug)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .order_by(_send.c.id.desc())
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


@dataclass(frozen=True, slots=True)
class Throughput:
    """How a send goes on: how fast it went lately, and when its last batch may be over."""

    #: Recipients a second over the last minute.
    rate: float
    #: People of batches that have not left.
    waiting: int
    #: When the next batch, and the last, may leave by the timetable.
    next_at: datetime | None
    last_at: datetime | None


def throughput(session: Session, send_id: int, *, now: datetime) -> Throughput:
    """The pace and what is left of a send under way."""
    since = now - timedelta(seconds=60)
    settled = session.execute(
        select(func.sum(_batch.c.size), func.min(_batch.c.settled_at)).where(
            _batch.c.send_id == send_id, _batch.c.settled_at > since
        )
    ).one()
    waiting = session.execute(
        select(
            func.sum(_batch.c.size), func.min(_batch.c.not_before), func.max(_batch.c.not_before)
        ).where(_batch.c.send_id == send_id, _batch.c.state == BatchState.PENDING)
    ).one()
    seconds = max((now - settled[1]).total_seconds(), 1.0) if settled[1] else 1.0
    return Throughput(
        float(settled[0] or 0) / seconds, int(waiting[0] or 0), waiting[1], waiting[2]
    )


def first_departure(session: Session, send_id: int) -> datetime | None:
    """When the first request of a send left."""
    wanted = select(func.min(_batch.c.departed_at)).where(_batch.c.send_id == send_id)
    return session.execute(wanted).scalar_one()  # type: ignore[no-any-return]


def people(
    session: Session, send_id: int, *, state: str | None = None, email: str | None = None
) -> Iterator[Row[Any]]:
    """Everybody of a send: ``id``, ``email`` (None when erased), ``state``, ``reason``, ``batch``.

    In the order of the batches, streamed: there may be a million. SendError when they are
    not kept any more.
    """
    gone = find(session, send_id).summarized_at
    if gone is not None:
        raise SendError(
            f"its people are not kept any more, since {gone:%Y-%m-%d}",
            place=f"send {send_id}",
            hint="The sums by state are: leave --people out.",
        )
    rows = (
        select(
            _delivery.c.subscriber_id.label("id"),
            _subscriber.c.email,
            _delivery.c.state,
            _delivery.c.reason,
            _delivery.c.batch,
        )
        .select_from(
            _delivery.outerjoin(_subscriber, _subscriber.c.id == _delivery.c.subscriber_id)
        )
        .where(_delivery.c.send_id == send_id)
        .order_by(_delivery.c.batch, _delivery.c.subscriber_id)
    )
    if state is not None:
        rows = rows.where(_delivery.c.state == state)
    if email is not None:
        rows = rows.where(func.lower(_subscriber.c.email) == email.strip().lower())
    return iter(session.execute(rows.execution_options(yield_per=1000)))
