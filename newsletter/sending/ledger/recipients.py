"""Reads the recipients of a claimed batch, and which of them are skipped."""

from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Select, bindparam, case, func, literal, literal_column, select

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Session, UTCDateTime, json_rows, table_of
from newsletter.sending.ledger.claimed_batch import (
    ClaimedBatch,
    EligibleRecipient,
    SkippedRecipient,
)
from newsletter.sending.ledger.forgotten_sends import PREFIX
from newsletter.sending.models import Delivery
from newsletter.sending.states import DeliveryState
from subscribers.models import Subscriber, Suppression
from subscribers.segments import store as segment_store

_delivery, _subscriber = table_of(Delivery), table_of(Subscriber)
_suppression = table_of(Suppression)


def recipients(
    session: Session, batch: ClaimedBatch, *, now: datetime, with_attributes: bool = True
) -> tuple[list[EligibleRecipient], list[SkippedRecipient]]:
    """The recipients of a claimed batch who may be emailed now, and those who are skipped.

    Skipped are those who unsubscribed, or were suppressed, paused or erased, since planning.
    Writes nothing, so that no other writer waits. The database returns one JSON text, because
    fetching a thousand rows would double the time and release the GIL for each row.
    """
    values = {"now": now, "of_send": batch.send_id, "of_batch": batch.number}
    query = _recipients_query(
        batch.topics,
        with_attributes=with_attributes,
        postgresql=is_postgresql(session),
    )
    people = json_rows(session, query, values)
    skipped = [
        SkippedRecipient(person=p["id"], hash=p["hash"], why=p["exclusion"])
        for p in people
        if p["exclusion"]
    ]
    if skipped:
        people = [person for person in people if not person["exclusion"]]
    return cast("list[EligibleRecipient]", people), skipped


def values_of(session: Session, subscriber_id: int) -> EligibleRecipient:
    """The merge values of one subscriber, for a preview.

    Raises NoResultFound if there is no subscriber with this id.
    """
    subscriber = session.execute(select(_subscriber).where(_subscriber.c.id == subscriber_id)).one()
    return EligibleRecipient(
        id=subscriber.id,
        hash=subscriber.address_hash[:PREFIX].hex(),
        email=subscriber.email,
        name=subscriber.name,
        attributes=subscriber.attributes,
    )


# Cached, because building the statement takes as long as running it.
@lru_cache(maxsize=16)
def _recipients_query(
    topics: tuple[str, ...], *, with_attributes: bool, postgresql: bool
) -> Select[Any]:
    exclusion = case(
        (_subscriber.c.id.is_(None), literal("erased")),
        else_=segment_store.exclusion_reason(bindparam("now", type_=UTCDateTime()), topics),
    )
    prefix = func.substr(_subscriber.c.address_hash, 1, PREFIX)
    attributes = _subscriber.c.attributes if with_attributes else literal_column("NULL")
    return (
        select(
            _delivery.c.subscriber_id.label("id"),
            (func.encode(prefix, "hex") if postgresql else func.hex(prefix)).label("hash"),
            _subscriber.c.email.label("email"),
            _subscriber.c.name.label("name"),
            attributes.label("attributes"),
            exclusion.label("exclusion"),
        )
        .select_from(
            _delivery.outerjoin(
                _subscriber, _subscriber.c.id == _delivery.c.subscriber_id
            ).outerjoin(_suppression, _suppression.c.address_hash == _subscriber.c.address_hash)
        )
        .where(
            _delivery.c.send_id == bindparam("of_send"),
            _delivery.c.batch == bindparam("of_batch"),
            _delivery.c.state == DeliveryState.PLANNED,
        )
    )
