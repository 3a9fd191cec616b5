"""Reads the pace and the start of a send as an operator writes them.

The command line and the console pass the same texts, and their own ``names`` of the options, so
that an error names the option as the operator sees it.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

from newsletter.errors import SendError
from newsletter.sending.pacing.quotas import invalid_limit
from newsletter.sending.pacing.sending_windows import (
    first_moment,
    parse_hours,
    parse_moment,
    parse_time,
    parse_window,
    require_future,
    require_year,
)
from newsletter.sending.pacing.timetable import Timetable

#: The largest accepted limit.
_MAX_LIMIT = 1_000_000_000
#: A number as typed, or as a command has read it.
_Number = str | float | None


def parse_timetable(
    *,
    names: Mapping[str, str],
    zone: str,
    rate: _Number = None,
    per_hour: _Number = None,
    per_day: _Number = None,
    local_time: str | None = None,
    local_date: date | None = None,
    quiet: str | None = None,
    default_quiet: str = "",
    windows: Sequence[str] = (),
) -> Timetable:
    """The timetable of these options; an empty one sets no limit. SendError names a wrong one.

    ``default_quiet``, the setting, applies where ``quiet`` is None; an empty text means none.
    """
    quiet_name = names["quiet"]
    if quiet is None:
        quiet, quiet_name = default_quiet, "sending.quiet_hours"
    return Timetable(
        per_second=_rate(rate, names["rate"]),
        per_hour=_limit(per_hour, names["per_hour"]),
        per_day=_limit(per_day, names["per_day"]),
        local_time=parse_time(local_time, place=names["local_time"]) if local_time else None,
        local_date=local_date,
        quiet=parse_hours(quiet, place=quiet_name) if quiet.strip() else None,
        windows=tuple(parse_window(text, place=names["window"]) for text in windows),
        zone=zone,
    )


def parse_start(
    at: str | None,
    local_time: str | None,
    *,
    names: Mapping[str, str],
    now: datetime,
    zone: ZoneInfo,
) -> tuple[datetime, date | None]:
    """When the send starts, and the day of its local time if ``at`` names one.

    Without ``at`` it starts now. A time without an offset is read on the clocks of ``zone``. With
    a local time, ``at`` is a day, and the send starts when that time first comes anywhere on earth.
    """
    if not at:
        return now, None
    place, day = names["at"], None
    if local_time:
        try:
            day = date.fromisoformat(at)
        except ValueError:
            hint = f"With {names['local_time']} it is a day, like 2026-04-01."
            raise SendError("not a day", place=place, hint=hint) from None
        require_year(day, place=place)
        start = first_moment(day, parse_time(local_time, place=names["local_time"]))
    else:
        start = parse_moment(at, zone, place=place)
    require_future(start, now, place=place, is_local=day is not None)
    return start, day


def _number(value: _Number, place: str) -> float | None:
    if not isinstance(value, str):
        return value
    try:
        # A comma groups thousands, and is never a decimal point.
        return float(value.replace(",", "").strip()) if value.strip() else None
    except ValueError:
        raise SendError("not a number", place=place, hint="Write it like 50.") from None


def _rate(value: _Number, place: str) -> float | None:
    rate = _number(value, place)
    if rate is not None and not 0 < rate < math.inf:
        raise invalid_limit(place, rate, "Write a number above 0, like 50.")
    return rate


def _limit(value: _Number, place: str) -> int | None:
    limit = _number(value, place)
    if limit is None:
        return None
    if not (limit <= _MAX_LIMIT and float(limit).is_integer()):
        raise SendError("not a whole number", place=place, hint="Write it like 10000.")
    if limit < 1:
        raise invalid_limit(place, int(limit), "Write a whole number from 1 on, like 10000.")
    return int(limit)
