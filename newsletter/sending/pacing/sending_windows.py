"""Sending windows and quiet hours in recipients' time zones: parsing, and when they are open.

A wall-clock time becomes a UTC time by RFC 5545, section 3.3.5: a time that the clocks skip
that day is read with the UTC offset before the gap, and of a time that they show twice the
first is used. Moments are aware datetimes in UTC. Hours are half-open: 08:00-18:00 contains
08:00 and does not contain 18:00.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise, product
from zoneinfo import ZoneInfo

from newsletter.errors import SendError

#: The zone where each day begins: a time on every subscriber's own clock comes here first.
FIRST_ZONE = "Pacific/Kiritimati"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EVERY_DAY = frozenset(range(7))
#: Two weeks: hours that a clock change skips on one Sunday exist on the next.
_SEARCHED_DAYS = 14
_DAY = timedelta(days=1)
#: The longest accepted text of days and hours, in characters; the longest useful one has 80.
_MAX_LENGTH = 200
#: Accepted years. Near the years 1 and 9999 a conversion between time zones would overflow.
_YEARS = range(1970, 2200)


@dataclass(frozen=True, slots=True)
class Hours:
    """A range of times of day, in whole minutes; an end before the start is on the next day."""

    start: time
    end: time

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise _hours_error(str(self))

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, slots=True)
class Window:
    """Hours on days of the week (Monday is 0); hours past midnight belong to the first day."""

    days: frozenset[int]
    hours: Hours

    def __post_init__(self) -> None:
        if not self.days or not self.days <= EVERY_DAY:
            raise _window_error(str(self.hours))

    def __str__(self) -> str:
        if self.days == EVERY_DAY:
            return str(self.hours)
        runs = []
        for first in sorted(day for day in self.days if (day - 1) % 7 not in self.days):
            length = next(n for n in range(1, 8) if (first + n) % 7 not in self.days)
            names = [_DAYS[(first + n) % 7][:3] for n in range(length)]
            runs.append(f"{names[0]}-{names[-1]}" if length > 2 else ",".join(names))
        return f"{','.join(runs)} {self.hours}"


def parse_time(text: str, *, place: str) -> time:
    """A time of day from ``07:00``."""
    match = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text.strip()[:_MAX_LENGTH])
    if not match:
        hint = "Write hours and minutes from 00:00 to 23:59, like 07:00."
        raise SendError("not a time of day", place=place, hint=hint)
    return time(int(match[1]), int(match[2]))


def require_year(day: date, *, place: str) -> None:
    """Raise SendError unless the year of the day is accepted."""
    if day.year not in _YEARS:
        hint = f"Choose a day from {_YEARS[0]} to {_YEARS[-1]}."
        raise SendError(f"the year {day.year} is not supported", place=place, hint=hint)


def parse_hours(text: str, *, place: str) -> Hours:
    """Hours from ``08:00-18:00``, or ``22:00-07:00`` over midnight."""
    parts = re.split("[-–]", text[:_MAX_LENGTH])
    times = [parse_time(part, place=place) for part in parts]
    if len(text) > _MAX_LENGTH or len(times) != 2 or times[0] == times[1]:
        raise _hours_error(place)
    return Hours(*times)


def parse_window(text: str, *, place: str) -> Window:
    """A window from ``mon-fri 08:00-18:00``, ``sat,sun 10:00-12:00`` or ``08:00-18:00``."""
    normalized = text.strip().lower()
    # The days end at the first digit.
    begin = next(
        (at for at, sign in enumerate(normalized) if sign in "0123456789"), len(normalized)
    )
    words, times = normalized[:begin], normalized[begin:]
    if not times or len(normalized) > _MAX_LENGTH or (words and not words[-1].isspace()):
        raise _window_error(place)
    days = parse_days(words, place=place) if words else EVERY_DAY
    return Window(days, parse_hours(times, place=place))


def parse_days(text: str, *, place: str) -> frozenset[int]:
    """Days of the week (Monday is 0) from ``mon-fri`` or ``sat,sun``."""
    days: set[int] = set()
    if len(text) > _MAX_LENGTH:
        raise _window_error(place)
    for part in text.split(","):
        ends = [_parse_day(name.strip(), place) for name in re.split("[-–]", part)]
        if len(ends) > 2:
            raise _window_error(place)
        days.update((ends[0] + n) % 7 for n in range((ends[-1] - ends[0]) % 7 + 1))
    return frozenset(days)


def _parse_day(name: str, place: str) -> int:
    """``mon``, ``tues`` or ``wednesday``: three letters or more of an English name."""
    number = next((n for n, full in enumerate(_DAYS) if full.startswith(name)), None)
    if number is None or len(name) < 3:
        raise _window_error(place)
    return number


def _hours_error(place: str) -> SendError:
    hint = "Write two different times of day, like 08:00-18:00, or 22:00-07:00 over midnight."
    return SendError("not a range of hours", place=place, hint=hint)


def _window_error(place: str) -> SendError:
    hint = "Write days and hours, like mon-fri 08:00-18:00 or sat,sun 10:00-12:00."
    return SendError("not a weekly sending window", place=place, hint=hint)


@lru_cache(maxsize=2048)
def find_zone(name: str) -> ZoneInfo | None:
    """The time zone of an IANA name; None if the name is empty or unknown."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; malformed, such as "../x"; a folder
        return None


def first_moment(day: date, clock: time) -> datetime:
    """When this time of that day first comes anywhere on earth."""
    return local_moment(day, clock, ZoneInfo(FIRST_ZONE))


def require_future(start: datetime, now: datetime, *, place: str, is_local: bool) -> None:
    """Raise SendError if a send would start in the past.

    ``is_local`` says that the start is a time on every subscriber's own clock.
    """
    if start >= now:
        return
    hint = (
        "On that day this time has already come somewhere. Choose a later day, or send now: "
        "all recipients get it when the time next comes."
        if is_local
        else "Choose a later time, or send now."
    )
    raise SendError("this time is past", place=place, hint=hint)


def local_moment(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The moment at which the clocks of ``zone`` show ``at`` on ``day`` (RFC 5545, 3.3.5)."""
    # Python's fold=0 is the rule of RFC 5545, for gaps and for repeated hours (PEP 495).
    return datetime.combine(day, at.replace(fold=0), zone).astimezone(UTC)


def parse_moment(text: str, zone: ZoneInfo, *, place: str) -> datetime:
    """A day and a time like ``2026-12-01T07:00``, in ``zone`` unless it names an offset.

    Raises SendError, naming ``place``, for any other text.
    """
    try:
        moment = datetime.fromisoformat(text)
        require_year(moment, place=place)
    except ValueError:
        hint = "Write it like 2026-12-01T07:00 or 2026-12-01T07:00+01:00."
        raise SendError("not a time", place=place, hint=hint) from None
    if moment.tzinfo is None:
        return local_moment(moment.date(), moment.time(), zone)
    return moment.astimezone(UTC)


def clock_note(text: str, zone: ZoneInfo) -> str:
    """A sentence about a time that a clock change skips or repeats; empty for any other text."""
    try:
        wall = datetime.fromisoformat(text)
    except ValueError:
        return ""
    if wall.tzinfo is not None:
        return ""
    moment = local_moment(wall.date(), wall.time(), zone)
    chosen = written(moment, zone)
    if moment.astimezone(zone).replace(tzinfo=None, fold=0) != wall.replace(fold=0):
        return f"The clocks of {zone.key} skip {wall:%H:%M} on that day: {chosen} is used."
    first, second = (wall.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    if first != second:
        return f"The clocks of {zone.key} show {wall:%H:%M} twice: the first, {chosen}, is used."
    return ""


def written(moment: datetime, zone: ZoneInfo) -> str:
    """A moment in the local time of a zone, with its UTC offset."""
    return moment.astimezone(zone).isoformat(" ", timespec="seconds")


def next_open(
    moment: datetime, zone: ZoneInfo, *, quiet: Hours | None, windows: Sequence[Window]
) -> datetime:
    """The first moment from ``moment`` on outside quiet hours and, if there are any, in a window.

    Local time decides. Hours that begin or end in a gap of the clocks follow RFC 5545: quiet
    until 02:30 means until 03:30 on a day without 02:30.
    Raises SendError when nothing is open within 14 days.
    """
    if quiet is None and not windows:
        return moment
    today = moment.astimezone(zone).date()
    for ahead in range(-1, _SEARCHED_DAYS + 1):
        for begin, end in _openings(today + ahead * _DAY, zone, quiet, tuple(windows)):
            if moment < end:
                return max(moment, begin)
    place = ", ".join([*([f"quiet {quiet}"] if quiet else []), *map(str, windows)])
    hint = "Make the quiet hours shorter or the windows wider."
    raise SendError("these hours leave no time for sending", place=place, hint=hint)


@lru_cache(maxsize=8192)
def _openings(
    day: date, zone: ZoneInfo, quiet: Hours | None, windows: tuple[Window, ...]
) -> tuple[tuple[datetime, datetime], ...]:
    """The open intervals of a local day, in order; adjacent ones may touch."""
    begin, end = (local_moment(d, time.min, zone) for d in (day, day + _DAY))
    closed = Window(EVERY_DAY, quiet) if quiet else None
    hours = [window.hours for window in windows] + ([quiet] if quiet else [])
    times = {at for each in hours for at in (each.start, each.end)}
    # Openness changes only at these times, each in both readings of a repeated hour, and when
    # the clocks change.
    marks = {clock_change(begin, end, zone)} | {
        datetime.combine(each, at.replace(fold=fold), zone).astimezone(UTC)
        for each, at, fold in product((day - _DAY, day), times, (0, 1))
    }
    inner = sorted(mark for mark in marks if begin < mark < end)
    return tuple(
        (since, until)
        for since, until in pairwise([begin, *inner, end])
        if not (closed and any(_within(closed, since, zone)))
        and (not windows or any(all(_within(window, since, zone)) for window in windows))
    )


def clock_change(begin: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """When the UTC offset changes between two moments, to the second; ``end`` if it does not."""

    def changed(second: int) -> bool:
        moment = begin + timedelta(seconds=second)
        return moment.astimezone(zone).utcoffset() != begin.astimezone(zone).utcoffset()

    seconds = range(int((end - begin).total_seconds()))
    return begin + timedelta(seconds=bisect_left(seconds, 1, key=changed))


def _within(window: Window, moment: datetime, zone: ZoneInfo) -> tuple[bool, bool]:
    """Whether the local time is in the window; whether the moment is between its start and end."""
    wall = moment.astimezone(zone).replace(tzinfo=None)
    shown = reached = False
    start, end = window.hours.start, window.hours.end
    for day in (wall.date() - _DAY, wall.date()):
        if day.weekday() in window.days:
            last = day + _DAY if end < start else day
            shown |= datetime.combine(day, start) <= wall < datetime.combine(last, end)
            reached |= local_moment(day, start, zone) <= moment < local_moment(last, end, zone)
    return shown, reached
