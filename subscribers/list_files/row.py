"""One person as a file tells of them, and how the texts of a file become values.

Every reader of a file yields ``Row`` and ``Reject``, nothing else. ``UnfitError`` is
how a value says that its row cannot be taken; it never leaves the readers.
"""

import csv
import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import available_timezones

import orjson

from subscribers.list_files.dates import UnreadableDateError, parse_moment
from subscribers.list_files.status_words import SUBSCRIBED, UNCONFIRMED, is_nothing, state_of

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", re.ASCII)
#: NUL in JSON, and not a backslash that is followed by “u0000”.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SLUG_LENGTH = 64
_NAME_LENGTH = 200


class UnfitError(Exception):
    """A row that cannot be taken; the message is the reason in the reject file."""


class ConsentGiven(NamedTuple):
    """An act of opting in or out, as our own export tells it."""

    at: datetime
    act: str
    source: str
    wording: str
    ip: str | None
    user_agent: str | None


class Kept(NamedTuple):
    """What only our own export knows of a person."""

    paused_until: datetime | None
    last_open_at: datetime | None
    last_click_at: datetime | None
    evidence: str
    consents: tuple[ConsentGiven, ...]


class Row(NamedTuple):
    """A person in a file. ``status`` is SUBSCRIBED, UNCONFIRMED or one of LEAVING."""

    line: int
    email: str
    name: str
    attributes: dict[str, Any]
    language: str | None = None
    timezone: str | None = None
    #: Topics by slug; those that there are not yet are made.
    topics: tuple[str, ...] = ()
    #: Labels of another system; they choose a topic only where there is one of that slug.
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    confirmed_at: datetime | None = None
    status: str = SUBSCRIBED
    status_at: datetime | None = None
    source: str = ""
    #: From where the person opted in.
    ip: str | None = None
    kept: Kept | None = None


class RejectedRow(NamedTuple):
    """Lines of a file that are no person, as they stand there."""

    line: int
    reason: str
    text: str


def checked_name(name: str) -> str:
    """The name; it goes into mail headers, where control characters begin new ones."""
    if len(name) > _NAME_LENGTH:
        raise UnfitError(f"the name is longer than {_NAME_LENGTH} characters")
    # isprintable() is quick, and refuses more than control characters.
    if not name.isprintable() and _CONTROL.search(name):
        raise UnfitError("the name has control characters, such as a line break or a tab")
    return name


def moment(text: str, order: str | None = None) -> datetime | None:
    """A date and time in UTC; without an offset it is taken for UTC. Empty is None.

    ``order`` says which of two numbers is the day in dates with slashes: see dates.py.
    """
    if not text:
        return None
    try:
        return parse_moment(text, order)
    except UnreadableDateError as error:
        if is_nothing(text):
            return None
        if error.is_unclear:
            raise UnfitError(f"“{_short(text)}” may be two dates: day or month first?") from None
        raise UnfitError(
            f"“{_short(text)}” is not a date and time like 2026-03-28 07:00:00"
        ) from None


def language(text: str) -> str | None:
    """A BCP 47 tag."""
    text = text.strip().replace("_", "-")
    if not text:
        return None
    if len(text) > 35 or not _LANGUAGE.fullmatch(text):
        raise UnfitError(f"“{_short(text)}” is not a language tag like en or de-AT")
    return text


def timezone(text: str) -> str | None:
    """An IANA name."""
    text = text.strip()
    if not text:
        return None
    if text not in _timezones():
        raise UnfitError(f"“{_short(text)}” is not a time zone like Europe/Berlin")
    return text


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def status(text: str) -> str:
    """The state of a person; an unknown word is refused, since it may mean that they left."""
    if not text.strip():
        return UNCONFIRMED
    state = state_of(text)
    if state is None:
        raise UnfitError(f"the status “{_short(text)}” is not known")
    return state


def listed(text: str) -> tuple[str, ...]:
    """Words separated by ``,``, ``;`` or ``|``, in quotes or not, or a JSON list of texts."""
    text = text.strip()
    if text.startswith("["):
        return texts(json_value(text, "a list"))
    if '"' in text:
        try:
            parts = next(csv.reader([text], skipinitialspace=True, strict=True), [])
        except csv.Error:
            raise UnfitError(f"“{_short(text)}” is not a list") from None
    else:
        parts = re.split(r"[,;|]", text)
    return _slugs(part.strip() for part in parts)


def texts(value: object) -> tuple[str, ...]:
    """A JSON list of texts, or one text with separators."""
    if isinstance(value, str):
        return listed(value)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise UnfitError("topics and tags are a list of texts")
    return _slugs(value)


def _slugs(parts: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part for part in parts if part))
    for part in chosen:
        if len(part) > _SLUG_LENGTH or _CONTROL.search(part):
            raise UnfitError(f"“{_short(part)}” cannot be a topic: 64 characters at most")
    return chosen


def json_value(text: str, what: str) -> Any:  # noqa: ANN401 (JSON may be anything)
    """What the JSON text says."""
    if "\\u0000" in text and _NUL.search(text):
        raise UnfitError("a NUL character")  # PostgreSQL stores none
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UnfitError(f"not {what} in JSON: {error}") from None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object; an empty text is an empty one."""
    value = json_value(text, "an object") if text.strip() else {}
    if not isinstance(value, dict):
        raise UnfitError("not a JSON object")
    return value


def _short(text: str) -> str:
    shown = "".join(c if c.isprintable() else "�" for c in text[:40])
    return f"{shown}…" if len(text) > 40 else shown
