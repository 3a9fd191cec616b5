"""Who of a claimed batch may be mailed at this very moment: read, never written."""

from datetime import datetime
from functools import lru_cache
from typing import Any, TypedDict, cast

from sqlalchemy import Select, bindparam, case, func, literal, literal_column, select

from newsletter.db.dialect import is_postgresql
from newsletter.db.orm import Session, UTCDateTime, json_rows, table_of
from newsletter.sending.ledger.batch_store import ClaimedBatch, SkippedRecipient
from newsletter.sending.ledger.forgotten_sends import PREFIX
from newsletter.sending.models import Delivery
from newsletter.sending.states import DeliveryState
from subscribers.models import Subscriber, Suppression
from subscribers.segments import store as segment_store

_delivery, _subscriber = table_of(Delivery), table_of(Subscriber)
_suppression = table_of(Suppression)


class EligibleRecipient(TypedDict):
    """What a batch's request needs of one recipient."""

    id: int
    #: The beginning of the address hash in hex; None, as the rest, of whoever was erased.
    hash: str
    email: str
    name: str
    #: Empty unless the variant speaks of attributes.
    attributes: dict[str, Any]


def recipients(
    session: Session, batch: ClaimedBatch, *, now: datetime, with_attributes: bool = True
) -> tuple[list[EligibleRecipient], list[SkippedRecipient]]:
    """The people of a claimed batch: who may be mailed at this very moment, and who not.

    Barred is whoever left, was suppressed, paused or erased since planning. Writes nothing,
    so that no writer waits meanwhile. The database hands over one JSON text: a thousand
    rows one by one would cost as much as everything else, and pass the interpreter's lock
    around for each.
    """
    values = {"now": now, "of_send": batch.send_id, "of_batch": batch.number}
    asked = _asked(
        batch.topics,
        with_attributes=with_attributes,
        postgresql=is_postgresql(session),
    )
    people = json_rows(session, asked, values)
    barred = [
        SkippedRecipient(person=p["id"], hash=p["hash"], why=p["objection"])
        for p in people
        if p["objection"]
    ]
    if barred:
        people = [person for person in people if not person["objection"]]
    return cast("list[EligibleRecipient]", people), barred


def values_of(session: Session, subscriber_id: int) -> EligibleRecipient:
    """What placeholders know of one subscriber, to preview what they would get.

    Raises NoResultFound when there is none of this number.
    """
    who = session.execute(select(_subscriber).where(_subscriber.c.id == subscriber_id)).one()
    return EligibleRecipient(
        id=who.id,
        hash=who.address_hash[:PREFIX].hex(),
        email=who.email,
        name=who.name,
        attributes=who.attributes,
    )


# Built once for the batches of a send: to build it costs as much as to run it.
@lru_cache(maxsize=16)
def _asked(topics: tuple[str, ...], *, with_attributes: bool, postgresql: bool) -> Select[Any]:
    objection = case(
        (_subscriber.c.id.is_(None), literal("erased")),
        else_=segment_store.exclusion_reason(bindparam("now", type_=UTCDateTime()), topics),
    )
    begins = func.substr(_subscriber.c.address_hash, 1, PREFIX)
    attributes = _subscriber.c.attributes if with_attributes else literal_column("NULL")
    return (
        select(
            _delivery.c.subscriber_id.label("id"),
            (func.encode(begins, "hex") if postgresql else func.hex(begins)).label("hash"),
            _subscriber.c.email.label("email"),
            _subscriber.c.name.label("name"),
            attributes.label("attributes"),
            objection.label("objection"),
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
