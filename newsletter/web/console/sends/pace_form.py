"""The fields of a form that say how fast a send leaves, in which hours, and what is measured."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from fastapi import Form

from newsletter.errors import SendError
from newsletter.issues.parsing.tracking_flags import TrackingChoice
from newsletter.sending.pacing.sending_windows import parse_hours, parse_time, parse_window
from newsletter.sending.pacing.timetable import Timetable
from newsletter.settings.load import Settings

#: More than anybody sends; larger numbers fit nowhere.
_MOST = 1_000_000_000
_Text = Annotated[str, Form(max_length=40)]


@dataclass(frozen=True, slots=True)
class Pace:
    """What was typed; an empty field sets no limit."""

    rate: _Text = ""
    per_hour: _Text = ""
    per_day: _Text = ""
    quiet: _Text = ""
    #: One sending window on each line.
    windows: Annotated[str, Form(max_length=2000)] = ""

    def timetable(
        self,
        settings: Settings,
        *,
        quiet_by_default: bool,
        local_time: str = "",
        local_date: date | None = None,
    ) -> Timetable:
        """The timetable of these fields; SendError names the field that cannot be kept."""
        quiet = self.quiet.strip() or (settings.sending.quiet_hours if quiet_by_default else "")
        return Timetable(
            per_second=_number(self.rate, "Recipients per second"),
            per_hour=_whole(self.per_hour, "Recipients per hour"),
            per_day=_whole(self.per_day, "Recipients per day"),
            local_time=parse_time(local_time, place="Time of day") if local_time else None,
            local_date=local_date,
            quiet=parse_hours(quiet, place="Quiet hours") if quiet else None,
            windows=tuple(
                parse_window(line, place="Sending windows")
                for line in self.windows.splitlines()
                if line.strip()
            ),
            zone=settings.site.timezone,
        )


def tracking_of(clicks: str, opens: str) -> TrackingChoice:
    """What the fields of a form say of measuring: ``yes``, ``no``, and else nothing."""
    said = {"yes": True, "no": False}
    return TrackingChoice(said.get(clicks), said.get(opens))


def tracking_typed(said: bool | None) -> str:  # noqa: FBT001 (a column's value)
    """The same as a field has it."""
    return "" if said is None else "yes" if said else "no"


def _number(text: str, place: str) -> float | None:
    try:
        # Both ways of grouping thousands are read as such, never as a decimal point.
        return float(text.replace(",", "").strip()) if text.strip() else None
    except ValueError:
        raise SendError("not a number", place=place, hint="Write it like 50.") from None


def _whole(text: str, place: str) -> int | None:
    number = _number(text, place)
    if number is None:
        return None
    if not (number.is_integer() and number <= _MOST):
        raise SendError("not a whole number", place=place, hint="Write it like 10000.")
    return int(number)
