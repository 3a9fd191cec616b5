"""Access to, and erasure of, all data about a subscriber (GDPR Art. 15, 17, 20).

An erasure leaves the keyed hash of the address among the suppressions, and those of earlier
addresses among the former addresses, without a name. This much is needed to honor the request
(Art. 17(3)(b)), since the next import may contain an address again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table, delete, select

from newsletter.db import webhook_queue
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import UserError
from subscribers.consent import suppression
from subscribers.email_address import hash_address, parse
from subscribers.models import (
    Confirmation,
    Consent,
    FormerAddress,
    Subscriber,
    Subscription,
    SuppressionReason,
    Topic,
)

_subscriber = table_of(Subscriber)
_subscription = table_of(Subscription)
_consent = table_of(Consent)
_topic = table_of(Topic)
_confirmation = table_of(Confirmation)
_former = table_of(FormerAddress)


def find(session: Session, email: str, *, address_key: bytes) -> int:
    """The id of the subscriber with this address, in any spelling; UserError if there is none."""
    hashed = hash_address(address_key, parse(email))
    subscriber_id: int | None = session.scalar(
        select(_subscriber.c.id).where(_subscriber.c.address_hash == hashed)
    )
    if subscriber_id is None:
        reason = suppression.reason_of(session, hashed)
        raise UserError(
            "no subscriber has this address",
            hint=f"A keyed hash of it is kept so that it is not emailed: {reason}."
            if reason
            else None,
        )
    return subscriber_id


def erase(session: Session, subscriber_id: int, *, now: datetime) -> None:
    """Delete all data about a subscriber here, and suppress the address so it cannot come back.

    The caller erases deliveries and events by the same id in the same transaction. Raises
    UserError if there is no subscriber with this id.
    """
    row = _row(session, _subscriber, subscriber_id)
    webhook_queue.forget_subscriber(session, subscriber_id)
    one = select(_subscriber.c.id, _subscriber.c.email).where(_subscriber.c.id == subscriber_id)
    webhook_queue.report_subscribers(session, WebhookEvent.SUBSCRIBER_ERASED, one, now=now)
    # Topics, consent and open requests go by cascade; an open signup refers to no subscriber yet.
    session.execute(delete(_subscriber).where(_subscriber.c.id == subscriber_id))
    session.execute(delete(_confirmation).where(_confirmation.c.address_hash == row.address_hash))
    suppression.add_addresses(
        session,
        [row.address_hash],
        SuppressionReason.ERASED,
        at=now,
        evidence="erased on request",
    )


def data_of(
    session: Session,
    subscriber_id: int,
    *,
    more: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """All data about a subscriber, ready for JSON; ``more`` is the data of other packages.

    Raises UserError if there is no subscriber with this id.
    """
    person = _row(session, _subscriber, subscriber_id)
    topics = session.execute(
        select(_topic.c.slug, _topic.c.name, _subscription.c.since)
        .join(_topic)
        .where(_subscription.c.subscriber_id == subscriber_id)
        .order_by(_topic.c.slug)
    )
    consents = session.execute(
        select(_consent).where(_consent.c.subscriber_id == subscriber_id).order_by(_consent.c.id)
    )
    suppressed = suppression.find(session, person.address_hash)
    former = session.execute(
        select(_former).where(_former.c.subscriber_id == subscriber_id).order_by(_former.c.at)
    )
    return {
        "subscriber": _ready(person._asdict()),
        "topics": [_ready(row._asdict()) for row in topics],
        "consent": [_ready(row._asdict()) for row in consents],
        "suppression": _ready(suppressed._asdict()) if suppressed else None,
        "former_addresses": [_ready(row._asdict()) for row in former],
        **{name: [_ready(row) for row in rows] for name, rows in (more or {}).items()},
    }


def _row(session: Session, table: Table, number: int) -> Row[Any]:
    row = session.execute(select(table).where(table.c.id == number)).one_or_none()
    if row is None:
        raise UserError("there is no subscriber with this id", place=str(number))
    return row


def _ready(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 (whatever a column holds)
    if isinstance(value, datetime):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value
