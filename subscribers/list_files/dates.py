"""Parses dates and times of other products' exports, without guessing day and month row by row.

The meaning of ``3/4/2023`` follows from the whole column, if another date in it has a number over
12; otherwise the operator says it.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

#: The two orders of dates with slashes.
DAY_FIRST, MONTH_FIRST = "dmy", "mdy"
ORDERS = (DAY_FIRST, MONTH_FIRST)

#: Like Rails' ``2023-03-24 10:23:10 UTC`` and Go's ``2024-01-02 15:04:05.12 +0100 CET``, or with /.
_LIKE_ISO = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[ T](\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?)?)?"
    r"\s*([AaPp]\.?[Mm]\.?)?\s*(?:(UTC|GMT|Z)|([+-]\d\d:?\d\d)(?: (?:[A-Z]{2,5}|[+-]\d{4}))?)?"
)
_NUMBERS = re.compile(
    r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:,?[ T]+(\d{1,2}:\d\d(?::\d\d)?))?"
    r"\s*([AaPp]\.?[Mm]\.?)?\s*(UTC|GMT|Z|[+-]\d\d:?\d\d)?"
)
_MONTHS = {
    name: number
    for number, names in enumerate(
        "jan january|feb february|mar march|apr april|may|jun june|jul july|aug august|"
        "sep sept september|oct october|nov november|dec december".split("|"),
        start=1,
    )
    for name in names.split()
}
_WORDS = re.compile(
    r"(?:[A-Za-z]{3,9},? )?(?:(\d{1,2})(?:st|nd|rd|th)? ([A-Za-z]{3,9})\.?|([A-Za-z]{3,9})\.? "
    r"(\d{1,2})(?:st|nd|rd|th)?),? (\d{4})(?:,?(?: at)? (\d{1,2}:\d\d(?::\d\d)?))?"
    r"\s*([AaPp]\.?[Mm]\.?)?\s*(UTC|GMT|Z|[+-]\d\d:?\d\d)?"
)
_EPOCH = re.compile(r"\d{9,10}(?:\.\d{1,6})?|\d{13}")
_LONGEST = 60


class UnreadableDateError(ValueError):
    """Not a date and time; ``is_unclear`` if only the order of day and month is ambiguous."""

    def __init__(self, *, is_unclear: bool = False) -> None:
        super().__init__("unclear" if is_unclear else "not a date")
        self.is_unclear = is_unclear


def parse_moment(text: str, order: str | None = None) -> datetime:
    """The time in UTC (a text without an offset is read as UTC); raises UnreadableDateError.

    Accepts ISO 8601 and similar, ``24.03.2023``, ``Mar 24, 2023 10:23 am``, RFC 5322, seconds and
    milliseconds since 1970, and ``3/24/2023`` in the given order.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        raise UnreadableDateError
    try:
        value = _parsed(text, order)
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except UnreadableDateError:
        raise
    except (ValueError, OverflowError, OSError, TypeError, IndexError):
        raise UnreadableDateError from None


def is_date(text: str) -> bool:
    """Whether this is a date, even if day and month are ambiguous."""
    try:
        parse_moment(text, DAY_FIRST)
    except UnreadableDateError:
        try:
            parse_moment(text, MONTH_FIRST)
        except UnreadableDateError:
            return False
    return True


def _parsed(text: str, order: str | None) -> datetime:
    if text[4:5] == "-":  # nearly all
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    if _EPOCH.fullmatch(text):
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if len(text) == 13 else number, UTC)
    if text.isdecimal() and len(text) != 8:
        raise UnreadableDateError  # 2023 is a year or a number, not a date
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    if found := _LIKE_ISO.fullmatch(text):
        year, month, day, clock, half, utc, offset = found.groups()
        return _joined((int(year), int(month), int(day)), clock, half, utc or offset)
    if found := _NUMBERS.fullmatch(text):
        one, mark, two, year, *rest = found.groups()
        if mark != "." and order is None:
            raise UnreadableDateError(is_unclear=True)
        # With full stops, the day is always first.
        month, day = (one, two) if mark != "." and order == MONTH_FIRST else (two, one)
        return _joined((int(year), int(month), int(day)), *rest)
    return _in_words(text)


def _in_words(text: str) -> datetime:
    if found := _WORDS.fullmatch(text):
        day, name, other, second, year, *rest = found.groups()
        month = _MONTHS.get((name or other).lower(), 0)
        return _joined((int(year), month, int(day or second)), *rest)
    if "," in text and len(text) > 20:
        return parsedate_to_datetime(text)
    raise UnreadableDateError


def _joined(
    day: tuple[int, int, int], clock: str | None, half: str | None, zone: str | None
) -> datetime:
    hour, minute, second, micro = 0, 0, 0, 0
    if clock:
        parts = clock.replace(",", ".").split(":")
        hour, minute = int(parts[0]), int(parts[1])
        if len(parts) == 3:
            whole, _, fraction = parts[2].partition(".")
            second, micro = int(whole), int((fraction + "000000")[:6])
    if half:
        if not (clock and 1 <= hour <= 12):
            raise UnreadableDateError
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    return datetime(*day, hour, minute, second, micro, tzinfo=_offset(zone))


def _offset(zone: str | None) -> timezone | None:
    if not zone:
        return None
    if zone[0] not in "+-":
        return UTC
    digits = zone[1:].replace(":", "")
    delta = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(delta if zone[0] == "+" else -delta)


@dataclass
class ColumnOrder:
    """Finds the order of day and month from all dates of a column."""

    #: The first line that is valid only in each order, with its text.
    day_first: tuple[int, str] | None = None
    month_first: tuple[int, str] | None = None
    #: The first line that is valid in both.
    unclear: tuple[int, str] | None = None

    def see(self, text: str, line: int) -> None:
        """Take a cell into account."""
        found = _NUMBERS.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        if not found or found[2] == ".":
            return
        one, two = int(found[1]), int(found[3])
        if one > 12 >= two:
            self.day_first = self.day_first or (line, text)
        elif two > 12 >= one:
            self.month_first = self.month_first or (line, text)
        elif one != two:
            self.unclear = self.unclear or (line, text)

    @property
    def order(self) -> str | None:
        """The one order that fits all dates; None if none or both do."""
        if self.day_first and self.month_first:
            return None
        if self.day_first or self.month_first:
            return DAY_FIRST if self.day_first else MONTH_FIRST
        return None if self.unclear else DAY_FIRST
