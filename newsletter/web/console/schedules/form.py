"""The form of a schedule: made, changed, and looked at before it is stored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated
from zoneinfo import available_timezones

from fastapi import APIRouter, Depends, Form, Request, Response

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session
from newsletter.errors import UserError
from newsletter.numbers import whole_number
from newsletter.scheduling import prepared_issue, recurrence, schedules
from newsletter.scheduling.schedules import ScheduleOptions
from newsletter.sending.pacing.sending_windows import FIRST_ZONE
from newsletter.settings.load import Settings
from newsletter.web.console.base.layout import actor, go, page
from newsletter.web.console.schedules.views import HOME, Approver, find
from newsletter.web.console.sends.pace_form import (
    PACE_LABELS,
    Pace,
    mistakes,
    tracking_of,
    tracking_typed,
)
from newsletter.web.dependencies import Parts
from subscribers.segments import store as segment_store

router = APIRouter()
_COMING = 8
_Line = Annotated[str, Form(max_length=200)]
_Names = Annotated[Sequence[str], Form(max_length=500)]
_Lines = Annotated[str, Form(max_length=20_000)]
#: What the form calls the options that errors name.
_LABELS = {**PACE_LABELS, "when": "When", "zone": "Zone", "skips": "Skip days"}


@dataclass(frozen=True, slots=True)
class Typed:
    """What stands in the fields, as it was typed."""

    name: _Line = ""
    series: _Line = ""
    when: _Line = ""
    zone: _Line = ""
    own_clock: _Line = ""
    segments: _Names = ()
    excluded: _Names = ()
    skips: _Lines = ""
    rate: _Line = ""
    per_hour: _Line = ""
    per_day: _Line = ""
    quiet: _Line = ""
    windows: _Lines = ""
    clicks: _Line = ""
    opens: _Line = ""
    #: Which schedule is changed, and the fingerprint of what it was; empty for a new one.
    number: _Line = ""
    base: _Line = ""

    @property
    def pace(self) -> Pace:
        """The fields of the pace."""
        return Pace(self.rate, self.per_hour, self.per_day, self.quiet, self.windows)

    def wanted(self, settings: Settings) -> ScheduleOptions:
        """The schedule of these fields; SendError names the field that cannot be read."""
        return ScheduleOptions(
            name=self.name.strip(),
            series=self.series.strip(),
            rule=self.when,
            zone=self.zone.strip(),
            segments=self.segments,
            excluded=self.excluded,
            own_clock=bool(self.own_clock),
            skips=recurrence.parse_dates(self.skips, place="Skip days"),
            timetable=self.pace.timetable(settings),
            tracking=tracking_of(self.clicks, self.opens),
        )


Fields = Annotated[Typed, Depends()]


@router.api_route(f"{HOME}/new", methods=["GET", "HEAD"])
def blank(request: Request, parts: Parts, _visitor: Approver) -> Response:
    """The empty form."""
    settings = parts.settings
    typed = Typed(zone=settings.site.timezone, quiet=settings.sending.quiet_hours)
    return _form(request, parts, typed)


@router.api_route(f"{HOME}/{{schedule_id:int}}/edit", methods=["GET", "HEAD"])
def edit(schedule_id: int, request: Request, parts: Parts, _visitor: Approver) -> Response:
    """The form of a schedule as it is."""
    with reading(parts.database) as session:
        schedule = find(session, schedule_id)
        typed = _typed(schedules.options_of(session, schedule), schedule.id)
    return _form(request, parts, typed)


@router.post(f"{HOME}/preview")
def preview(request: Request, parts: Parts, _visitor: Approver, typed: Fields) -> Response:
    """The form again, with the times of its rule; nothing is stored."""
    return _form(request, parts, typed, asked=True)


@router.post(HOME)
def create(request: Request, parts: Parts, visitor: Approver, typed: Fields) -> Response:
    """Store a new one."""
    try:
        wanted = typed.wanted(parts.settings)
        with transaction(parts.database) as session:
            by, now = actor(request, visitor), datetime.now(UTC)
            number = schedules.create(session, wanted, by=by, now=now).id
    except UserError as error:
        return _form(request, parts, typed, problem=error)
    return go(f"{HOME}/{number}?done=made")


@router.post(f"{HOME}/{{schedule_id:int}}")
def change(
    schedule_id: int, request: Request, parts: Parts, visitor: Approver, typed: Fields
) -> Response:
    """Store a change, which counts from now on."""
    try:
        with transaction(parts.database) as session:
            name = find(session, schedule_id).name
            wanted = typed.wanted(parts.settings)
            by, now = actor(request, visitor), datetime.now(UTC)
            base = typed.base or None
            schedules.change(session, name, wanted, by=by, now=now, base=base)
    except UserError as error:
        return _form(request, parts, typed, problem=error, number=schedule_id)
    return go(f"{HOME}/{schedule_id}?done=changed")


def _form(
    request: Request,
    parts: Container,
    typed: Typed,
    *,
    problem: UserError | None = None,
    asked: bool = False,
    number: int | None = None,
) -> Response:
    if number is None:
        number = whole_number(typed.number)
    with reading(parts.database) as session:
        return page(
            request,
            "schedule_form.html",
            status=400 if problem else 200,
            problem=problem,
            typed=typed,
            mistakes=mistakes(problem, _LABELS),
            number=number,
            coming=_coming(session, typed) if typed.when or asked else None,
            names=segment_store.names(session),
            series=schedules.known_series(session),
            zones=_zones(),
        )


@dataclass(frozen=True, slots=True)
class _Coming:
    """What a rule means: its words and next times, or what is wrong with it."""

    words: str = ""
    times: tuple[tuple[str, str, str], ...] = ()
    issue: str = ""
    problem: UserError | None = None


def _coming(session: Session, typed: Typed) -> _Coming:
    try:
        rule = recurrence.parse(typed.when, place="When")
        zone = recurrence.find_zone(FIRST_ZONE if typed.own_clock else typed.zone, place="Zone")
        skipped_days = recurrence.parse_dates(typed.skips, place="Skip days")
    except UserError as error:
        return _Coming(problem=error)
    found = recurrence.occurrences(rule, zone, after=datetime.now(UTC))
    times = []
    for one in recurrence.first(found, _COMING):
        local = one.due.astimezone(zone)
        note = "skipped" if one.wall.date() in skipped_days else one.note
        clock = f"{local:%H:%M}" if typed.own_clock else f"{local:%H:%M %Z}"
        times.append((f"{local:%A}, {local.day} {local:%B %Y}", clock, note))
    series = typed.series.strip()
    issue = prepared_issue.next_issue(session, series) if series.isprintable() and series else None
    return _Coming(rule.description, tuple(times), issue.slug if issue else "")


def _typed(wanted: ScheduleOptions, number: int) -> Typed:
    pace = Pace.of(wanted.timetable)
    return Typed(
        name=wanted.name,
        series=wanted.series,
        when=wanted.rule,
        zone=wanted.zone,
        own_clock="yes" if wanted.own_clock else "",
        segments=list(wanted.segments),
        excluded=list(wanted.excluded),
        skips="\n".join(day.isoformat() for day in wanted.skips),
        **asdict(pace),
        clicks=tracking_typed(wanted.tracking.clicks),
        opens=tracking_typed(wanted.tracking.opens),
        number=str(number),
        base=schedules.fingerprint(wanted),
    )


@lru_cache(maxsize=1)
def _zones() -> tuple[str, ...]:
    """Names that people know: regions with their places, and UTC."""
    regions = "Africa America Antarctica Arctic Asia Atlantic Australia Europe Indian Pacific"
    known = {name for name in available_timezones() if name.split("/")[0] in regions.split()}
    return tuple(sorted(known | {"UTC"}))
