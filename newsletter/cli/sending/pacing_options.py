"""The options for start time and pace that `send`, `schedule` and `sends pace` share."""

from datetime import date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from newsletter.container import Container
from newsletter.errors import SendError
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

Rate = Annotated[float | None, typer.Option(min=0.01, help="The most recipients per second.")]
PerHour = Annotated[int | None, typer.Option(min=1, help="The most recipients per clock hour.")]
PerDay = Annotated[
    int | None, typer.Option(min=1, help="The most recipients per day in site.timezone.")
]
LocalTime = Annotated[
    str | None,
    typer.Option(
        metavar="HH:MM", help="Not before this time in each subscriber's time zone, e.g. 07:00."
    ),
]
Quiet = Annotated[
    str | None,
    typer.Option(
        metavar="HH:MM-HH:MM",
        help="Send nothing in these hours of each subscriber's time zone (sending.quiet_hours).",
    ),
]
Window = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DAYS HOURS",
        help='Send only in these hours of the subscriber\'s time zone, e.g. "mon-fri 08:00-18:00"; '
        "repeatable.",
    ),
]
Clicks = Annotated[
    bool | None,
    typer.Option(
        "--clicks/--no-clicks",
        help="Track clicks, or not; by default as the issue and tracking.clicks say.",
    ),
]
Opens = Annotated[
    bool | None,
    typer.Option(
        "--opens/--no-opens",
        help="Track opens, or not; by default as the issue and tracking.opens say.",
    ),
]


def timetable(
    assembly: Container,
    *,
    rate: float | None,
    per_hour: int | None,
    per_day: int | None,
    local_time: str | None = None,
    local_date: date | None = None,
    quiet: str | None = None,
    window: list[str] | None = None,
) -> Timetable:
    """Build the timetable from the options; SendError names a wrong option."""
    settings = assembly.settings
    quiet_place = "--quiet"
    if quiet is None:
        quiet, quiet_place = settings.sending.quiet_hours, "sending.quiet_hours"
    return Timetable(
        per_second=rate,
        per_hour=per_hour,
        per_day=per_day,
        local_time=parse_time(local_time, place="--local-time") if local_time else None,
        local_date=local_date,
        quiet=parse_hours(quiet, place=quiet_place) if quiet else None,
        windows=tuple(parse_window(text, place="--window") for text in window or ()),
        zone=settings.site.timezone,
    )


def moment(
    at: str | None, local_time: str | None, now: datetime, zone: ZoneInfo
) -> tuple[datetime, date | None]:
    """When the send starts, and the day of its local time if ``--at`` names one.

    A time without an offset is read on the clocks of ``zone``. A day with ``--local-time``
    starts where on earth that time comes first.
    """
    if at is None:
        return now, None
    place, day = f"--at {at}", None
    if local_time:
        try:
            day = date.fromisoformat(at)
        except ValueError:
            hint = "With --local-time it is a day, like 2026-04-01."
            raise SendError("not a time", place=place, hint=hint) from None
        require_year(day, place=place)
        start = first_moment(day, parse_time(local_time, place="--local-time"))
    else:
        start = parse_moment(at, zone, place=place)
    require_future(start, now, place=place, is_local=day is not None)
    return start, day
