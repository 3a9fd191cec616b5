"""The calendar of sends: past and coming times of schedules, and sends by users."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import select

from newsletter.db.orm import Session, table_of
from newsletter.issues.models import Issue
from newsletter.scheduling import next_run
from newsletter.scheduling.models import Schedule, ScheduleRun, ScheduleState
from newsletter.sending.models import Send
from newsletter.sending.pacing.sending_windows import FIRST_ZONE

_schedule, _run = table_of(Schedule), table_of(ScheduleRun)
_send, _issue = table_of(Send), table_of(Issue)
#: Local dates of two zones differ by at most this much, so a wider range contains them all.
_MARGIN = timedelta(days=1)


class EntryKind(StrEnum):
    """The kind of a calendar entry."""

    #: A schedule is due later, or due now and about to run.
    COMING = "coming"
    #: A schedule is due later, on a day to skip.
    SKIPPING = "skipping"
    #: A schedule ran; ``status`` is the outcome.
    RUN = "run"
    #: A send that no schedule created; ``status`` is its state.
    SEND = "send"


@dataclass(frozen=True, slots=True)
class UpcomingEntry:
    """One entry of the calendar."""

    #: The local time, in the calendar's zone or on each subscriber's own clock.
    wall: datetime
    kind: EntryKind
    #: The schedule's name, or the issue's slug.
    title: str
    status: str = ""
    #: Why nothing was sent, or how a change of clocks affects the time.
    reason: str = ""
    own_clock: bool = False
    schedule_id: int | None = None
    send_id: int | None = None


def upcoming_entries(
    session: Session, first: date, last: date, *, zone: ZoneInfo, now: datetime
) -> list[UpcomingEntry]:
    """The entries from ``first`` to ``last`` (both included) in a zone, in order of time."""
    begin = datetime.combine(first, time.min, zone).astimezone(UTC) - _MARGIN
    end = datetime.combine(last, time.max, zone).astimezone(UTC) + _MARGIN
    candidates = [
        *_runs(session, begin, end, zone),
        *_coming(session, begin, end, zone, now),
        *_sends_by_users(session, begin, end, zone),
    ]
    entries = [entry for entry in candidates if first <= entry.wall.date() <= last]
    return sorted(entries, key=lambda entry: (entry.wall, entry.title))


def _runs(
    session: Session, begin: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[UpcomingEntry]:
    rows = session.execute(
        select(_run, _schedule.c.name, _schedule.c.own_clock)
        .join(_schedule, _schedule.c.id == _run.c.schedule_id)
        .where(_run.c.due_at.between(begin, end))
    )
    for row in rows:
        yield UpcomingEntry(
            _wall(row.due_at, zone, own_clock=row.own_clock),
            EntryKind.RUN,
            row.name,
            status=row.outcome,
            reason=row.reason,
            own_clock=row.own_clock,
            schedule_id=row.schedule_id,
            send_id=row.send_id,
        )


def _coming(
    session: Session, begin: datetime, end: datetime, zone: ZoneInfo, now: datetime
) -> Iterator[UpcomingEntry]:
    active = select(Schedule).where(_schedule.c.state == ScheduleState.ACTIVE)
    for schedule in session.scalars(active).all():
        # A time that is due and has not run yet still comes.
        since = min(now, schedule.next_at or now) - next_run.INSTANT
        for one in next_run.upcoming(schedule, after=max(begin, since)):
            if one.due > end:
                break
            skipped = next_run.skips(schedule, one)
            yield UpcomingEntry(
                _wall(one.due, zone, own_clock=schedule.own_clock),
                EntryKind.SKIPPING if skipped else EntryKind.COMING,
                schedule.name,
                reason=one.note,
                own_clock=schedule.own_clock,
                schedule_id=schedule.id,
            )


def _sends_by_users(
    session: Session, begin: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[UpcomingEntry]:
    by_schedule = select(_run.c.send_id).where(_run.c.send_id.is_not(None))
    rows = session.execute(
        select(_send.c.id, _send.c.state, _send.c.scheduled_for, _send.c.reason, _issue.c.slug)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .where(_send.c.scheduled_for.between(begin, end), _send.c.id.not_in(by_schedule))
    )
    for row in rows:
        wall = _wall(row.scheduled_for, zone, own_clock=False)
        yield UpcomingEntry(wall, EntryKind.SEND, row.slug, row.state, row.reason, send_id=row.id)


def _wall(at: datetime, zone: ZoneInfo, *, own_clock: bool) -> datetime:
    clock = ZoneInfo(FIRST_ZONE) if own_clock else zone
    return at.astimezone(clock).replace(tzinfo=None)
