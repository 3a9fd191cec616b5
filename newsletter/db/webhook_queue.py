"""The queue of outgoing webhooks: events are written in the transaction that causes them.

An event has one row for each endpoint that wants it, and none without such an endpoint. Both
packages report events, so the queue is below them; ``newsletter.webhooks`` sends what is in it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Index,
    Select,
    delete,
    exists,
    insert,
    literal,
    null,
    select,
    text,
)

from newsletter.db.dialect import random_hex
from newsletter.db.orm import NEVER_AGAIN, Field, Id, Json, Model, Session, one_of, table_of


class WebhookEvent(StrEnum):
    """What endpoints can be told (docs/reference/webhook-events.md)."""

    OPERATOR_MESSAGE = "operator.message"
    SEND_SCHEDULED = "send.scheduled"
    SEND_STARTED = "send.started"
    SEND_PAUSED = "send.paused"
    SEND_FAILED = "send.failed"
    SEND_RESUMED = "send.resumed"
    SEND_CANCELLED = "send.cancelled"
    SEND_FINISHED = "send.finished"
    ISSUE_APPROVED = "issue.approved"
    SUBSCRIBER_CREATED = "subscriber.created"
    SUBSCRIBER_CONFIRMED = "subscriber.confirmed"
    SUBSCRIBER_UNSUBSCRIBED = "subscriber.unsubscribed"
    SUBSCRIBER_BOUNCED = "subscriber.bounced"
    SUBSCRIBER_COMPLAINED = "subscriber.complained"
    SUBSCRIBER_ERASED = "subscriber.erased"


#: What a test of an endpoint sends. No endpoint chooses it.
TEST_EVENT: Final = "webhook.test"


class WebhookState(StrEnum):
    """The state of a webhook delivery."""

    #: It was not sent yet, or is sent again later.
    PENDING = "pending"
    #: The endpoint answered 2xx.
    DELIVERED = "delivered"
    #: The endpoint refused it, or did not accept it in three days.
    FAILED = "failed"


class WebhookEndpoint(Model, table=True):
    """A URL of another program, which is told about events."""

    __tablename__ = "webhook_endpoint"
    __table_args__ = (NEVER_AGAIN,)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    url: str = Field(max_length=2000)
    description: str = Field(default="", max_length=200)
    #: Signs the requests, so it cannot be a hash.
    secret: str = Field(max_length=100)
    #: The secret before a rotation; it also signs until this time.
    old_secret: str = Field(default="", max_length=100)
    old_secret_until: datetime | None = None
    created_at: datetime
    disabled_at: datetime | None = None
    disabled_reason: str = Field(default="", max_length=500)
    #: The number of the latest delivery that was sent.
    sequence: int = Field(default=0, sa_type=BigInteger)
    #: Requests that failed since the last success, and the time of the first.
    failures: int = 0
    failing_since: datetime | None = None
    #: After a failure, nothing is sent to the endpoint before this time.
    not_before: datetime
    #: One thread of one process sends to an endpoint at a time: who, and until when.
    lease: str = Field(default="", max_length=32)
    lease_until: datetime


class WebhookEndpointEvent(Model, table=True):
    """An event that an endpoint is told about."""

    __tablename__ = "webhook_endpoint_event"

    endpoint_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="webhook_endpoint.id", ondelete="CASCADE"
    )
    event: str = Field(primary_key=True, max_length=40)


class WebhookDelivery(Model, table=True):
    """An event for one endpoint."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        one_of("state", WebhookState),
        Index(
            "ix_webhook_delivery_pending",
            "endpoint_id",
            "not_before",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(None, "endpoint_id", "id"),
        Index(
            "ix_webhook_delivery_subscriber",
            "subscriber_id",
            sqlite_where=text("subscriber_id IS NOT NULL"),
            postgresql_where=text("subscriber_id IS NOT NULL"),
        ),
        NEVER_AGAIN,
    )

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    #: Not a foreign key: a transaction that reports an event must not fail, or wait, because the
    #: endpoint is being deleted.
    endpoint_id: int = Field(sa_type=Id)
    #: Random, so that an id is not given twice after a restore. Receivers deduplicate by it.
    message_id: str = Field(max_length=32)
    event: str = Field(max_length=40)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    subscriber_id: int | None = Field(default=None, sa_type=Id)
    #: The subscriber's address at the time of the event.
    email: str | None = Field(default=None, max_length=320)
    #: Counts the deliveries of the endpoint in the order in which they were first sent.
    sequence: int | None = Field(default=None, sa_type=BigInteger)
    state: str = Field(max_length=10)
    #: Requests so far.
    attempt: int = 0
    created_at: datetime = Field(index=True)
    not_before: datetime
    #: When the last request began, the status of its answer, and the beginning of that answer or
    #: why there is none.
    sent_at: datetime | None = None
    status: int | None = None
    answer: str = Field(default="", max_length=1000)


_endpoint, _chosen = table_of(WebhookEndpoint), table_of(WebhookEndpointEvent)
_delivery = table_of(WebhookDelivery)
_COLUMNS: Final = (
    *("endpoint_id", "message_id", "event", "data", "subscriber_id", "email"),
    *("state", "attempt", "created_at", "not_before", "answer"),
)


def is_wanted(session: Session, event: WebhookEvent) -> bool:
    """Whether an endpoint is told about this event."""
    return bool(session.scalar(select(exists(_endpoints(event)))))


def report(
    session: Session,
    event: WebhookEvent,
    data: Callable[[], Mapping[str, Any]],
    *,
    now: datetime,
) -> None:
    """Queue an event in the caller's transaction. ``data`` is called only if it is wanted."""
    if is_wanted(session, event):
        queue(session, event, data(), _endpoints(event), now=now)


def report_subscribers(
    session: Session,
    event: WebhookEvent,
    subscribers: Select[Any],
    *,
    now: datetime | None = None,
    **data: str,
) -> None:
    """Queue an event of each of these subscribers (id, email), with one statement."""
    if not is_wanted(session, event):
        return
    people = subscribers.subquery()
    number, email = people.c
    queue(
        session,
        event,
        data,
        _endpoints(event).add_columns(number, email).join(people, text("true")),
        now=now or datetime.now(UTC),
    )


def queue(
    session: Session,
    event: str,
    data: Mapping[str, Any],
    endpoints: Select[Any],
    *,
    now: datetime,
) -> None:
    """Queue an event for these endpoints: their id, and perhaps a subscriber's id and address."""
    to = endpoints.subquery()
    endpoint_id, *subscriber = to.c
    at = literal(now, _delivery.c.created_at.type)
    rows = select(
        endpoint_id,
        random_hex(session),
        literal(event),
        literal(dict(data), _delivery.c.data.type),
        *(subscriber or (null(), null())),
        literal(WebhookState.PENDING.value),
        literal(0),
        at,
        at,
        literal(""),
    ).order_by(*to.c)
    session.execute(insert(_delivery).from_select(_COLUMNS, rows))


def forget_subscriber(session: Session, subscriber_id: int) -> None:
    """Delete what was and will be told about a subscriber."""
    session.execute(delete(_delivery).where(_delivery.c.subscriber_id == subscriber_id))


def _endpoints(event: WebhookEvent) -> Select[Any]:
    return (
        select(_endpoint.c.id.label("endpoint"))
        .join(_chosen, _chosen.c.endpoint_id == _endpoint.c.id)
        .where(_chosen.c.event == event.value, _endpoint.c.disabled_at.is_(None))
    )
