"""Webhook deliveries: what is due, what is sent next, and what follows from an answer.

A thread leases an endpoint and sends its deliveries one after the other, so that an endpoint gets
them in order, and never two at once. The outbox of emails leases single rows, which keeps no
order. A delivery stays pending until its answer is stored: a crash sends it again, with its id.
"""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)

from newsletter.accounts import audit, operator_messages
from newsletter.accounts.audit import Actor
from newsletter.accounts.operator_messages import MessageKind
from newsletter.db.orm import Session, changed, table_of
from newsletter.db.webhook_queue import (
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookState,
)
from newsletter.webhooks.endpoints import WebhookError, host_of
from subscribers.email_address import without_addresses

_endpoint, _delivery = table_of(WebhookEndpoint), table_of(WebhookDelivery)
#: A literal, not a parameter, so that the database can use the partial index.
_PENDING: ColumnElement[bool] = _delivery.c.state == literal_column(f"'{WebhookState.PENDING}'")
_of_endpoint = and_(_delivery.c.endpoint_id == _endpoint.c.id, _PENDING)

#: The waits before the second and each further request of a delivery: three days in all.
RETRIES: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
#: The waits of an endpoint after its first, second … failure in a row, whatever it was sent.
PAUSES: Final = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 60, 120, 300))
#: After so many failures in a row, the endpoint was down, and no single delivery was to blame.
_OUTAGE: Final = 3
#: An endpoint that accepted nothing for so long is disabled.
GIVE_UP: Final = timedelta(days=3)
#: Longer than a request and its commits, so that only a dead process's lease ends.
LEASE: Final = timedelta(seconds=60)
KEEP: Final = timedelta(days=30)
#: Rows that one transaction deletes, because other writers wait for it.
_DELETED: Final = 50_000
#: Characters of an answer that are stored.
_ANSWER: Final = 1000
_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class LeasedEndpoint:
    """An endpoint to which this thread alone sends."""

    id: int
    lease: str
    url: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NextDelivery:
    """A delivery that is to be sent now."""

    id: int
    message_id: str
    attempt: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered: a status, or None; and the beginning of its text, or why not."""

    status: int | None
    text: str

    @property
    def is_success(self) -> bool:
        """Whether the endpoint has accepted the delivery."""
        return self.status is not None and 200 <= self.status < 300


def any_due(session: Session, *, now: datetime) -> bool:
    """Whether something can be sent now. Only reads."""
    return session.scalar(_due(now).limit(1)) is not None


def next_due() -> Select[Any]:
    """A query of the time when something can be sent, as ``scheduling.due`` combines them."""
    first = select(func.min(_delivery.c.not_before)).where(_of_endpoint).scalar_subquery()
    waits = _later(_endpoint.c.not_before, _endpoint.c.lease_until)
    return select(func.min(_later(first, waits))).where(
        _endpoint.c.disabled_at.is_(None), first.is_not(None)
    )


def lease(session: Session, *, now: datetime) -> LeasedEndpoint | None:
    """Lease the endpoint that waits longest, if any; it is the caller's after the commit."""
    longest = _due(now).order_by(_endpoint.c.not_before, _endpoint.c.id).limit(1)
    endpoint_id = session.scalar(longest.with_for_update(skip_locked=True))
    if endpoint_id is None:
        return None
    row = session.execute(
        update(_endpoint)
        .where(_endpoint.c.id == endpoint_id)
        .values(lease=secrets.token_hex(16), lease_until=now + LEASE)
        .returning(_endpoint)
    ).one()
    in_force = [row.secret]
    if row.old_secret and row.old_secret_until is not None and row.old_secret_until > now:
        in_force.append(row.old_secret)
    return LeasedEndpoint(row.id, row.lease, row.url, tuple(in_force))


def take(session: Session, endpoint: LeasedEndpoint, *, now: datetime) -> NextDelivery | None:
    """The next delivery of a leased endpoint; None if nothing is due, or the lease is over.

    The request counts from now on, so that one that ends this process is not repeated for ever.
    """
    held = _held(endpoint), _endpoint.c.disabled_at.is_(None)
    renewed = update(_endpoint).where(*held).values(lease_until=now + LEASE)
    sequence = session.scalar(renewed.returning(_endpoint.c.sequence))
    if sequence is None:
        return None
    row = session.execute(
        select(_delivery)
        .where(_delivery.c.endpoint_id == endpoint.id, _PENDING, _delivery.c.not_before <= now)
        .order_by(_delivery.c.not_before, _delivery.c.id)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    number = row.sequence
    if number is None:
        number = sequence + 1
        counted = update(_endpoint).where(_endpoint.c.id == endpoint.id).values(sequence=number)
        session.execute(counted)
    session.execute(
        update(_delivery)
        .where(_delivery.c.id == row.id)
        .values(sequence=number, attempt=row.attempt + 1, sent_at=now)
    )
    return NextDelivery(row.id, f"msg_{row.message_id}", row.attempt + 1, _body(row, number))


def settle(
    session: Session,
    endpoint: LeasedEndpoint,
    sent: NextDelivery,
    answer: Answer,
    *,
    now: datetime,
) -> bool:
    """Store an answer and what follows from it; returns whether to go on with the endpoint."""
    values: dict[str, Any] = {"status": answer.status, "answer": _stored(answer.text)}
    row = session.execute(select(_endpoint).where(_held(endpoint)).with_for_update()).one_or_none()
    if answer.is_success:
        values |= {"state": WebhookState.DELIVERED, "not_before": now}
        # The address of an erased subscriber is kept no longer than it is needed.
        values["email"] = case(
            (_delivery.c.event == WebhookEvent.SUBSCRIBER_ERASED, null()), else_=_delivery.c.email
        )
    elif answer.status == _GONE or sent.attempt > len(RETRIES):
        values["state"] = WebhookState.FAILED
    else:
        # A tenth more or less, so that the retries of many deliveries spread.
        wait = RETRIES[sent.attempt - 1] * random.uniform(0.9, 1.1)  # noqa: S311
        values["not_before"] = now + wait
    same = _delivery.c.id == sent.id, _delivery.c.attempt == sent.attempt
    session.execute(update(_delivery).where(*same, _PENDING).values(values))
    if row is None:
        return False
    if answer.is_success:
        if row.failures:
            _change(session, endpoint, failures=0, failing_since=None)
        if row.failures >= _OUTAGE:
            _end_waits(session, endpoint)
        return True
    since = row.failing_since or now
    pause = PAUSES[min(row.failures, len(PAUSES) - 1)]
    _change(session, endpoint, failures=row.failures + 1, failing_since=since)
    if answer.status == _GONE:
        _disable(session, row, "it answered 410 Gone", now=now)
    elif now - since >= GIVE_UP:
        _disable(session, row, "it accepted nothing for three days", now=now)
    else:
        _change(session, endpoint, not_before=now + pause)
    return False


def release(session: Session, endpoint: LeasedEndpoint, *, now: datetime) -> None:
    """End a lease, so that the endpoint's turn comes after that of others."""
    rests = _endpoint.c.not_before.between(now, now + PAUSES[-1])
    later = case((rests, _endpoint.c.not_before), else_=now)
    _change(session, endpoint, lease="", lease_until=now, not_before=later)


def resend(session: Session, delivery_id: int, *, by: Actor, now: datetime) -> int:
    """Send a delivery once more, with its id and number; returns its endpoint.

    Raises WebhookError if its body cannot be the same: an erased address is deleted.
    """
    row = find(session, delivery_id)
    if row.event == WebhookEvent.SUBSCRIBER_ERASED and row.email is None:
        raise WebhookError(
            "the address of the erased subscriber was deleted once this was delivered",
            place=f"webhook delivery {delivery_id}",
            hint=f"Tell the other program by hand that subscriber {row.subscriber_id} is erased.",
        )
    session.execute(
        update(_delivery)
        .where(_delivery.c.id == delivery_id)
        .values(state=WebhookState.PENDING, attempt=0, not_before=now)
    )
    url = session.scalar(select(_endpoint.c.url).where(_endpoint.c.id == row.endpoint_id)) or ""
    audit.record(
        session,
        by,
        "webhook sent again",
        now=now,
        subject=f"webhook endpoint {row.endpoint_id} ({host_of(url)})",
        delivery=delivery_id,
    )
    return int(row.endpoint_id)


def find(session: Session, delivery_id: int) -> Row[Any]:
    """The delivery; WebhookError if there is none with this number."""
    known = exists().where(_endpoint.c.id == _delivery.c.endpoint_id)
    row = session.execute(
        select(_delivery).where(_delivery.c.id == delivery_id, known)
    ).one_or_none()
    if row is None:
        raise WebhookError(
            "there is no such delivery",
            place=f"webhook delivery {delivery_id}",
            hint="Deliveries are kept for 30 days.",
        )
    return row


def latest(
    session: Session,
    endpoint_id: int,
    *,
    state: WebhookState | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Sequence[Row[Any]]:
    """The latest deliveries of an endpoint, newest first."""
    query = select(_delivery).where(_delivery.c.endpoint_id == endpoint_id)
    if state is not None:
        query = query.where(_delivery.c.state == state)
    if before is not None:
        query = query.where(_delivery.c.id < before)
    return session.execute(query.order_by(_delivery.c.id.desc()).limit(limit)).all()


def delete_old(session: Session, *, now: datetime) -> int:
    """Delete deliveries that are past their retention, sent or not; returns how many."""
    old = select(_delivery.c.id).where(_delivery.c.created_at < now - KEEP).limit(_DELETED)
    return changed(session, delete(_delivery).where(_delivery.c.id.in_(old)))


def _due(now: datetime) -> Select[Any]:
    """The endpoints that can be sent something now."""
    waiting = exists().where(_of_endpoint, _delivery.c.not_before <= now)
    return select(_endpoint.c.id).where(
        _endpoint.c.disabled_at.is_(None),
        _is_over(_endpoint.c.not_before, now),
        _is_over(_endpoint.c.lease_until, now),
        waiting,
    )


def _is_over(until: ColumnElement[Any], now: datetime) -> ColumnElement[bool]:
    """Whether a wait of an endpoint is over: also if it is longer than any, because the clock
    was set back."""
    return or_(until <= now, until > now + 2 * PAUSES[-1])


def _later(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((one > other, one), else_=other)


def _held(endpoint: LeasedEndpoint) -> ColumnElement[bool]:
    return and_(_endpoint.c.id == endpoint.id, _endpoint.c.lease == endpoint.lease)


def _change(session: Session, endpoint: LeasedEndpoint, **values: object) -> None:
    session.execute(update(_endpoint).where(_held(endpoint)).values(**values))


def _end_waits(session: Session, endpoint: LeasedEndpoint) -> None:
    """Let all that waits follow now, in its first order, because the endpoint works again."""
    waiting = _delivery.c.endpoint_id == endpoint.id, _PENDING, _delivery.c.attempt > 0
    session.execute(update(_delivery).where(*waiting).values(not_before=_delivery.c.created_at))


def _disable(session: Session, row: Row[Any], reason: str, *, now: datetime) -> None:
    values = {"disabled_at": now, "disabled_reason": reason}
    session.execute(update(_endpoint).where(_endpoint.c.id == row.id).values(values))
    operator_messages.post(
        session,
        MessageKind.WEBHOOK_DISABLED,
        row.id,
        now=now,
        occasion=now.isoformat(),
        detail=f"The endpoint is at {host_of(row.url)}, and {reason}.",
    )


def _body(row: Row[Any], sequence: int) -> bytes:
    """The JSON of a delivery, the same at each request."""
    data: dict[str, Any] = {"sequence": sequence, **row.data}
    if row.subscriber_id is not None:
        data["subscriber"] = {"id": row.subscriber_id, "email": row.email}
    at = row.created_at.astimezone(UTC).isoformat(timespec="milliseconds")
    return orjson.dumps(
        {"type": row.event, "timestamp": at.replace("+00:00", "Z"), "data": data},
        option=orjson.OPT_SORT_KEYS,
    )


def _stored(text: str) -> str:
    """The beginning of an answer, without addresses of subscribers; PostgreSQL stores no NUL."""
    return without_addresses(text[:_ANSWER]).replace("\0", "�")[:_ANSWER]
