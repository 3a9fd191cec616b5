"""The options for start time, pace and tracking that `send`, `schedule` and `sends pace` share."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Final

import typer

from newsletter.container import Container
from newsletter.sending.pacing import timetable_parsing
from newsletter.sending.pacing.timetable import Timetable

#: What the command line calls the options that the domain parses.
NAMES: Final[Mapping[str, str]] = {
    option: f"--{option.replace('_', '-')}"
    for option in (
        *("at", "local_time", "rate", "per_hour", "per_day", "quiet", "window"),
        *("subject", "variant", "sample", "winner", "after"),
    )
}
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
    container: Container,
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
    return timetable_parsing.parse_timetable(
        names=NAMES,
        zone=container.settings.site.timezone,
        rate=rate,
        per_hour=per_hour,
        per_day=per_day,
        local_time=local_time,
        local_date=local_date,
        quiet=quiet,
        default_quiet=container.settings.sending.quiet_hours,
        windows=window or (),
    )
