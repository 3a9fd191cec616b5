"""Schedules as operators keep them: made, changed, paused, skipped, removed; each is logged.

A change counts from the moment at which it is made: what would have been due before is
neither made up nor missed.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from datetime import date, datetime
from itertools import islice

from sqlalchemy import delete, func, insert, select

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.orm import Session, table_of
from newsletter.errors import SendError
from newsletter.issues.models import Issue
from newsletter.issues.parsing.tracking_flags import NO_CHOICE, TrackingChoice
from newsletter.scheduling import next_run, recurrence
from newsletter.scheduling.models import (
    RunOutcome,
    Schedule,
    ScheduleRun,
    ScheduleSegment,
    ScheduleState,
)
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.queries import archive as archive_queries
from subscribers.models import Segment
from subscribers.segments import store as segment_store

_schedule, _link, _firing = table_of(Schedule), table_of(ScheduleSegment), table_of(ScheduleRun)
_segment, _issue = table_of(Segment), table_of(Issue)
_NAME_LENGTH = 64
#: As issues spell it (docs/reference/issue-format.md).
_SERIES = re.compile(r"(?=.{1,100}$)[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """A schedule as an operator asks for it."""

    name: str
    series: str
    rule: str
    zone: str
    segments: Sequence[str]
    excluded: Sequence[str] = ()
    own_clock: bool = False
    skips: Sequence[date] = ()
    timetable: Timetable = field(default_factory=Timetable)
    tracking: TrackingChoice = NO_CHOICE


@dataclass(frozen=True, slots=True)
class ScheduleAudience:
    """Names of the segments that a schedule sends to, and of those that it leaves out."""

    segments: tuple[str, ...]
    excluded: tuple[str, ...]


def create(session: Session, wanted: ScheduleOptions, *, by: Actor, now: datetime) -> Schedule:
    """Store a schedule; SendError or SegmentError says what cannot be kept of it."""
    _check_name(wanted.name)
    if session.scalar(select(_schedule.c.id).where(_schedule.c.name == wanted.name)) is not None:
        hint = "Choose another name, or change it: newsletter schedule change"
        raise SendError("a schedule of this name exists", place=wanted.name, hint=hint)
    schedule = Schedule(name=wanted.name, series="", rule="", zone="", created_at=now)
    _write(session, schedule, wanted, now)
    audit.record(session, by, "schedule made", now=now, subject=wanted.name, rule=schedule.rule)
    return schedule


def change(
    session: Session,
    name: str,
    wanted: ScheduleOptions,
    *,
    by: Actor,
    now: datetime,
    base: str | None = None,
) -> Schedule:
    """Make a schedule another; one that is paused stays so. Its name can change too.

    With ``base``, the fingerprint of what was changed, SendError when it is another since.
    """
    _check_name(wanted.name)
    schedule = find(session, name, lock=True)
    if base is not None and base != fingerprint(options_of(session, schedule)):
        hint = "What you typed is not stored. Open it again, and put your change into it."
        raise SendError("somebody changed it since", place=f"schedule {name}", hint=hint)
    taken = select(_schedule.c.id).where(_schedule.c.name == wanted.name)
    if session.scalar(taken.where(_schedule.c.id != schedule.id)) is not None:
        raise SendError("another schedule has this name", place=wanted.name)
    _write(session, schedule, wanted, now)
    audit.record(session, by, "schedule changed", now=now, subject=wanted.name, rule=schedule.rule)
    return schedule


def pause(session: Session, name: str, *, by: Actor, now: datetime) -> None:
    """Let nothing come due."""
    schedule = find(session, name, lock=True)
    if schedule.state != ScheduleState.ACTIVE:
        raise SendError(f"it is {schedule.state} already", place=f"schedule {name}")
    schedule.state = ScheduleState.PAUSED
    schedule.next_at = schedule.next_wall = None
    audit.record(session, by, "schedule paused", now=now, subject=name)


def resume(session: Session, name: str, *, by: Actor, now: datetime) -> datetime | None:
    """Go on with what comes from now on; returns when that is."""
    schedule = find(session, name, lock=True)
    if schedule.state != ScheduleState.PAUSED:
        raise SendError(f"it is {schedule.state}, not paused", place=f"schedule {name}")
    schedule.state = ScheduleState.ACTIVE
    next_run.set_next_run(schedule, next(next_run.upcoming(schedule, after=now), None))
    audit.record(session, by, "schedule resumed", now=now, subject=name)
    return schedule.next_at


def skip(
    session: Session, name: str, days: Iterable[date], *, by: Actor, now: datetime
) -> list[date]:
    """Leave out these days, or the next one that is due if none is given; returns them."""
    schedule, days = find(session, name, lock=True), list(days)
    left_out = {date.fromisoformat(day) for day in schedule.skips}
    if not days:
        coming = islice(next_run.upcoming(schedule, after=now), next_run.SOON)
        following = next((one for one in coming if not next_run.skips(schedule, one)), None)
        if following is None:
            raise SendError("nothing of it is due that could be skipped", place=f"schedule {name}")
        days = [following.wall.date()]
    if len(left_out.union(days)) > recurrence.MOST_SKIPS:
        raise SendError("too many days are left out", place=f"schedule {name}")
    schedule.skips = _as_text(left_out.union(days))
    said = ", ".join(_as_text(days))
    audit.record(session, by, "schedule skips", now=now, subject=name, days=said[:300])
    return sorted(days)


def unskip(session: Session, name: str, days: Iterable[date], *, by: Actor, now: datetime) -> None:
    """Send on these days after all."""
    schedule, named = find(session, name, lock=True), _as_text(days)
    if unknown := [day for day in named if day not in schedule.skips]:
        raise SendError(f"it does not skip {', '.join(unknown)}", place=f"schedule {name}")
    schedule.skips = [day for day in schedule.skips if day not in named]
    said = ", ".join(named)
    audit.record(session, by, "schedule skips no more", now=now, subject=name, days=said[:300])


def remove(session: Session, name: str, *, by: Actor, now: datetime) -> None:
    """Remove a schedule and what is known of its due times; sends that it made stay."""
    schedule = find(session, name, lock=True)
    session.execute(delete(_schedule).where(_schedule.c.id == schedule.id))
    session.expunge(schedule)
    audit.record(session, by, "schedule removed", now=now, subject=name, rule=schedule.rule)


def find(session: Session, name: str, *, lock: bool = False) -> Schedule:
    """The schedule of this name; SendError when there is none."""
    wanted = select(Schedule).where(_schedule.c.name == name)
    if lock:
        wanted = wanted.with_for_update().execution_options(populate_existing=True)
    # PostgreSQL knows no such character.
    schedule = None if "\0" in name else session.scalar(wanted)
    if schedule is None:
        hint = "See newsletter schedule list."
        raise SendError("there is no such schedule", place=f"schedule {name}", hint=hint)
    return schedule


def listed(session: Session) -> list[tuple[Schedule, ScheduleAudience, ScheduleRun | None]]:
    """All schedules by name, with their segments and what became of the last due time."""
    latest = (
        select(_firing.c.schedule_id, func.max(_firing.c.due_at).label("due_at"))
        .group_by(_firing.c.schedule_id)
        .subquery()
    )
    is_latest = (_firing.c.schedule_id == latest.c.schedule_id) & (
        _firing.c.due_at == latest.c.due_at
    )
    last = {
        one.schedule_id: one for one in session.scalars(select(ScheduleRun).join(latest, is_latest))
    }
    return [
        (schedule, audience(session, schedule.id), last.get(schedule.id))
        for schedule in session.scalars(select(Schedule).order_by(_schedule.c.name)).all()
    ]


def goes_to_all(session: Session, schedule_id: int) -> bool:
    """Whether it sends to the whole publication, or to a topic: what it sends is public then."""
    to, without = (
        [segment_store.find(session, name).expression for name in names]
        for names in astuple(audience(session, schedule_id))
    )
    return archive_queries.is_for_all(to, excluded=without, topics=())


def audience(session: Session, schedule_id: int) -> ScheduleAudience:
    """Whom a schedule sends to."""
    rows = session.execute(
        select(_segment.c.name, _link.c.excluded)
        .join(_link, _link.c.segment_id == _segment.c.id)
        .where(_link.c.schedule_id == schedule_id)
        .order_by(_segment.c.name)
    ).all()
    return ScheduleAudience(
        tuple(row.name for row in rows if not row.excluded),
        tuple(row.name for row in rows if row.excluded),
    )


def next_up(session: Session, *, limit: int = 5) -> list[tuple[datetime, Schedule]]:
    """The schedules by which something goes out next, each with when that is."""
    active = select(Schedule).where(_schedule.c.state == ScheduleState.ACTIVE)
    found = [(next_run.next_send(one), one) for one in session.scalars(active).all()]
    coming = [(at, one) for at, one in found if at is not None]
    return sorted(coming, key=lambda pair: (pair[0], pair[1].name))[:limit]


def maker_of(session: Session, send_id: int) -> Schedule | None:
    """The schedule that made a send; None where somebody did."""
    made = select(_firing.c.schedule_id).where(_firing.c.send_id == send_id)
    return session.scalar(select(Schedule).where(_schedule.c.id.in_(made)))


def options_of(session: Session, schedule: Schedule) -> ScheduleOptions:
    """What would have to be asked for to get this schedule."""
    those = audience(session, schedule.id)
    return ScheduleOptions(
        name=schedule.name,
        series=schedule.series,
        rule=schedule.rule,
        zone=schedule.zone,
        segments=those.segments,
        excluded=those.excluded,
        own_clock=schedule.own_clock,
        skips=[date.fromisoformat(day) for day in schedule.skips],
        timetable=Timetable.from_json(schedule.timetable),
        tracking=TrackingChoice(schedule.track_clicks, schedule.track_opens),
    )


def fingerprint(wanted: ScheduleOptions) -> str:
    """By which one is told from what somebody else made of it meanwhile."""
    return hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]


def runs(session: Session, schedule_id: int, *, limit: int = 20) -> Sequence[ScheduleRun]:
    """What became of its due times, the latest first."""
    return session.scalars(
        select(ScheduleRun)
        .where(_firing.c.schedule_id == schedule_id)
        .order_by(_firing.c.due_at.desc())
        .limit(limit)
    ).all()


def recent_failures(
    session: Session, *, since: datetime, limit: int
) -> list[tuple[str, datetime, str]]:
    """(schedule, due time, reason) of the latest runs that should have sent and did not."""
    rows = session.execute(
        select(_schedule.c.name, _firing.c.due_at, _firing.c.reason)
        .join(_schedule, _schedule.c.id == _firing.c.schedule_id)
        .where(
            _firing.c.due_at > since,
            _firing.c.outcome.in_([RunOutcome.MISSED, RunOutcome.FAILED]),
        )
        .order_by(_firing.c.due_at.desc())
        .limit(limit)
    )
    return [(row.name, row.due_at, row.reason) for row in rows]


def known_series(session: Session) -> list[str]:
    """Series of the issues that there are."""
    return list(session.scalars(select(_issue.c.series).distinct().order_by(_issue.c.series)))


def using_segment(session: Session, name: str) -> Sequence[str]:
    """Names of the schedules that send to this segment or leave it out."""
    return session.scalars(
        select(_schedule.c.name)
        .join(_link, _link.c.schedule_id == _schedule.c.id)
        .join(_segment, _segment.c.id == _link.c.segment_id)
        .where(_segment.c.name == name)
        .order_by(_schedule.c.name)
    ).all()


def _write(session: Session, schedule: Schedule, wanted: ScheduleOptions, now: datetime) -> None:
    _check_series(wanted.series)
    rule = next_run.rule_of(wanted)
    recurrence.find_zone(wanted.zone)
    if rule.once is not None and next(next_run.upcoming(wanted, after=now), None) is None:
        raise SendError("this time is past", place=f"when {rule.text}")
    if wanted.timetable.local_time:
        raise SendError("a schedule has no such pace", place=f"schedule {wanted.name}")
    chosen = {name: segment_store.find(session, name).id for name in wanted.segments}
    excluded = {name: segment_store.find(session, name).id for name in wanted.excluded}
    if not chosen:
        raise SendError("it sends to nobody", place="segments", hint="Name a segment or more.")
    if both := sorted(set(chosen) & set(excluded)):
        raise SendError(f"{', '.join(both)} cannot be sent to and left out", place="segments")
    schedule.name, schedule.series, schedule.rule = wanted.name, wanted.series, rule.text
    schedule.zone, schedule.own_clock = wanted.zone.strip(), wanted.own_clock
    schedule.skips = _as_text(wanted.skips)
    schedule.timetable = wanted.timetable.to_json()
    schedule.track_clicks = wanted.tracking.clicks
    schedule.track_opens = wanted.tracking.opens
    if schedule.state != ScheduleState.PAUSED:
        schedule.state = ScheduleState.ACTIVE
        next_run.set_next_run(schedule, next(next_run.upcoming(schedule, after=now), None))
    session.add(schedule)
    session.flush()
    session.execute(delete(_link).where(_link.c.schedule_id == schedule.id))
    rows = [(segment, False) for segment in chosen.values()]
    rows += [(segment, True) for segment in excluded.values()]
    session.execute(
        insert(_link),
        [{"schedule_id": schedule.id, "segment_id": one, "excluded": out} for one, out in rows],
    )


def _check_name(name: str) -> None:
    if not name.strip() or name != name.strip() or len(name) > _NAME_LENGTH or "/" in name:
        hint = f"Choose 1 to {_NAME_LENGTH} characters, without / and without blanks at its ends."
        raise SendError("this cannot be the name of a schedule", place=repr(name[:80]), hint=hint)
    if not name.isprintable():
        raise SendError("its name holds what cannot be printed", place=repr(name[:80]))


def _check_series(series: str) -> None:
    if not _SERIES.fullmatch(series):
        hint = "Write it as the issues do: a-z, 0-9 and single dashes, like weekly-letter."
        raise SendError("this cannot be the name of a series", place=repr(series[:80]), hint=hint)


def _as_text(days: Iterable[date]) -> list[str]:
    return [day.isoformat() for day in sorted(set(days))]
