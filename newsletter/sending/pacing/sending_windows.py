"""Hours of the day in people's own zones: what operators write, and when such hours are.

A wall-clock time of a day becomes a moment by RFC 5545, section 3.3.5: a time that the
clocks skip that day is read with the UTC offset before the gap, and a time that they
show twice is the first of both. Moments are aware datetimes in UTC; hours are half-open,
so 08:00-18:00 contains 08:00 and does not contain 18:00.
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
#: Two weeks: hours that a change of the clocks swallows on one Sunday exist on the next.
_SEARCHED_DAYS = 14
_DAY = timedelta(days=1)
#: Characters of days and hours that are read; the longest sensible text has some 80.
_LONGEST = 200
#: Near the ends of the calendar a time on one clock is none on another, and no page shows it.
_YEARS = range(1970, 2200)


@dataclass(frozen=True, slots=True)
class Hours:
    """From a time of day to another, in whole minutes; an end before the start is the next day."""

    start: time
    end: time

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise _no_hours(str(self))

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, slots=True)
class Window:
    """Hours on some days of the week (Monday is 0); past midnight they belong to the first day."""

    days: frozenset[int]
    hours: Hours

    def __post_init__(self) -> None:
        if not self.days or not self.days <= EVERY_DAY:
            raise _no_days(str(self.hours))

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
    match = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text.strip()[:_LONGEST])
    if not match:
        hint = "Write hours and minutes from 00:00 to 23:59, like 07:00."
        raise SendError("that is no time of day", place=place, hint=hint)
    return time(int(match[1]), int(match[2]))


def require_year(day: date, *, place: str) -> None:
    """SendError unless the day is of a year in which something can be due."""
    if day.year not in _YEARS:
        hint = f"Choose a day from {_YEARS[0]} to {_YEARS[-1]}."
        raise SendError(f"nothing can be due in the year {day.year}", place=place, hint=hint)


def parse_hours(text: str, *, place: str) -> Hours:
    """Hours from ``08:00-18:00``, or ``22:00-07:00`` over midnight."""
    parts = re.split("[-–]", text[:_LONGEST])
    times = [parse_time(part, place=place) for part in parts]
    if len(text) > _LONGEST or len(times) != 2 or times[0] == times[1]:
        raise _no_hours(place)
    return Hours(*times)


def parse_window(text: str, *, place: str) -> Window:
    """A window from ``mon-fri 08:00-18:00``, ``sat,sun 10:00-12:00`` or ``08:00-18:00``."""
    tidy = text.strip().lower()
    # The days end where the first digit stands.
    begin = next((at for at, sign in enumerate(tidy) if sign in "0123456789"), len(tidy))
    words, times = tidy[:begin], tidy[begin:]
    if not times or len(tidy) > _LONGEST or (words and not words[-1].isspace()):
        raise _no_days(place)
    days = parse_days(words, place=place) if words else EVERY_DAY
    return Window(days, parse_hours(times, place=place))


def parse_days(text: str, *, place: str) -> frozenset[int]:
    """Days of the week (Monday is 0) from ``mon-fri`` or ``sat,sun``."""
    days: set[int] = set()
    if len(text) > _LONGEST:
        raise _no_days(place)
    for part in text.split(","):
        ends = [_parse_day(name.strip(), place) for name in re.split("[-–]", part)]
        if len(ends) > 2:
            raise _no_days(place)
        days.update((ends[0] + n) % 7 for n in range((ends[-1] - ends[0]) % 7 + 1))
    return frozenset(days)


def _parse_day(name: str, place: str) -> int:
    """``mon``, ``tues`` or ``wednesday``: three letters or more of an English name."""
    number = next((n for n, full in enumerate(_DAYS) if full.startswith(name)), None)
    if number is None or len(name) < 3:
        raise _no_days(place)
    return number


def _no_hours(place: str) -> SendError:
    hint = "Write two different times of day, like 08:00-18:00, or 22:00-07:00 over midnight."
    return SendError("these are no hours of a day", place=place, hint=hint)


def _no_days(place: str) -> SendError:
    hint = "Write days and hours, like mon-fri 08:00-18:00 or sat,sun 10:00-12:00."
    return SendError("that is no window of the week", place=place, hint=hint)


@lru_cache(maxsize=2048)
def find_zone(name: str) -> ZoneInfo | None:
    """The zone of an IANA name; None where the name is empty or unknown."""
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
    # Python's fold=0 is that very rule, for gaps as for repeated hours (PEP 495).
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
    """What a change of the clocks does to a time without an offset; nothing, mostly."""
    try:
        wanted = datetime.fromisoformat(text)
    except ValueError:
        return ""
    if wanted.tzinfo is not None:
        return ""
    moment = local_moment(wanted.date(), wanted.time(), zone)
    taken = written(moment, zone)
    if moment.astimezone(zone).replace(tzinfo=None, fold=0) != wanted.replace(fold=0):
        return f"The clocks of {zone.key} skip {wanted:%H:%M} on that day: it is {taken}."
    first, second = (wanted.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    if first != second:
        return f"The clocks of {zone.key} show {wanted:%H:%M} twice: it is the first, {taken}."
    return ""


def written(moment: datetime, zone: ZoneInfo) -> str:
    """A moment as the clocks of a zone show it, with their offset from UTC."""
    return moment.astimezone(zone).isoformat(" ", timespec="seconds")


def next_open(
    moment: datetime, zone: ZoneInfo, *, quiet: Hours | None, windows: Sequence[Window]
) -> datetime:
    """The first moment from ``moment`` on that is not quiet and, if there are windows, in one.

    What the clock shows decides. Besides, hours that begin or end within a gap do so by
    RFC 5545: quiet until 02:30 is quiet until 03:30 on the day that has no 02:30.
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
    raise SendError("these hours leave no time to send", place=place, hint=hint)


@lru_cache(maxsize=8192)
def _openings(
    day: date, zone: ZoneInfo, quiet: Hours | None, windows: tuple[Window, ...]
) -> tuple[tuple[datetime, datetime], ...]:
    """The open stretches of a local day, in order; neighbours may touch."""
    begin, end = (local_moment(d, time.min, zone) for d in (day, day + _DAY))
    closed = Window(EVERY_DAY, quiet) if quiet else None
    hours = [window.hours for window in windows] + ([quiet] if quiet else [])
    times = {at for each in hours for at in (each.start, each.end)}
    # Nothing changes but at these times, each at both its readings, and at a change of clocks.
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
    """The moment in between, to the second, at which the UTC offset changes; else ``end``."""

    def changed(second: int) -> bool:
        moment = begin + timedelta(seconds=second)
        return moment.astimezone(zone).utcoffset() != begin.astimezone(zone).utcoffset()

    seconds = range(int((end - begin).total_seconds()))
    return begin + timedelta(seconds=bisect_left(seconds, 1, key=changed))


def _within(window: Window, moment: datetime, zone: ZoneInfo) -> tuple[bool, bool]:
    """Whether the clock shows a time of the window; whether its beginning is past, its end not."""
    wall = moment.astimezone(zone).replace(tzinfo=None)
    shown = reached = False
    start, end = window.hours.start, window.hours.end
    for day in (wall.date() - _DAY, wall.date()):
        if day.weekday() in window.days:
            last = day + _DAY if end < start else day
            shown |= datetime.combine(day, start) <= wall < datetime.combine(last, end)
            reached |= local_moment(day, start, zone) <= moment < local_moment(last, end, zone)
    return shown, reached
