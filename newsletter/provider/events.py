"""SendGrid's v3 events in our words. Pure: a post's bytes in, events out.

Unknown kinds and fields are kept; a malformed event does not lose its neighbours.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson

#: Our custom args, as they go out with a request and come back flattened into each event.
ISSUE, SEND, BATCH, SUBSCRIBER = "nl_issue", "nl_send", "nl_batch", "nl_subscriber"


class Kind(StrEnum):
    """What happened. A block arrives from SendGrid as a bounce; here it is told apart."""

    PROCESSED = "processed"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    #: The mailbox refused for good.
    BOUNCE = "bounce"
    #: The server refused this mail: reputation, content, a full mailbox.
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


@dataclass(frozen=True, slots=True)
class Event:
    """One happening. Ids are None where the event does not carry our custom args."""

    kind: Kind
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


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry of a post that is no event."""

    index: int
    reason: str


def parse(body: bytes) -> list[Event | Malformed]:
    """The events of one post. Raises ValueError when the body is no JSON array."""
    entries = orjson.loads(body)
    if not isinstance(entries, list):
        raise ValueError("the body is not a JSON array")  # noqa: TRY004 (one error for a bad body)
    return list(_parsed(entries))


def _parsed(entries: list[Any]) -> Iterator[Event | Malformed]:
    for index, entry in enumerate(entries):
        try:
            yield _event(entry)
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            yield Malformed(index, f"{type(error).__name__}: {error}")


def _event(entry: Mapping[str, Any]) -> Event:
    name, timestamp = str(entry["event"]), int(entry["timestamp"])
    email = entry.get("email")
    return Event(
        kind=_kind(name, entry),
        at=datetime.fromtimestamp(timestamp, UTC),
        key=_key(name, timestamp, entry),
        email=str(email) if email else None,
        issue_id=_number(entry.get(ISSUE)),
        send_id=_number(entry.get(SEND)),
        batch=_number(entry.get(BATCH)),
        subscriber_id=_number(entry.get(SUBSCRIBER)),
        # PostgreSQL stores no NUL in text.
        reason=str(entry.get("reason") or entry.get("response") or "").replace("\0", "")[:300],
        by_machine=bool(entry.get("sg_machine_open")),
        raw=orjson.dumps(entry).decode(),
    )


def _kind(name: str, entry: Mapping[str, Any]) -> Kind:
    if name == "bounce" and str(entry.get("type", "bounce")).lower() != "bounce":
        return Kind.BLOCKED  # "blocked", and "expired" as one peer has seen it
    try:
        return Kind(name)
    except ValueError:
        return Kind.OTHER


def _key(name: str, timestamp: int, entry: Mapping[str, Any]) -> bytes:
    """What identifies the happening: sg_event_id was seen to change when a post was retried."""
    parts = (
        name,
        str(timestamp),
        str(entry.get("sg_message_id", "")),
        str(entry.get("email", "")).lower(),
        str(entry.get("url", "")),
    )
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:16]


def _number(value: object) -> int | None:
    """An id from a custom arg; hostile or foreign values are no id."""
    text = str(value) if value is not None else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
