"""The fields of a form for pace, hours and tracking, and the mistake in one of a form's fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final

from fastapi import Form

from newsletter.errors import UserError
from newsletter.issues.parsing.tracking_flags import TrackingChoice
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.pacing.timetable_parsing import parse_timetable
from newsletter.settings.load import Settings
from newsletter.web.sentences import sentence

_Text = Annotated[str, Form(max_length=40)]
#: What the forms call the options of a pace.
PACE_LABELS: Final[Mapping[str, str]] = {
    "rate": "Recipients per second",
    "per_hour": "Recipients per hour",
    "per_day": "Recipients per day",
    "quiet": "Quiet hours",
    "window": "Sending windows",
    "local_time": "Local delivery time",
}
#: The fields of these options, where they have other names.
PACE_FIELDS: Final[Mapping[str, str]] = {"window": "windows"}


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
        self, settings: Settings, *, local_time: str = "", local_date: date | None = None
    ) -> Timetable:
        """The timetable of these fields; SendError names the field that cannot be kept."""
        return parse_timetable(
            names=PACE_LABELS,
            zone=settings.site.timezone,
            rate=self.rate,
            per_hour=self.per_hour,
            per_day=self.per_day,
            local_time=local_time,
            local_date=local_date,
            quiet=self.quiet,
            windows=[line for line in self.windows.splitlines() if line.strip()],
        )

    @classmethod
    def of(cls, timetable: Timetable) -> "Pace":
        """The fields of this timetable."""
        return cls(
            rate="" if timetable.per_second is None else f"{timetable.per_second:.10g}",
            per_hour=str(timetable.per_hour or ""),
            per_day=str(timetable.per_day or ""),
            quiet=str(timetable.quiet or ""),
            windows="\n".join(map(str, timetable.windows)),
        )

    @property
    def is_set(self) -> bool:
        """Whether any field is filled in."""
        return bool(self.rate or self.per_hour or self.per_day or self.quiet or self.windows)


def tracking_of(clicks: str, opens: str) -> TrackingChoice:
    """The choice in the fields: ``yes``, ``no``, and anything else leaves it open."""
    said = {"yes": True, "no": False}
    return TrackingChoice(said.get(clicks), said.get(opens))


def tracking_typed(said: bool | None) -> str:  # noqa: FBT001 (a column's value)
    """The same as a field has it."""
    return "" if said is None else "yes" if said else "no"


def mistakes(
    problem: UserError | None,
    labels: Mapping[str, str] = PACE_LABELS,
    fields: Mapping[str, str] = PACE_FIELDS,
) -> dict[str, str]:
    """The field that a problem is about, with the words to put beside it; empty if there is none.

    ``labels`` has the label of each option, and ``fields`` its field where that is named otherwise.
    """
    if problem is None:
        return {}
    words = f"{sentence(problem.message)} {problem.hint or ''}".rstrip()
    return {
        fields.get(option, option): words
        for option, label in labels.items()
        if label == problem.place
    }
