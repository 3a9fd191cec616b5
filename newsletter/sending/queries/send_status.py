"""Reads the status of sends: state, progress and recipients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select

from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.issues.models import Issue
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.states import NOT_ACCEPTED, BatchState, DeliveryState, SendState
from subscribers.models import Subscriber

_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)
_issue, _subscriber = table_of(Issue), table_of(Subscriber)


@dataclass(frozen=True, slots=True)
class SendStatus:
    """A send, its issue's slug, and its recipients by state."""

    send: Send
    slug: str
    #: State of batches → recipients in them.
    in_batches: dict[str, int]
    #: State of deliveries → recipients.
    recipients: dict[str, int]

    @property
    def adds_up(self) -> bool:
        """Whether each planned recipient is in one state, or was transferred to another send."""
        return sum(self.recipients.values()) + self.send.transferred == self.send.planned


def find(session: Session, send_id: int) -> Send:
    """The send with this id. Raises SendError if there is none."""
    send = session.get(Send, send_id)
    if send is None:
        raise SendError(
            "there is no such send",
            place=f"send {send_id}",
            hint="The list of sends has all numbers.",
        )
    return send


def send_subject(session: Session, send_id: int) -> str:
    """What the audit log calls a send: its number and its issue's slug."""
    of_send = _issue.c.id == select(_send.c.issue_id).where(_send.c.id == send_id).scalar_subquery()
    return f"send {send_id} ({session.scalar(select(_issue.c.slug).where(of_send))})"


def get_status(session: Session, send_id: int) -> SendStatus:
    """The status of a send, counted from its deliveries, or from its totals once those are gone.

    Raises SendError if there is no such send.
    """
    send = find(session, send_id)
    slug = session.execute(select(_issue.c.slug).where(_issue.c.id == send.issue_id)).scalar_one()
    if send.summarized_at is not None:
        return SendStatus(
            send, slug, recipients_by_batch_state(session, send_id), send.final_counts
        )
    people = session.execute(
        select(_delivery.c.state, func.count())
        .where(_delivery.c.send_id == send_id)
        .group_by(_delivery.c.state)
    )
    return SendStatus(
        send, slug, recipients_by_batch_state(session, send_id), {row[0]: row[1] for row in people}
    )


def recipients_by_batch_state(session: Session, send_id: int) -> dict[str, int]:
    """State of batches → recipients in them. Reads batches only, so it is cheap."""
    rows = session.execute(
        select(_batch.c.state, func.sum(_batch.c.size))
        .where(_batch.c.send_id == send_id)
        .group_by(_batch.c.state)
    )
    return {row[0]: int(row[1]) for row in rows}


def accepted_by(session: Session, worker: str) -> int:
    """How many batches of this worker the provider accepted."""
    conditions = _batch.c.worker == worker, _batch.c.state == BatchState.ACCEPTED
    return session.scalar(select(func.count()).where(*conditions)) or 0


def accepted_count(session: Session, sends: Sequence[Send]) -> dict[int, int]:
    """Send → recipients that the provider accepted, without counting a million rows.

    A sent send has the number stored. For any other it is the recipients of accepted batches,
    minus those that were skipped when the batch left, or rejected before the batch was sent
    again without them.
    """
    counts = dict[int, int]()
    for send in sends:
        if send.summarized_at is not None:
            counts[send.id] = sum(
                n for state, n in send.final_counts.items() if state not in NOT_ACCEPTED
            )
        elif send.state == SendState.SENT and send.accepted_count is not None:
            counts[send.id] = send.accepted_count
    others = [send.id for send in sends if send.id not in counts]
    if not others:
        return counts
    accepted = (_batch.c.send_id.in_(others), _batch.c.state == BatchState.ACCEPTED)
    in_accepted = session.execute(
        select(_batch.c.send_id, func.sum(_batch.c.size)).where(*accepted).group_by("send_id")
    )
    counts |= dict.fromkeys(others, 0) | {row[0]: int(row[1]) for row in in_accepted}
    in_batch = (_delivery.c.send_id == _batch.c.send_id) & (_delivery.c.batch == _batch.c.number)
    not_accepted = session.execute(
        select(_delivery.c.send_id, func.count())
        .select_from(_batch.join(_delivery, in_batch))
        .where(
            *accepted,
            _delivery.c.state.in_([DeliveryState.SKIPPED, DeliveryState.REJECTED]),
            _delivery.c.reason.is_not(None),  # these states always have one, and it is indexed
        )
        .group_by(_delivery.c.send_id)
    )
    for send_id, people in not_accepted:
        counts[send_id] -= people
    return counts


def latest_sends(session: Session, *, limit: int = 50) -> list[tuple[Send, str]]:
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
    """The current speed of a send, and when its remaining batches leave."""

    #: Recipients per second over the last minute.
    rate: float
    #: Recipients in pending batches.
    waiting: int
    #: When the next batch, and the last, may leave by the timetable.
    next_at: datetime | None
    last_at: datetime | None


def throughput(session: Session, send_id: int, *, now: datetime) -> Throughput:
    """The speed and the remaining batches of a send."""
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
    """When the first batch of a send left; None if none has."""
    query = select(func.min(_batch.c.departed_at)).where(_batch.c.send_id == send_id)
    return session.execute(query).scalar_one()  # type: ignore[no-any-return]


def stream_recipients(
    session: Session, send_id: int, *, state: str | None = None, email: str | None = None
) -> Iterator[Row[Any]]:
    """Recipients of a send: ``id``, ``email`` (None if erased), ``state``, ``reason``, ``batch``.

    They are in the order of the batches and are streamed, because there may be a million.
    Raises SendError once they are deleted after their retention time.
    """
    gone = find(session, send_id).summarized_at
    if gone is not None:
        raise SendError(
            f"its recipients were deleted on {gone:%Y-%m-%d}, after their retention time",
            place=f"send {send_id}",
            hint="The totals by state remain: omit --recipients.",
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
