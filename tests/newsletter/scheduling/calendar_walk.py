"""Due times without cron and arithmetic of zones: by a look at each quarter of an hour.

A wall clock is watched in steps of 15 minutes, of which every zone's offset and every
change of clocks here is a multiple. What it shows again was there before; what it leaves
out is due when it goes on.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

STEP = timedelta(minutes=15)

#: What operators write, and whether a wall clock's time is one of it.
RULES: dict[str, Callable[[datetime], bool]] = {
    "daily 02:30": lambda wall: (wall.hour, wall.minute) == (2, 30),
    "0 0 * * *": lambda wall: (wall.hour, wall.minute) == (0, 0),
    "mon-fri 09:15": lambda wall: wall.isoweekday() <= 5 and (wall.hour, wall.minute) == (9, 15),
    "first tuesday 02:00": lambda wall: (
        wall.isoweekday() == 2 and wall.day <= 7 and (wall.hour, wall.minute) == (2, 0)
    ),
    "0 2 * * 0": lambda wall: wall.isoweekday() == 7 and (wall.hour, wall.minute) == (2, 0),
    "45 1 * * 7": lambda wall: wall.isoweekday() == 7 and (wall.hour, wall.minute) == (1, 45),
    "last friday 17:00": lambda wall: (
        wall.isoweekday() == 5
        and (wall + timedelta(days=7)).month != wall.month
        and (wall.hour, wall.minute) == (17, 0)
    ),
    "last day 00:30": lambda wall: (
        (wall + timedelta(days=1)).day == 1 and (wall.hour, wall.minute) == (0, 30)
    ),
    "day 31 06:00": lambda wall: wall.day == 31 and (wall.hour, wall.minute) == (6, 0),
    "15 2,14 * 3-4,10 sun": lambda wall: (
        wall.isoweekday() == 7
        and wall.month in {3, 4, 10}
        and wall.hour in {2, 14}
        and wall.minute == 15
    ),
    "30 * * * *": lambda wall: wall.minute == 30,
}


def walked(
    zone: ZoneInfo, begin: datetime, end: datetime, *rules: str
) -> dict[str, list[datetime]]:
    """The moments of each rule, from ``begin`` (excluded) to ``end`` (included)."""
    found: dict[str, list[datetime]] = {rule: [] for rule in rules}
    moment = begin
    furthest = begin.astimezone(zone).replace(tzinfo=None)
    while moment < end:
        moment += STEP
        wall = moment.astimezone(zone).replace(tzinfo=None)
        new = []
        while furthest < wall:
            furthest += STEP
            new.append(furthest)
        for rule in rules:
            if any(map(RULES[rule], new)):
                found[rule].append(moment.astimezone(UTC))
    return found
