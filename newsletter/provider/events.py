"""Parses posts of SendGrid's v3 event webhook. Pure: bytes in, events out.

It keeps unknown kinds and fields; a malformed event does not affect the others.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

from newsletter.issues.parsing.merge_fields import LINKS
from newsletter.links import looks_like_token
from newsletter.numbers import whole_number

#: Our custom args. SendGrid returns them as top-level fields of each event.
ISSUE, SEND, BATCH, SUBSCRIBER = "nl_issue", "nl_send", "nl_batch", "nl_subscriber"
#: When the send was created (``made_mark``). Another installation, or a restored database, may give
#: the same id to another send.
MADE = "nl_made"
#: The id of the email in the outbox.
NOTICE = "nl_notice"

#: Paths of our own links in issues and transactional emails.
OWN_PATHS = (*LINKS.values(), "confirm", "request", "console/password")
#: Our own links end in a token that identifies the reader, which link statistics must not contain.
_OWN_LINK = re.compile(rf"/({'|'.join(map(re.escape, OWN_PATHS))})/([^/?#]+)")
#: Links that are equal up to this length count as one.
_MAX_LINK = 500
_MAX_DOMAIN = 255
#: The most events in a post. SendGrid posts up to 768 KB: some thousands of events.
_MAX_EVENTS = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventKind(StrEnum):
    """The kind of an event. SendGrid reports a block as a bounce; here it has its own kind."""

    PROCESSED = "processed"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    #: A hard bounce: SendGrid suppresses the address.
    BOUNCE = "bounce"
    #: The server refused this email or was unreachable; SendGrid still sends later ones.
    BLOCKED = "blocked"
    #: SendGrid did not try to deliver it.
    DROPPED = "dropped"
    OPEN = "open"
    CLICK = "click"
    SPAM_REPORT = "spamreport"
    UNSUBSCRIBE = "unsubscribe"
    GROUP_UNSUBSCRIBE = "group_unsubscribe"
    GROUP_RESUBSCRIBE = "group_resubscribe"
    #: An unknown kind.
    OTHER = "other"


class OwnKind(StrEnum):
    """Kinds of events that we derive; no provider posts them."""

    #: A click on one of our own links, such as the unsubscribe link. It shows no interest in the
    #: content, so it is counted separately.
    OWN_CLICK = "own_click"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. Ids are None if it does not have our custom args."""

    kind: EventKind | OwnKind
    at: datetime
    #: 16 bytes that identify the event, also when it is posted again.
    key: bytes
    email: str | None
    issue_id: int | None
    send_id: int | None
    batch: int | None
    subscriber_id: int | None
    #: The reason in the words of the receiving server or SendGrid.
    reason: str
    #: Whether a proxy such as Apple's opened it, not a person.
    by_machine: bool
    raw: str
    #: Of a bounce: SendGrid's type (``bounce``, ``blocked`` or ``expired``), SendGrid's
    #: classification of the reason, and the server's enhanced status code (RFC 3463).
    bounce_type: str = ""
    classification: str = ""
    status: str = ""
    #: Of a click: the link, without the token of our own links.
    link: str = ""
    #: Of an open or a click: the User-Agent header.
    agent: str = ""
    #: The ``made_mark`` of the send; None for emails from before this field existed.
    made: int | None = None
    #: The id of the email in the outbox.
    notice_id: int | None = None
    #: Whether it comes from our own page behind a signed link, which proves whose it is.
    first_hand: bool = False

    @property
    def domain(self) -> str:
        """The email domain in lower case; empty if the event has no address."""
        return (self.email or "").rpartition("@")[2].lower()[:_MAX_DOMAIN]


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry of a post that is not a valid event."""

    index: int
    reason: str


def made_mark(made_at: datetime) -> int:
    """The microsecond when a send was created, which distinguishes sends with the same id."""
    return (made_at - _EPOCH) // timedelta(microseconds=1)


def parse(body: bytes, *, base_url: str | None = None) -> list[Event | Malformed]:
    """The events of one post. Raises ValueError when the body is not a JSON array.

    ``base_url`` is the beginning of our own links; without it, their form identifies them.
    """
    try:
        entries = orjson.loads(body)
    except orjson.JSONDecodeError:
        entries = _repaired(body)
    if isinstance(entries, list) and len(entries) > _MAX_EVENTS:
        raise ValueError(f"more than {_MAX_EVENTS:,} events in one post")
    if not isinstance(entries, list):
        raise ValueError("the body is not a JSON array")  # noqa: TRY004 (one error for a bad body)
    return list(_parsed(entries, base_url))


def _repaired(body: bytes) -> Any:  # noqa: ANN401
    """Parse a body with invalid JSON in an event: a lone surrogate, an infinite number.

    The invalid value becomes a question mark or null, so that no event is lost.
    """
    try:
        lenient = json.loads(
            body,
            parse_float=_finite,
            parse_int=lambda text: int(text) if len(text) < 19 else _finite(text),
            parse_constant=lambda _: None,
        )
        return orjson.loads(json.dumps(lenient, ensure_ascii=False).encode(errors="replace"))
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _parsed(entries: list[Any], base_url: str | None) -> Iterator[Event | Malformed]:
    for index, entry in enumerate(entries):
        try:
            yield _event(entry, base_url)
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            yield Malformed(index, f"{type(error).__name__}: {error}")


def _event(entry: Mapping[str, Any], base_url: str | None) -> Event:
    name, timestamp = str(entry["event"]), int(entry["timestamp"])
    kind: EventKind | OwnKind = _kind(name, entry)
    url = _text(entry, "url") if kind is EventKind.CLICK else ""
    if url and _is_own(url, base_url):
        kind = OwnKind.OWN_CLICK
    return Event(
        kind=kind,
        at=datetime.fromtimestamp(timestamp, UTC),
        key=_key(kind, name, timestamp, entry),
        email=_text(entry, "email").strip() or None,
        issue_id=_number(entry.get(ISSUE)),
        send_id=_number(entry.get(SEND)),
        batch=_number(entry.get(BATCH), most=2**31 - 1),
        subscriber_id=_number(entry.get(SUBSCRIBER)),
        reason=(_text(entry, "reason") or _text(entry, "response"))[:300],
        by_machine=_by_machine(entry),
        raw=orjson.dumps(entry).decode(),
        bounce_type=_text(entry, "type").lower(),
        classification=_text(entry, "bounce_classification"),
        status=_text(entry, "status"),
        link=_link(url),
        agent=_text(entry, "useragent"),
        made=_number(entry.get(MADE)),
        notice_id=_number(entry.get(NOTICE)),
    )


def _kind(name: str, entry: Mapping[str, Any]) -> EventKind:
    if name == "bounce" and (_text(entry, "type") or "bounce").lower() != "bounce":
        return EventKind.BLOCKED  # "blocked" or "expired"
    try:
        return EventKind(name)
    except ValueError:
        return EventKind.OTHER


def _key(kind: EventKind | OwnKind, name: str, timestamp: int, entry: Mapping[str, Any]) -> bytes:
    """The key of an event. sg_event_id is not used: it has changed when a post was retried.

    The key covers every field that has an effect, so that two events with the same key have the
    same effect, whichever comes first.
    """
    said: dict[str, Any]
    if kind is EventKind.OTHER:
        # Of unknown kinds, every field may matter.
        said = {**entry, "sg_event_id": None}
    else:
        said = {}
        for field in _DISTINGUISHING_FIELDS:
            if (value := entry.get(field)) is not None:
                plain = type(value) is str and "\0" not in value
                said[field] = value if plain else _text(entry, field)
            elif field in entry:
                said[field] = ""
        said |= {"by_machine": _by_machine(entry), "url_offset": entry.get("url_offset")}
    said |= {"event": name, "timestamp": timestamp, "email": _text(entry, "email").strip().lower()}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()[:16]


#: Fields that identify the message (a late bounce has none), and fields that differ between two
#: events of one kind for one message within a second: attempt, reason, link, browser.
_DISTINGUISHING_FIELDS = (
    *("sg_message_id", "smtp-id", ISSUE, SEND, BATCH, SUBSCRIBER, MADE),
    *("attempt", "type", "status", "bounce_classification", "reason", "response"),
    *("url", "ip", "useragent", "asm_group_id"),
)


def _by_machine(entry: Mapping[str, Any]) -> bool:
    # Missing when false; may be text.
    said = entry.get("sg_machine_open")
    return said is not None and str(said).lower() in {"true", "1"}


def _text(entry: Mapping[str, Any], field: str) -> str:
    """A field as text; PostgreSQL stores no NUL."""
    value = entry.get(field)
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    return text.replace("\0", "") if "\0" in text else text


def _is_own(url: str, base_url: str | None) -> bool:
    """Whether it is one of our own links, which identify the reader.

    A link at another host counts if it ends in what looks like a token: emails that were sent
    before the service moved have its old URL.
    """
    if base_url is None:
        return any(found[2].startswith(("A", "B")) for found in _OWN_LINK.finditer(url))
    # Scheme and host are case-insensitive.
    start, rest = url[: len(base_url)], url[len(base_url) :]
    if start.lower() == base_url.lower() and _OWN_LINK.match(rest):
        return True
    return any(looks_like_token(found[2]) for found in _OWN_LINK.finditer(url))


def _link(url: str) -> str:
    return _OWN_LINK.sub(r"/\1/…", url)[:_MAX_LINK]


def _number(value: object, *, most: int = 10**18 - 1) -> int | None:
    """An id from a custom arg; None for hostile or foreign values."""
    return whole_number(str(value), most=most) if value is not None else None
