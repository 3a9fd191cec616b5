"""SendGrid's v3 events in our words. Pure: a post's bytes in, events out.

Unknown kinds and fields are kept; a malformed event does not lose its neighbours.
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

#: Our custom args, as they go out with a request and come back flattened into each event.
ISSUE, SEND, BATCH, SUBSCRIBER = "nl_issue", "nl_send", "nl_batch", "nl_subscriber"
#: When the send was made (``made_mark``): another installation, or a database restored from a
#: backup, gives the same numbers to other sends.
MADE = "nl_made"
#: Which single email of the outbox it was.
NOTICE = "nl_notice"

#: Where our own links lead: those of every issue, and those of single emails.
OWN_PATHS = (*LINKS.values(), "confirm", "request", "console/password")
#: Our own links end in a token that names the reader: figures of links must not.
_OWN_LINK = re.compile(rf"/({'|'.join(map(re.escape, OWN_PATHS))})/([^/?#]+)")
#: Links that agree so far are counted as one.
_MAX_LINK = 500
_MAX_DOMAIN = 255
#: Events of a post. SendGrid posts up to 768 KB, which holds some thousands of them.
_MAX_EVENTS = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventKind(StrEnum):
    """What happened. A block arrives from SendGrid as a bounce; here it is told apart."""

    PROCESSED = "processed"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    #: The mail came back, and SendGrid sends no more there.
    BOUNCE = "bounce"
    #: The server refused this mail or could not be reached; SendGrid will try the next one.
    BLOCKED = "blocked"
    #: SendGrid did not try.
    DROPPED = "dropped"
    OPEN = "open"
    CLICK = "click"
    SPAM_REPORT = "spamreport"
    UNSUBSCRIBE = "unsubscribe"
    GROUP_UNSUBSCRIBE = "group_unsubscribe"
    GROUP_RESUBSCRIBE = "group_resubscribe"
    #: A kind that this version does not know.
    OTHER = "other"


class OwnKind(StrEnum):
    """What no provider posts under this name: we tell it apart."""

    #: A click on a link to leave, to choose, to read on the web, or to confirm. It says nothing
    #: of what is in the issue, so it is counted apart.
    OWN_CLICK = "own_click"


@dataclass(frozen=True, slots=True)
class Event:
    """One happening. Ids are None where the event does not carry our custom args."""

    kind: EventKind | OwnKind
    at: datetime
    #: 16 bytes that any repeat of the same happening shares.
    key: bytes
    email: str | None
    issue_id: int | None
    send_id: int | None
    batch: int | None
    subscriber_id: int | None
    #: The receiving server's or SendGrid's words.
    reason: str
    #: Apple's proxy and its like opened it, not a person.
    by_machine: bool
    raw: str
    #: Of a bounce, in SendGrid's words: ``bounce``, ``blocked`` or ``expired``; the class that it
    #: puts the reason in; the server's enhanced status (RFC 3463).
    bounce_type: str = ""
    classification: str = ""
    status: str = ""
    #: Of a click, also of one on our own links: where to, without what names the reader.
    link: str = ""
    #: Of an open or a click: the User-Agent header.
    agent: str = ""
    #: Which send of this number it speaks of; mails from before there was such a mark have none.
    made: int | None = None
    #: Number of the single email that it speaks of.
    notice_id: int | None = None
    #: From our own page, behind a signed link: whose it is needs no proof.
    first_hand: bool = False

    @property
    def domain(self) -> str:
        """The mail domain, in lower case; empty when the event names no address."""
        return (self.email or "").rpartition("@")[2].lower()[:_MAX_DOMAIN]


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry of a post that is no event."""

    index: int
    reason: str


def made_mark(made_at: datetime) -> int:
    """What tells a send from others of its number: the microsecond when it was made."""
    return (made_at - _EPOCH) // timedelta(microseconds=1)


def parse(body: bytes, *, base_url: str | None = None) -> list[Event | Malformed]:
    """The events of one post. Raises ValueError when the body is no JSON array.

    ``base_url`` is where our own links lead; without it they are known by their form alone.
    """
    try:
        entries = orjson.loads(body)
    except orjson.JSONDecodeError:
        entries = _mended(body)
    if isinstance(entries, list) and len(entries) > _MAX_EVENTS:
        raise ValueError(f"more than {_MAX_EVENTS:,} events in one post")
    if not isinstance(entries, list):
        raise ValueError("the body is not a JSON array")  # noqa: TRY004 (one error for a bad body)
    return list(_parsed(entries, base_url))


def _mended(body: bytes) -> Any:  # noqa: ANN401
    """A body in which one event holds what is no JSON: half a character, a number without end.

    It must not lose its neighbours, so it gets a question mark, or null, and stays.
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
        return EventKind.BLOCKED  # "blocked", and "expired" as one peer has seen it
    try:
        return EventKind(name)
    except ValueError:
        return EventKind.OTHER


def _key(kind: EventKind | OwnKind, name: str, timestamp: int, entry: Mapping[str, Any]) -> bytes:
    """What identifies the happening, for sg_event_id was seen to change when a post was retried.

    Whatever decides anything is in it, so that two events of one key have one effect and it
    does not matter which of them came first.
    """
    said: dict[str, Any]
    if kind is EventKind.OTHER:
        # Nobody knows what tells these apart, so everything does.
        said = {**entry, "sg_event_id": None}
    else:
        said = {}
        for field in _TELLS_APART:
            if (value := entry.get(field)) is not None:
                plain = type(value) is str and "\0" not in value
                said[field] = value if plain else _text(entry, field)
            elif field in entry:
                said[field] = ""
        said |= {"by_machine": _by_machine(entry), "url_offset": entry.get("url_offset")}
    said |= {"event": name, "timestamp": timestamp, "email": _text(entry, "email").strip().lower()}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()[:16]


#: The message (a late bounce names none), and what differs between two happenings of one kind
#: to one message within a second: the attempt, the reason, the link, the browser.
_TELLS_APART = (
    *("sg_message_id", "smtp-id", ISSUE, SEND, BATCH, SUBSCRIBER, MADE),
    *("attempt", "type", "status", "bounce_classification", "reason", "response"),
    *("url", "ip", "useragent", "asm_group_id"),
)


def _by_machine(entry: Mapping[str, Any]) -> bool:
    # Left out when false; some write it as a text.
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
    """Whether the link is one of ours, which names the reader.

    At another address it has to end in what looks like a token: emails that were sent before
    the service moved carry its old address.
    """
    if base_url is None:
        return any(found[2].startswith(("A", "B")) for found in _OWN_LINK.finditer(url))
    # A browser tells neither scheme nor host by its letters' case.
    start, rest = url[: len(base_url)], url[len(base_url) :]
    if start.lower() == base_url.lower() and _OWN_LINK.match(rest):
        return True
    return any(looks_like_token(found[2]) for found in _OWN_LINK.finditer(url))


def _link(url: str) -> str:
    return _OWN_LINK.sub(r"/\1/…", url)[:_MAX_LINK]


def _number(value: object, *, most: int = 10**18 - 1) -> int | None:
    """An id from a custom arg; hostile or foreign values are no id."""
    return whole_number(str(value), most=most) if value is not None else None
