"""Recurrence rules: parses what operators write, and computes the times of a rule. Pure.

A rule is read on the wall clock of a time zone, and each of its times comes once. A time in a gap
(the clocks are set forward over it) is due at the end of the gap; a time that the clocks show
twice is due the first time. ``wall`` names naive local datetimes; ``due`` names aware ones in UTC.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from newsletter.errors import SendError
from newsletter.sending.pacing import sending_windows

#: Days to skip of one schedule.
MAX_SKIPS = 1000
_HINT = (
    "Write days and a time, like “daily 07:00”, “mon-fri 07:00”, “first tuesday 09:00”, "
    "“last day 18:00” or “day 15 09:00”; a day, like “2026-12-01 09:00”; or cron’s five fields."
)
_ORDER = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": "L"}
_ORDER |= {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5}
_EVERY_DAY = {"daily", "day", "every day", "days"}
_DAYS_OF_MONTH = {"last day": "L", "last weekday": "LW", "first day": "1"}
_MAX_LENGTH = 100


@dataclass(frozen=True, slots=True)
class RecurrenceRule:
    """A cron expression, or one date and time."""

    #: What the operator wrote, in lower case and with single spaces.
    text: str
    #: Five fields; empty for a rule that runs once.
    cron: str = ""
    once: datetime | None = None

    @property
    def description(self) -> str:
        """The rule in English, for operators."""
        if self.once is not None:
            return f"Once, on {self.once.day} {self.once:%B %Y at %H:%M}"
        return CronSim(self.cron, datetime(2000, 1, 1)).explain()  # noqa: DTZ001 (a wall clock)

    def walls(self, after: datetime) -> Iterator[datetime]:
        """The local times of the rule after ``after`` (excluded)."""
        if self.once is not None:
            return iter([self.once] if self.once > after else [])
        return CronSim(self.cron, after)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time of a rule: the local time, and the same in UTC."""

    wall: datetime
    due: datetime
    #: How a change of clocks affects it; empty where none does.
    note: str = ""


def parse(text: str, *, place: str = "rule") -> RecurrenceRule:
    """Parse a rule in English or as a cron expression; SendError says what is allowed."""
    normalized = " ".join(text.lower().split())
    if not normalized or len(normalized) > _MAX_LENGTH:
        raise SendError("the rule has no time of day", place=place, hint=_HINT)
    if re.match(r"\d{4}-", normalized, re.ASCII):
        return RecurrenceRule(normalized, once=_parse_once(normalized, place))
    if match := re.fullmatch(r"(?:every )?(\S.*?),? (?:at )?(\d?\d:\d\d)", normalized, re.ASCII):
        at = sending_windows.parse_time(match[2], place=place)
        day, weekday = _parse_days(match[1], place)
        return RecurrenceRule(normalized, cron=f"{at.minute} {at.hour} {day} * {weekday}")
    return RecurrenceRule(normalized, cron=_checked_cron(normalized, place))


def occurrences(rule: RecurrenceRule, zone: ZoneInfo, *, after: datetime) -> Iterator[Occurrence]:
    """Each time of a rule after ``after`` (excluded), in order; no two are at the same time."""
    # The local time of ``after`` may come twice that day. ``_in_order`` drops the earlier ones.
    walls = rule.walls(after.astimezone(zone).replace(tzinfo=None, microsecond=0))
    return _in_order(walls, zone, after)


def from_wall(rule: RecurrenceRule, zone: ZoneInfo, wall: datetime) -> Iterator[Occurrence]:
    """Each time of a rule from the local time ``wall`` (included) on, as in ``occurrences``."""
    return _in_order(rule.walls(wall - timedelta(minutes=1)), zone, None)


def _in_order(
    walls: Iterable[datetime], zone: ZoneInfo, last: datetime | None
) -> Iterator[Occurrence]:
    for wall in walls:
        occurrence = _on_clock(wall, zone)
        if last is None or occurrence.due > last:
            last = occurrence.due
            yield occurrence


def parse_dates(text: str, *, place: str = "dates") -> list[date]:
    """Parse dates like 2026-12-25, separated by lines or commas; # begins a comment.

    Returns each date once, in order. SendError names the line of a wrong date.
    """
    dates: set[date] = set()
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            try:
                dates.add(date.fromisoformat(word))
            except ValueError:
                hint = "Write dates like 2026-12-25, one on each line; # begins a comment."
                raise SendError(
                    f"“{word[:40]}” is not a date", place=f"{place}:{number}", hint=hint
                ) from None
    if len(dates) > MAX_SKIPS:
        raise SendError(f"these are more than {MAX_SKIPS:,} dates", place=place)
    return sorted(dates)


def find_zone(name: str, *, place: str = "zone") -> ZoneInfo:
    """The zone of an IANA name; SendError when there is no such zone."""
    zone = sending_windows.find_zone(name.strip())
    if zone is None:
        hint = "Write an IANA name, like Europe/Berlin or UTC."
        raise SendError(f"there is no time zone “{name[:60]}”", place=place, hint=hint)
    return zone


def first(occurrences: Iterable[Occurrence], count: int) -> list[Occurrence]:
    """The first ``count`` of these, or all where there are fewer."""
    return list(islice(occurrences, count))


def _on_clock(wall: datetime, zone: ZoneInfo) -> Occurrence:
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    shown = f"{wall:%H:%M}"
    if early < late:
        return Occurrence(wall, early, f"the clocks show {shown} twice: the first time counts")
    if early > late:
        # In a gap, fold=1 uses the offset after the gap, which gives a time before it; and fold=0
        # the other way round (PEP 495).
        end = sending_windows.clock_change(late, early, zone)
        note = f"the clocks skip {shown}: it is due at {end.astimezone(zone):%H:%M}"
        return Occurrence(wall, end, note)
    return Occurrence(wall, early)


def _parse_once(text: str, place: str) -> datetime:
    try:
        wall = datetime.fromisoformat(text.replace(" at ", " "))
    except ValueError:
        raise SendError("this is not a date and a time", place=place, hint=_HINT) from None
    if wall.tzinfo is not None or ":" not in text:
        hint = "Write it like 2026-12-01 09:00; the time zone has a field of its own."
        raise SendError("the rule needs a time of day without a zone", place=place, hint=hint)
    sending_windows.require_year(wall, place=place)
    return wall.replace(second=0, microsecond=0)


def _parse_days(words: str, place: str) -> tuple[str, str]:
    """Cron's day of the month and day of the week; at least one of them is a star."""
    if words in _EVERY_DAY:
        return "*", "*"
    if words in {"weekdays", "weekday"}:
        return "*", "1-5"
    if words in _DAYS_OF_MONTH:
        return _DAYS_OF_MONTH[words], "*"
    if match := re.fullmatch(r"(?:day )?(\d\d?)(?:st|nd|rd|th)?", words, re.ASCII):
        if not 1 <= int(match[1]) <= 31:
            raise SendError("no month has this day", place=place, hint=_HINT)
        return match[1], "*"
    order, _, name = words.partition(" ")
    if order in _ORDER:
        days = sending_windows.parse_days(name, place=place)
        if len(days) > 1:
            hint = "Write one day of the week, like “first tuesday 09:00”."
            raise SendError("the rule names more than one day", place=place, hint=hint)
        number, which = (min(days) + 1) % 7, _ORDER[order]
        return "*", f"{number}L" if which == "L" else f"{number}#{which}"
    try:
        days = sending_windows.parse_days(words, place=place)
    except SendError:
        raise SendError("these are not days of the week", place=place, hint=_HINT) from None
    numbers = sorted((day + 1) % 7 for day in days)
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return "*", f"{numbers[0]}-{numbers[-1]}"
    return "*", ",".join(map(str, numbers))


def _checked_cron(text: str, place: str) -> str:
    fields = text.split()
    if len(fields) != 5:
        raise SendError("the rule has no time of day", place=place, hint=_HINT)
    if not re.fullmatch(r"\d\d?", fields[0], re.ASCII):
        hint = f"Write one minute of the hour: 0 {' '.join(fields[1:])}"
        raise SendError("the rule would run more than once an hour", place=place, hint=hint)
    # Cron would run on either of the two, which surprises most users.
    if not fields[2].startswith("*") and not fields[4].startswith("*"):
        hint = "Leave one of them *. The first Tuesday is: 0 9 * * tue#1, or “first tuesday 09:00”."
        message = "the rule names both days of the month and days of the week"
        raise SendError(message, place=place, hint=hint)
    try:
        next(CronSim(text, datetime(2000, 1, 1)))  # noqa: DTZ001 (a wall clock)
    except CronSimError as error:
        what = str(error).replace("Bad ", "cron does not know this ")
        hint = "Minute, hour, day, month, day of the week: mon-sun, or 0 to 7, where 0 is Sunday."
        raise SendError(what, place=place, hint=hint) from None
    except StopIteration:
        raise SendError("no date matches the rule", place=place) from None
    return text
