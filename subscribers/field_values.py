"""Parses the text of one field of a subscriber: name, language, time zone, JSON.

Imports, the console and the sign-up form share these. InvalidValueError says why a value cannot
be used; its message is the reason in an import's reject file.
"""

import re
from functools import lru_cache
from typing import Any, Final
from zoneinfo import available_timezones

import orjson

#: The shape of a BCP 47 language tag.
LANGUAGE_TAG: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", re.ASCII)
MAX_LANGUAGE: Final = 35
#: Characters that no name, topic or header may have: controls and halves of surrogate pairs.
CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: NUL in JSON: \u0000 that is not preceded by another backslash.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_NAME_LENGTH = 200


class InvalidValueError(Exception):
    """A value cannot be used; the message says why."""


def checked_name(name: str) -> str:
    """The name. Control characters are refused, since they could inject email headers."""
    if len(name) > _NAME_LENGTH:
        raise InvalidValueError(f"the name is longer than {_NAME_LENGTH} characters")
    # isprintable() is a quick first check; it refuses more than control characters.
    if not name.isprintable() and CONTROL.search(name):
        raise InvalidValueError("the name has control characters, such as a line break or a tab")
    return name


def language(text: str) -> str | None:
    """A BCP 47 tag; None for an empty text."""
    text = text.strip().replace("_", "-")
    if not text:
        return None
    if len(text) > MAX_LANGUAGE or not LANGUAGE_TAG.fullmatch(text):
        raise InvalidValueError(f"“{shortened(text)}” is not a language tag like en or de-AT")
    return text


def timezone(text: str) -> str | None:
    """An IANA time zone name; None for an empty text."""
    text = text.strip()
    if not text:
        return None
    if not is_timezone(text):
        raise InvalidValueError(f"“{shortened(text)}” is not a time zone like Europe/Berlin")
    return text


def is_timezone(name: str) -> bool:
    """Whether this is the IANA name of a time zone."""
    return name in _timezones()


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    # Cached, since listing them reads a folder.
    return frozenset(available_timezones())


def json_value(text: str, what: str) -> Any:  # noqa: ANN401 (JSON may be anything)
    """The value of a JSON text; ``what`` names it in errors."""
    if "\\u0000" in text and _NUL.search(text):
        raise InvalidValueError("the JSON has a NUL character")  # PostgreSQL stores none
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidValueError(f"not {what} in JSON: {error}") from None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object; empty for an empty text."""
    value = json_value(text, "an object") if text.strip() else {}
    if not isinstance(value, dict):
        raise InvalidValueError("not a JSON object")
    return value


def shortened(text: str) -> str:
    """The text, shortened and made printable for an error message."""
    shown = "".join(c if c.isprintable() else "�" for c in text[:40])
    return f"{shown}…" if len(text) > 40 else shown
