"""When a schedule is due: what operators write, and which moments that means. Pure.

A rule is read on the wall clock of a zone, and each time that it names comes once. A time
that the clocks skip that day is due at the first moment after the gap; a time that they
show twice is due at the first of both. Walls are naive datetimes, moments are aware
ones in UTC.
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

#: More of them are no list of holidays.
MOST_SKIPS = 1000
_HINT = (
    "Write days and a time, like “daily 07:00”, “mon-fri 07:00”, “first tuesday 09:00”, "
    "“last day 18:00” or “day 15 09:00”; a day, like “2026-12-01 09:00”; or cron’s five fields."
)
_ORDER = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "last": "L"}
_ORDER |= {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5}
_EVERY = {"daily", "day", "every day", "days"}
_BY_DATE = {"last day": "L", "last weekday": "LW", "first day": "1"}
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class RecurrenceRule:
    """When something happens: by a cron expression for ever, or once."""

    #: As the operator wrote it, tidied.
    text: str
    #: Five fields; empty for what happens once.
    cron: str = ""
    once: datetime | None = None

    @property
    def words(self) -> str:
        """What it means, for people."""
        if self.once is not None:
            return f"Once, on {self.once.day} {self.once:%B %Y at %H:%M}"
        return CronSim(self.cron, datetime(2000, 1, 1)).explain()  # noqa: DTZ001 (a wall clock)

    def walls(self, after: datetime) -> Iterator[datetime]:
        """What the clock shows each time, from ``after`` (excluded) on."""
        if self.once is not None:
            return iter([self.once] if self.once > after else [])
        return CronSim(self.cron, after)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that a rule names: what the wall clock shows, and the moment that this is."""

    wall: datetime
    due: datetime
    #: What the change of clocks does to it, if it does.
    note: str = ""


def parse(text: str, *, place: str = "rule") -> RecurrenceRule:
    """The rule of these words or this cron expression; SendError says what can be written."""
    tidy = " ".join(text.lower().split())
    if not tidy or len(tidy) > _LONGEST:
        raise SendError("that says no time", place=place, hint=_HINT)
    if re.match(r"\d{4}-", tidy, re.ASCII):
        return RecurrenceRule(tidy, once=_parse_once(tidy, place))
    if match := re.fullmatch(r"(?:every )?(\S.*?),? (?:at )?(\d?\d:\d\d)", tidy, re.ASCII):
        at = sending_windows.parse_time(match[2], place=place)
        day, weekday = _parse_days(match[1], place)
        return RecurrenceRule(tidy, cron=f"{at.minute} {at.hour} {day} * {weekday}")
    return RecurrenceRule(tidy, cron=_checked_cron(tidy, place))


def occurrences(rule: RecurrenceRule, zone: ZoneInfo, *, after: datetime) -> Iterator[Occurrence]:
    """Each time of a rule after a moment (excluded), in order; no two at one moment."""
    # Times that this day shows twice may lie before, times in a gap only before its end.
    walls = rule.walls(after.astimezone(zone).replace(tzinfo=None, microsecond=0))
    return _in_order(walls, zone, after)


def from_wall(rule: RecurrenceRule, zone: ZoneInfo, wall: datetime) -> Iterator[Occurrence]:
    """Each time of a rule from the one on at which the clock shows ``wall``, as above."""
    return _in_order(rule.walls(wall - timedelta(minutes=1)), zone, None)


def _in_order(
    walls: Iterable[datetime], zone: ZoneInfo, last: datetime | None
) -> Iterator[Occurrence]:
    for wall in walls:
        found = _on_clock(wall, zone)
        if last is None or found.due > last:
            last = found.due
            yield found


def parse_dates(text: str, *, place: str = "dates") -> list[date]:
    """Dates like 2026-12-25, by lines or commas, without those named twice; # begins a comment."""
    found: set[date] = set()
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            try:
                found.add(date.fromisoformat(word))
            except ValueError:
                hint = "Write days like 2026-12-25, one on each line; # begins a comment."
                raise SendError(
                    f"“{word[:40]}” is no day", place=f"{place}:{number}", hint=hint
                ) from None
    if len(found) > MOST_SKIPS:
        raise SendError(f"these are more than {MOST_SKIPS:,} days", place=place)
    return sorted(found)


def find_zone(name: str, *, place: str = "zone") -> ZoneInfo:
    """The zone of an IANA name; SendError when there is none of it."""
    zone = sending_windows.find_zone(name.strip())
    if zone is None:
        hint = "Write a name of the IANA list, like Europe/Berlin or UTC."
        raise SendError(f"there is no zone “{name[:60]}”", place=place, hint=hint)
    return zone


def first(occurring: Iterable[Occurrence], count: int) -> list[Occurrence]:
    """So many of them, or all where there are fewer."""
    return list(islice(occurring, count))


def _on_clock(wall: datetime, zone: ZoneInfo) -> Occurrence:
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    shown = f"{wall:%H:%M}"
    if early < late:
        return Occurrence(wall, early, f"the clocks show {shown} twice: the first time counts")
    if early > late:
        # In a gap the offset after it (fold=1) leads before it, the offset before it behind it.
        end = sending_windows.clock_change(late, early, zone)
        note = f"the clocks skip {shown}: it is due at {end.astimezone(zone):%H:%M}"
        return Occurrence(wall, end, note)
    return Occurrence(wall, early)


def _parse_once(text: str, place: str) -> datetime:
    try:
        wall = datetime.fromisoformat(text.replace(" at ", " "))
    except ValueError:
        raise SendError("that is no day with a time", place=place, hint=_HINT) from None
    if wall.tzinfo is not None or ":" not in text:
        hint = "Write it like 2026-12-01 09:00; the zone is named by itself."
        raise SendError("that is no time on the clock of a zone", place=place, hint=hint)
    sending_windows.require_year(wall, place=place)
    return wall.replace(second=0, microsecond=0)


def _parse_days(words: str, place: str) -> tuple[str, str]:
    """Cron's day of the month and day of the week, of which one at least is a star."""
    if words in _EVERY:
        return "*", "*"
    if words in {"weekdays", "weekday"}:
        return "*", "1-5"
    if words in _BY_DATE:
        return _BY_DATE[words], "*"
    if match := re.fullmatch(r"(?:day )?(\d\d?)(?:st|nd|rd|th)?", words, re.ASCII):
        if not 1 <= int(match[1]) <= 31:
            raise SendError("no month has that day", place=place, hint=_HINT)
        return match[1], "*"
    order, _, name = words.partition(" ")
    if order in _ORDER:
        days = sending_windows.parse_days(name, place=place)
        if len(days) > 1:
            hint = "Write one day of the week, like “first tuesday 09:00”."
            raise SendError("which day is meant?", place=place, hint=hint)
        number, which = (min(days) + 1) % 7, _ORDER[order]
        return "*", f"{number}L" if which == "L" else f"{number}#{which}"
    try:
        days = sending_windows.parse_days(words, place=place)
    except SendError:
        raise SendError("these are no days", place=place, hint=_HINT) from None
    numbers = sorted((day + 1) % 7 for day in days)
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return "*", f"{numbers[0]}-{numbers[-1]}"
    return "*", ",".join(map(str, numbers))


def _checked_cron(text: str, place: str) -> str:
    fields = text.split()
    if len(fields) != 5:
        raise SendError("that says no time", place=place, hint=_HINT)
    if not re.fullmatch(r"\d\d?", fields[0], re.ASCII):
        hint = f"Write the one minute of the hour at which it is due: 0 {' '.join(fields[1:])}"
        raise SendError("it would be due more than once an hour", place=place, hint=hint)
    # Cron takes either of the two, which surprises nearly everybody.
    if not fields[2].startswith("*") and not fields[4].startswith("*"):
        hint = "Leave one of them *. The first Tuesday is: 0 9 * * tue#1, or “first tuesday 09:00”."
        raise SendError("it names days of the month and of the week", place=place, hint=hint)
    try:
        next(CronSim(text, datetime(2000, 1, 1)))  # noqa: DTZ001 (a wall clock)
    except CronSimError as error:
        what = str(error).replace("Bad ", "cron does not know this ")
        hint = "Minute, hour, day, month, day of the week: mon-sun, or 0 to 7, where 0 is Sunday."
        raise SendError(what, place=place, hint=hint) from None
    except StopIteration:
        raise SendError("that never comes", place=place) from None
    return text
