"""Operations on schedules: create, change, pause, resume, skip, remove. Each is audited.

A change counts from the time at which it is made: times before it neither run late nor count as
missed.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from datetime import date, datetime

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

_schedule, _link, _run = table_of(Schedule), table_of(ScheduleSegment), table_of(ScheduleRun)
_segment, _issue = table_of(Segment), table_of(Issue)
_NAME_LENGTH = 64
#: The same as in issues (docs/reference/issue-format.md).
_SERIES = re.compile(r"(?=.{1,100}$)[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """What an operator sets of a schedule."""

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
    """Names of the segments that a schedule sends to, and of those that it excludes."""

    segments: tuple[str, ...]
    excluded: tuple[str, ...]


def create(session: Session, options: ScheduleOptions, *, by: Actor, now: datetime) -> Schedule:
    """Create a schedule; SendError or SegmentError says which option is wrong."""
    _check_name(options.name)
    if session.scalar(select(_schedule.c.id).where(_schedule.c.name == options.name)) is not None:
        hint = "Choose another name, or change that schedule."
        raise SendError("a schedule of this name exists", place=options.name, hint=hint)
    schedule = Schedule(name=options.name, series="", rule="", zone="", created_at=now)
    _write(session, schedule, options, now)
    audit.record(session, by, "schedule created", now=now, subject=options.name, rule=schedule.rule)
    return schedule


def change(
    session: Session,
    name: str,
    options: ScheduleOptions,
    *,
    by: Actor,
    now: datetime,
    base: str | None = None,
) -> Schedule:
    """Change a schedule, and perhaps its name. A paused schedule stays paused.

    ``base`` is the fingerprint of the options that the user saw; SendError when they have changed
    since.
    """
    _check_name(options.name)
    schedule = find(session, name, lock=True)
    if base is not None and base != fingerprint(options_of(session, schedule)):
        hint = "Your change is not saved. Open the schedule again, and make your change there."
        raise SendError(
            "someone else has changed it meanwhile", place=f"schedule {name}", hint=hint
        )
    same_name = select(_schedule.c.id).where(_schedule.c.name == options.name)
    if session.scalar(same_name.where(_schedule.c.id != schedule.id)) is not None:
        raise SendError("another schedule has this name", place=options.name)
    _write(session, schedule, options, now)
    audit.record(session, by, "schedule changed", now=now, subject=options.name, rule=schedule.rule)
    return schedule


def pause(session: Session, name: str, *, by: Actor, now: datetime) -> None:
    """Pause an active schedule."""
    schedule = find(session, name, lock=True)
    if schedule.state != ScheduleState.ACTIVE:
        raise SendError(f"it is {schedule.state} already", place=f"schedule {name}")
    schedule.state = ScheduleState.PAUSED
    schedule.next_at = schedule.next_wall = None
    audit.record(session, by, "schedule paused", now=now, subject=name)


def resume(session: Session, name: str, *, by: Actor, now: datetime) -> datetime | None:
    """Resume a paused schedule from now on; returns when it is due next."""
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
    """Skip these days, or without any the next day on which it runs; returns them."""
    schedule, days = find(session, name, lock=True), list(days)
    skipped = {date.fromisoformat(day) for day in schedule.skips}
    if not days:
        upcoming = next_run.upcoming(schedule, after=now)
        following = next_run.first_not_skipped(schedule, upcoming)
        if following is None:
            raise SendError("it has no coming day to skip", place=f"schedule {name}")
        days = [following.wall.date()]
    if len(skipped.union(days)) > recurrence.MAX_SKIPS:
        hint = f"A schedule can skip {recurrence.MAX_SKIPS:,} days at most."
        raise SendError("it would skip too many days", place=f"schedule {name}", hint=hint)
    schedule.skips = _as_text(skipped.union(days))
    detail = ", ".join(_as_text(days))[:300]
    audit.record(session, by, "schedule days skipped", now=now, subject=name, days=detail)
    return sorted(days)


def unskip(session: Session, name: str, days: Iterable[date], *, by: Actor, now: datetime) -> None:
    """Stop skipping these days."""
    schedule, chosen = find(session, name, lock=True), _as_text(days)
    if unknown := [day for day in chosen if day not in schedule.skips]:
        raise SendError(f"it does not skip {', '.join(unknown)}", place=f"schedule {name}")
    schedule.skips = [day for day in schedule.skips if day not in chosen]
    detail = ", ".join(chosen)[:300]
    audit.record(session, by, "schedule days restored", now=now, subject=name, days=detail)


def remove(session: Session, name: str, *, by: Actor, now: datetime) -> None:
    """Delete a schedule and its runs. Its sends stay."""
    schedule = find(session, name, lock=True)
    session.execute(delete(_schedule).where(_schedule.c.id == schedule.id))
    session.expunge(schedule)
    audit.record(session, by, "schedule removed", now=now, subject=name, rule=schedule.rule)


def find(session: Session, name: str, *, lock: bool = False) -> Schedule:
    """The schedule of this name; SendError when there is none."""
    query = select(Schedule).where(_schedule.c.name == name)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    # PostgreSQL refuses NUL characters.
    schedule = None if "\0" in name else session.scalar(query)
    if schedule is None:
        hint = "The list of schedules has all names."
        raise SendError("there is no such schedule", place=f"schedule {name}", hint=hint)
    return schedule


def list_all(session: Session) -> list[tuple[Schedule, ScheduleAudience, ScheduleRun | None]]:
    """All schedules by name, each with its segments and its last run."""
    latest = (
        select(_run.c.schedule_id, func.max(_run.c.due_at).label("due_at"))
        .group_by(_run.c.schedule_id)
        .subquery()
    )
    is_latest = (_run.c.schedule_id == latest.c.schedule_id) & (_run.c.due_at == latest.c.due_at)
    last = {
        one.schedule_id: one for one in session.scalars(select(ScheduleRun).join(latest, is_latest))
    }
    return [
        (schedule, audience(session, schedule.id), last.get(schedule.id))
        for schedule in session.scalars(select(Schedule).order_by(_schedule.c.name)).all()
    ]


def goes_to_all(session: Session, schedule_id: int) -> bool:
    """Whether it sends to the whole publication or a topic. Then its issues are public."""
    chosen, excluded = (
        [segment_store.find(session, name).expression for name in names]
        for names in astuple(audience(session, schedule_id))
    )
    return archive_queries.is_for_all(chosen, excluded=excluded, topics=())


def audience(session: Session, schedule_id: int) -> ScheduleAudience:
    """The segments that a schedule sends to and excludes."""
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
    """The next times at which schedules send, and the schedule of each."""
    active = select(Schedule).where(_schedule.c.state == ScheduleState.ACTIVE)
    next_times = [(next_run.next_send(one), one) for one in session.scalars(active).all()]
    pairs = [(at, one) for at, one in next_times if at is not None]
    return sorted(pairs, key=lambda pair: (pair[0], pair[1].name))[:limit]


def creator_of(session: Session, send_id: int) -> Schedule | None:
    """The schedule that created a send; None where a user did."""
    ids = select(_run.c.schedule_id).where(_run.c.send_id == send_id)
    return session.scalar(select(Schedule).where(_schedule.c.id.in_(ids)))


def options_of(session: Session, schedule: Schedule) -> ScheduleOptions:
    """The options of a stored schedule."""
    segments = audience(session, schedule.id)
    return ScheduleOptions(
        name=schedule.name,
        series=schedule.series,
        rule=schedule.rule,
        zone=schedule.zone,
        segments=segments.segments,
        excluded=segments.excluded,
        own_clock=schedule.own_clock,
        skips=[date.fromisoformat(day) for day in schedule.skips],
        timetable=Timetable.from_json(schedule.timetable),
        tracking=TrackingChoice(schedule.track_clicks, schedule.track_opens),
    )


def fingerprint(options: ScheduleOptions) -> str:
    """A hash of the options, to detect a change by another user."""
    return hashlib.sha256(repr(options).encode()).hexdigest()[:16]


def runs(session: Session, schedule_id: int, *, limit: int = 20) -> Sequence[ScheduleRun]:
    """The runs of a schedule, the latest first."""
    return session.scalars(
        select(ScheduleRun)
        .where(_run.c.schedule_id == schedule_id)
        .order_by(_run.c.due_at.desc())
        .limit(limit)
    ).all()


def recent_failures(
    session: Session, *, since: datetime, limit: int
) -> list[tuple[str, datetime, str]]:
    """(schedule, due time, reason) of the latest runs that should have sent and did not."""
    rows = session.execute(
        select(_schedule.c.name, _run.c.due_at, _run.c.reason)
        .join(_schedule, _schedule.c.id == _run.c.schedule_id)
        .where(
            _run.c.due_at > since,
            _run.c.outcome.in_([RunOutcome.MISSED, RunOutcome.FAILED]),
        )
        .order_by(_run.c.due_at.desc())
        .limit(limit)
    )
    return [(row.name, row.due_at, row.reason) for row in rows]


def known_series(session: Session) -> list[str]:
    """The series of all issues."""
    return list(session.scalars(select(_issue.c.series).distinct().order_by(_issue.c.series)))


def using_segment(session: Session, name: str) -> Sequence[str]:
    """Names of the schedules that send to this segment or exclude it."""
    return session.scalars(
        select(_schedule.c.name)
        .join(_link, _link.c.schedule_id == _schedule.c.id)
        .join(_segment, _segment.c.id == _link.c.segment_id)
        .where(_segment.c.name == name)
        .order_by(_schedule.c.name)
    ).all()


def _write(session: Session, schedule: Schedule, options: ScheduleOptions, now: datetime) -> None:
    _check_series(options.series)
    rule = next_run.rule_of(options)
    recurrence.find_zone(options.zone)
    if rule.once is not None and next(next_run.upcoming(options, after=now), None) is None:
        raise SendError("this time is in the past", place=f"when {rule.text}")
    if options.timetable.local_time:
        message = "a schedule has no local time in its pace"
        hint = "Let the schedule read its rule on each subscriber's own clock instead."
        raise SendError(message, place=f"schedule {options.name}", hint=hint)
    chosen = {name: segment_store.find(session, name).id for name in options.segments}
    excluded = {name: segment_store.find(session, name).id for name in options.excluded}
    if not chosen:
        raise SendError(
            "the schedule has no segment", place="segments", hint="Choose at least one."
        )
    if both := sorted(set(chosen) & set(excluded)):
        message = f"{', '.join(both)} cannot be both sent to and excluded"
        raise SendError(message, place="segments")
    schedule.name, schedule.series, schedule.rule = options.name, options.series, rule.text
    schedule.zone, schedule.own_clock = options.zone.strip(), options.own_clock
    schedule.skips = _as_text(options.skips)
    schedule.timetable = options.timetable.to_json()
    schedule.track_clicks = options.tracking.clicks
    schedule.track_opens = options.tracking.opens
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
        hint = f"Choose 1 to {_NAME_LENGTH} characters, without / and without spaces at its ends."
        raise SendError("this cannot be the name of a schedule", place=repr(name[:80]), hint=hint)
    if not name.isprintable():
        raise SendError("the name has unprintable characters", place=repr(name[:80]))


def _check_series(series: str) -> None:
    if not _SERIES.fullmatch(series):
        hint = "Write it as in the issues: a-z, 0-9 and single hyphens, like weekly-letter."
        raise SendError("this cannot be the name of a series", place=repr(series[:80]), hint=hint)


def _as_text(days: Iterable[date]) -> list[str]:
    return [day.isoformat() for day in sorted(set(days))]
