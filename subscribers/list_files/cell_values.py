"""Parses the cells of a list file: dates, statuses, and lists of topics and tags.

InvalidValueError says why a row cannot be imported; its message is the reason in the reject file.
"""

import csv
import re
from collections.abc import Iterable
from datetime import datetime

from subscribers.field_values import CONTROL, InvalidValueError, json_value, shortened
from subscribers.list_files.dates import UnreadableDateError, parse_moment
from subscribers.list_files.status_words import UNCONFIRMED, is_nothing, state_of

_SLUG_LENGTH = 64


def moment(text: str, order: str | None = None) -> datetime | None:
    """A date and time in UTC; a text without an offset is read as UTC. Empty is None.

    ``order`` says which number is the day in dates with slashes: see dates.py.
    """
    if not text:
        return None
    try:
        return parse_moment(text, order)
    except UnreadableDateError as error:
        if is_nothing(text):
            return None
        if error.is_unclear:
            raise InvalidValueError(
                f"“{shortened(text)}” is ambiguous: is the day or the month first?"
            ) from None
        raise InvalidValueError(
            f"“{shortened(text)}” is not a date and time like 2026-03-28 07:00:00"
        ) from None


def status(text: str) -> str:
    """A subscriber status. Unknown words are refused, since they may mean unsubscribed."""
    if not text.strip():
        return UNCONFIRMED
    state = state_of(text)
    if state is None:
        raise InvalidValueError(f"the status “{shortened(text)}” is unknown")
    return state


def listed(text: str) -> tuple[str, ...]:
    """Words separated by ``,``, ``;`` or ``|``, quoted or not, or a JSON list of strings."""
    text = text.strip()
    if text.startswith("["):
        return texts(json_value(text, "a list"))
    if '"' in text:
        try:
            parts = next(csv.reader([text], skipinitialspace=True, strict=True), [])
        except csv.Error:
            raise InvalidValueError(f"“{shortened(text)}” is not a list") from None
    else:
        parts = re.split(r"[,;|]", text)
    return _slugs(part.strip() for part in parts)


def texts(value: object) -> tuple[str, ...]:
    """A JSON list of strings, or one string with separators."""
    if isinstance(value, str):
        return listed(value)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise InvalidValueError("topics and tags must be a list of strings")
    return _slugs(value)


def _slugs(parts: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part for part in parts if part))
    for part in chosen:
        if len(part) > _SLUG_LENGTH:
            raise InvalidValueError(f"the topic “{shortened(part)}” is longer than 64 characters")
        if CONTROL.search(part):
            raise InvalidValueError(f"the topic “{shortened(part)}” has control characters")
    return chosen
