"""Adding and editing a subscriber by hand.

An operator who adds a topic states what the subscriber agreed to. The statement is kept as a
consent record, as with an import.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import select

from newsletter.db import webhook_queue
from newsletter.db.dialect import insert_into
from newsletter.db.orm import Session, table_of
from newsletter.db.webhook_queue import WebhookEvent
from newsletter.errors import UserError
from subscribers import field_values
from subscribers.consent import former_addresses, suppression, topics
from subscribers.email_address import hash_address, parse
from subscribers.models import Subscriber, Subscription, Topic
from subscribers.self_service import preferences

_subscriber, _subscription, _topic = (
    table_of(Subscriber),
    table_of(Subscription),
    table_of(Topic),
)
#: The source of consent records for changes by an operator.
_SOURCE = "console"
#: Largest size of a subscriber's attributes as JSON, in characters.
_MAX_ATTRIBUTES = 20_000


class EditError(UserError):
    """A subscriber cannot be saved like this; ``place`` is the field."""


@dataclass(frozen=True, slots=True)
class Details:
    """The editable data of a subscriber, besides the address."""

    name: str = ""
    language: str | None = None
    timezone: str | None = None
    attributes: Mapping[str, Any] | None = None
    #: Slugs.
    topics: Collection[str] = ()


def read(
    *, name: str, language: str, timezone: str, attributes: str, topics: Collection[str]
) -> Details:
    """The details in the text fields of a form; EditError names the field that cannot be read."""
    try:
        place = "name"
        checked_name = field_values.checked_name(name.strip())
        place = "language"
        tag = field_values.language(language)
        place = "timezone"
        zone = field_values.timezone(timezone)
        place = "attributes"
        values = field_values.json_object(attributes)
    except field_values.InvalidValueError as error:
        raise EditError(str(error), place=place) from None
    if len(attributes) > _MAX_ATTRIBUTES:
        raise EditError(f"more than {_MAX_ATTRIBUTES:,} characters", place="attributes")
    return Details(checked_name, tag, zone, values, topics)


def details_of(session: Session, person: Subscriber) -> Details:
    """The current details of a subscriber."""
    chosen = session.scalars(
        select(_topic.c.slug)
        .join(_subscription, _subscription.c.topic_id == _topic.c.id)
        .where(_subscription.c.subscriber_id == person.id)
        .order_by(_topic.c.slug)
    )
    return Details(
        person.name, person.language, person.timezone, dict(person.attributes), tuple(chosen)
    )


def stamp(details: Details) -> str:
    """A hash of the details, by which ``edit`` notices that another user changed them meanwhile."""
    parts = [details.name, details.language, details.timezone, details.attributes]
    text = orjson.dumps([*parts, sorted(details.topics)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]


def add(
    session: Session,
    email: str,
    details: Details,
    *,
    address_key: bytes,
    wording: str,
    now: datetime,
) -> int:
    """Add a subscriber who agreed elsewhere; returns their id.

    ``wording`` states what they agreed to and how. They are emailed without a confirmation, as
    with an import that an operator vouches for. By the same rule, nobody who unsubscribed is
    added, and nobody at an address that they gave up. The caller rolls back on an error. Raises
    AddressError for an invalid address, else EditError.
    """
    address = parse(email)
    hashed = hash_address(address_key, address)
    statement = _checked_wording(wording)
    reason = suppression.reason_of(session, hashed)
    if reason is not None:
        raise EditError(
            f"this address is suppressed: {reason}",
            place="email",
            hint="Only the person can come back, by signing up again and confirming it.",
        )
    row = {
        "email": address.email,
        "address_hash": hashed,
        "name": details.name,
        "attributes": dict(details.attributes or {}),
        "language": details.language,
        "timezone": details.timezone,
        "source": _SOURCE,
        "created_at": now,
        "confirmed_at": now,
    }
    added = insert_into(session, _subscriber).values(row).on_conflict_do_nothing()
    subscriber_id = session.scalar(added.returning(_subscriber.c.id))
    if subscriber_id is None:
        raise EditError("a subscriber has this address already", place="email")
    # Checked only now: the insert waited for anybody who was changing their address.
    if former_addresses.is_former(session, hashed):
        raise EditError(
            "the owner of this address changed to another one",
            place="email",
            hint="Only the person can come back, by signing up again and confirming it.",
        )
    topics.choose(session, subscriber_id, details.topics, now=now)
    preferences.record(
        session, subscriber_id, "imported", wording=statement, now=now, source=_SOURCE
    )
    one = select(_subscriber.c.id, _subscriber.c.email).where(_subscriber.c.id == subscriber_id)
    webhook_queue.report_subscribers(
        session, WebhookEvent.SUBSCRIBER_CREATED, one, now=now, source=_SOURCE
    )
    return int(subscriber_id)


def edit(
    session: Session,
    subscriber_id: int,
    details: Details,
    *,
    seen: str,
    wording: str,
    now: datetime,
) -> list[str]:
    """Change a subscriber's details; returns the names of the changed ones.

    ``seen`` is the stamp of the details that the operator saw. Raises EditError if they have
    changed since, and if a topic is added without a statement of what the person agreed to.
    """
    person = preferences.lock(session, subscriber_id)
    if person is None:
        raise EditError("there is no subscriber with this id")
    before = details_of(session, person)
    if stamp(before) != seen:
        raise EditError(
            "another user changed this subscriber while the form was open",
            hint="Your input is still here. Compare it with the current values, and save again.",
        )
    named = {"name", "language", "timezone", "attributes"}
    differs = sorted(n for n in named if getattr(before, n) != getattr(details, n))
    for name in differs:
        setattr(person, name, getattr(details, name))
    session.add(person)
    offered = set(session.scalars(select(_topic.c.slug)))
    added = sorted((set(details.topics) & offered) - set(before.topics))
    dropped = sorted(set(before.topics) - set(details.topics))
    statement = _checked_wording(wording) if added else ""
    topics.choose(session, subscriber_id, added, now=now)
    topics.drop(session, subscriber_id, dropped, now=now)
    for act, slugs, stated in (("imported", added, statement), ("withdrawn", dropped, "")):
        if slugs:
            text = ". ".join(part for part in (f"Topics: {', '.join(slugs)}", stated) if part)
            preferences.record(session, subscriber_id, act, wording=text, now=now, source=_SOURCE)
    session.flush()
    return [*differs, *(["topics"] if added or dropped else [])]


def _checked_wording(wording: str) -> str:
    """The operator's statement on one line; EditError if it is empty."""
    line = " ".join("".join(c if c.isprintable() else " " for c in wording).split())
    if not line:
        raise EditError(
            "what did the person agree to, and how?",
            place="wording",
            hint="It is kept as the proof of consent: “asked for it by phone on 3 May”.",
        )
    return line
