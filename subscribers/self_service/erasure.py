"""A person's rights over their data: a copy of all of it, and its end (GDPR Art. 15, 17, 20).

What stays after an erasure is the keyed hash of the address, among the suppressions, and of
those that the person had before, among the former addresses, where they name nobody. So much
is needed to honour the wish (Art. 17(3)(b)), since the next import may bring an address again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Table, delete, select

from newsletter.db.orm import Session, table_of
from newsletter.errors import UserError
from subscribers.consent import suppression
from subscribers.email_address import hash_address, parse
from subscribers.models import (
    Confirmation,
    Consent,
    FormerAddress,
    Subscriber,
    Subscription,
    Suppression,
    SuppressionReason,
    Topic,
)

_subscriber = table_of(Subscriber)
_subscription = table_of(Subscription)
_suppression = table_of(Suppression)
_consent = table_of(Consent)
_topic = table_of(Topic)
_confirmation = table_of(Confirmation)
_former = table_of(FormerAddress)


def find(session: Session, email: str, *, address_key: bytes) -> int:
    """The id of the person with this address, however it is spelt; UserError without one."""
    hashed = hash_address(address_key, parse(email))
    person: int | None = session.scalar(
        select(_subscriber.c.id).where(_subscriber.c.address_hash == hashed)
    )
    if person is None:
        reason = session.scalar(
            select(_suppression.c.reason).where(_suppression.c.address_hash == hashed)
        )
        raise UserError(
            "nobody is known by this address",
            hint=f"A keyed hash of it is kept so that it is not mailed: {reason}."
            if reason
            else None,
        )
    return person


def erase(session: Session, subscriber_id: int, *, now: datetime) -> None:
    """Delete all that is kept of a person here, and let nobody bring the address back.

    Deliveries and events are the publication's, which erases them by the same id in the
    same transaction. Raises UserError when there is nobody of this id.
    """
    row = _row(session, _subscriber, subscriber_id)
    # Topics, consent and open requests go by cascade; a signup of theirs names no person yet.
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
    """All that is kept of a person, ready for JSON; ``more`` is what other packages keep.

    Raises UserError when there is nobody of this id.
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
    barred = session.execute(
        select(_suppression).where(_suppression.c.address_hash == person.address_hash)
    ).one_or_none()
    former = session.execute(
        select(_former).where(_former.c.subscriber_id == subscriber_id).order_by(_former.c.at)
    )
    return {
        "subscriber": _ready(person._asdict()),
        "topics": [_ready(row._asdict()) for row in topics],
        "consent": [_ready(row._asdict()) for row in consents],
        "suppression": _ready(barred._asdict()) if barred else None,
        "former_addresses": [_ready(row._asdict()) for row in former],
        **{name: [_ready(row) for row in rows] for name, rows in (more or {}).items()},
    }


def _row(session: Session, table: Table, number: int) -> Row[Any]:
    row = session.execute(select(table).where(table.c.id == number)).one_or_none()
    if row is None:
        raise UserError("there is nobody of this number", place=str(number))
    return row


def _ready(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 (whatever a column holds)
    if isinstance(value, datetime):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value
