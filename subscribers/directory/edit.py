"""What an operator may change of a person by hand, with a word on why it is allowed.

Topics are somebody's wish: an operator who adds one states what the person agreed to, and
the record of consent keeps that, as it does for an import.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import select

from newsletter.db.orm import Session, insert_into, table_of
from newsletter.errors import UserError
from subscribers.consent import former_addresses, topics
from subscribers.email_address import hash_address, parse
from subscribers.list_files.row import UnfitError, checked_name, json_object, language, timezone
from subscribers.models import Subscriber, Subscription, Topic
from subscribers.self_service import preferences

_subscriber, _subscription, _topic = (
    table_of(Subscriber),
    table_of(Subscription),
    table_of(Topic),
)
#: Where consent that an operator states is recorded to come from.
_SOURCE = "console"
#: Characters of all attributes of a person, as JSON.
_MAX_ATTRIBUTES = 20_000


class EditError(UserError):
    """Something that cannot be kept of a person; ``place`` is the field."""


@dataclass(frozen=True, slots=True)
class Details:
    """What is kept of a person besides the address."""

    name: str = ""
    language: str | None = None
    timezone: str | None = None
    attributes: Mapping[str, Any] | None = None
    #: Slugs.
    topics: Collection[str] = ()


def read(*, name: str, tongue: str, zone: str, attributes: str, topics: Collection[str]) -> Details:
    """What a form's texts say; EditError names the field that cannot be read."""
    try:
        place = "name"
        called = checked_name(name.strip())
        place = "language"
        spoken = language(tongue)
        place = "timezone"
        lives = timezone(zone)
        place = "attributes"
        values = json_object(attributes)
    except UnfitError as error:
        raise EditError(str(error), place=place) from None
    if len(attributes) > _MAX_ATTRIBUTES:
        raise EditError(f"more than {_MAX_ATTRIBUTES:,} characters", place="attributes")
    return Details(called, spoken, lives, values, topics)


def details_of(session: Session, person: Subscriber) -> Details:
    """What is kept of a person now."""
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
    """A text that changes with anything of it: whoever edits an older state is told."""
    said = [details.name, details.language, details.timezone, details.attributes]
    text = orjson.dumps([*said, sorted(details.topics)], option=orjson.OPT_SORT_KEYS)
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
    """Add somebody who agreed elsewhere; returns their id.

    ``wording`` says to what and how. They are mailed without being asked, as with an import
    whose people somebody vouches for, and by the same rule nobody who left comes back, and
    nobody under an address that they gave up. What was written is to be rolled back on an error.
    AddressError for what is no address, EditError otherwise.
    """
    address = parse(email)
    hashed = hash_address(address_key, address)
    stated = _stated(wording)
    reason = preferences.suppressed(session, hashed)
    if reason is not None:
        raise EditError(
            f"this address stays out: {reason}",
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
        raise EditError("somebody has this address already", place="email")
    # Asked only now, which has waited for whoever was changing their address.
    if former_addresses.is_given_up(session, hashed):
        raise EditError(
            "this address stays out: its owner changed to another one",
            place="email",
            hint="Only the person can come back, by signing up again and confirming it.",
        )
    topics.choose(session, subscriber_id, details.topics, now=now)
    preferences.record(session, subscriber_id, "imported", wording=stated, now=now, source=_SOURCE)
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
    """Change what is kept of a person; returns the names of what changed.

    ``seen`` is the stamp of what the operator saw. EditError when it is another by now, and
    when a topic is added without a word on what the person agreed to.
    """
    person = preferences.held(session, subscriber_id)
    if person is None:
        raise EditError("there is nobody of this number")
    before = details_of(session, person)
    if stamp(before) != seen:
        raise EditError(
            "somebody changed this person while the form was open",
            hint="What you typed is still here. Compare, and save once more.",
        )
    named = {"name", "language", "timezone", "attributes"}
    differs = sorted(n for n in named if getattr(before, n) != getattr(details, n))
    for name in differs:
        setattr(person, name, getattr(details, name))
    session.add(person)
    offered = set(session.scalars(select(_topic.c.slug)))
    added = sorted((set(details.topics) & offered) - set(before.topics))
    dropped = sorted(set(before.topics) - set(details.topics))
    stated = _stated(wording) if added else ""
    topics.choose(session, subscriber_id, added, now=now)
    topics.drop(session, subscriber_id, dropped, now=now)
    for act, slugs, words in (("imported", added, stated), ("withdrawn", dropped, "")):
        if slugs:
            said = ". ".join(part for part in (f"Topics: {', '.join(slugs)}", words) if part)
            preferences.record(session, subscriber_id, act, wording=said, now=now, source=_SOURCE)
    session.flush()
    return [*differs, *(["topics"] if added or dropped else [])]


def _stated(wording: str) -> str:
    """The operator's words in one line; EditError where there are none."""
    words = " ".join("".join(c if c.isprintable() else " " for c in wording).split())
    if not words:
        raise EditError(
            "what did the person agree to, and how?",
            place="wording",
            hint="It is kept as the proof of consent: “asked for it by phone on 3 May”.",
        )
    return words
