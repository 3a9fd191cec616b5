"""Lengths of time: as operators write them, and in words."""

import re
from datetime import timedelta
from typing import Final

#: Durations are added to dates; a longer one would leave the calendar.
LONGEST: Final = timedelta(days=3660)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
#: Below this, a duration is said with its seconds.
_WITH_SECONDS: Final = 600
#: Below this, a duration is said in hours.
_IN_HOURS: Final = 48 * 3600


def parse(text: object) -> timedelta:
    """The duration in a text like ``30s``, ``15m``, ``6h``, ``2d`` or ``1w``; else ValueError."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"([0-9]{1,9})\s*([smhdw])", str(text)[:100].strip())
    if not match:
        raise ValueError("a length of time is written like 30s, 15m, 6h, 2d or 1w")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"a length of time is {LONGEST.days} days at most")
    return timedelta(seconds=seconds)


def written(length: timedelta) -> str:
    """The shortest text that ``parse`` reads as this: ``4h``."""
    if not length:
        return "0s"
    seconds = int(length.total_seconds())
    unit = next(u for u in "wdhms" if seconds % _UNITS[u] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def in_words(length: timedelta) -> str:
    """A measured duration, such as ``3 min 20 s`` or ``2 days 4 h``; at most two units."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        first, second = f"{seconds // 60} min", (seconds % 60, "s")
        if seconds >= _WITH_SECONDS:
            return first
    elif seconds < _IN_HOURS:
        first, second = f"{seconds // 3600} h", (seconds % 3600 // 60, "min")
    else:
        first, second = f"{seconds // 86400} days", (seconds % 86400 // 3600, "h")
    number, unit = second
    return f"{first} {number} {unit}" if number else first


def period(length: timedelta) -> str:
    """A chosen duration in its largest whole unit: ``30 minutes``, ``3 days``."""
    seconds = int(length.total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}{'' if seconds == size else 's'}"
    return "1 second" if seconds == 1 else f"{seconds} seconds"
