"""What goes out in a stretch of days: due times to come and past, and sends made by hand."""

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

_schedule, _firing = table_of(Schedule), table_of(ScheduleRun)
_send, _issue = table_of(Send), table_of(Issue)
#: Zones lie at most so far apart that a day here has begun there.
_APART = timedelta(days=1)


class EntryKind(StrEnum):
    """What an entry is."""

    #: Due later, or due now and about to be dealt with.
    COMING = "coming"
    #: Due later, on a day that is left out.
    SKIPPING = "skipping"
    #: Was due; ``word`` is what became of it.
    FIRED = "fired"
    #: A send that no schedule made; ``word`` is its state.
    SEND = "send"


@dataclass(frozen=True, slots=True)
class UpcomingEntry:
    """One thing on one day."""

    #: What the clock shows: of the zone asked for, or of each person.
    wall: datetime
    kind: EntryKind
    #: The schedule's name, or the issue's slug.
    title: str
    word: str = ""
    #: Why nothing went out, or what a change of clocks does.
    reason: str = ""
    own_clock: bool = False
    schedule_id: int | None = None
    send_id: int | None = None


def upcoming_entries(
    session: Session, first: date, last: date, *, zone: ZoneInfo, now: datetime
) -> list[UpcomingEntry]:
    """All that stands on these days (both included) on the clock of a zone, in order."""
    begin = datetime.combine(first, time.min, zone).astimezone(UTC) - _APART
    end = datetime.combine(last, time.max, zone).astimezone(UTC) + _APART
    found = [
        *_fired(session, begin, end, zone),
        *_coming(session, begin, end, zone, now),
        *_by_hand(session, begin, end, zone),
    ]
    within = [entry for entry in found if first <= entry.wall.date() <= last]
    return sorted(within, key=lambda entry: (entry.wall, entry.title))


def _fired(
    session: Session, begin: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[UpcomingEntry]:
    rows = session.execute(
        select(_firing, _schedule.c.name, _schedule.c.own_clock)
        .join(_schedule, _schedule.c.id == _firing.c.schedule_id)
        .where(_firing.c.due_at.between(begin, end))
    )
    for row in rows:
        yield UpcomingEntry(
            _wall(row.due_at, zone, own_clock=row.own_clock),
            EntryKind.FIRED,
            row.name,
            word=row.outcome,
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
        # What was due before and was not dealt with yet still comes.
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


def _by_hand(
    session: Session, begin: datetime, end: datetime, zone: ZoneInfo
) -> Iterator[UpcomingEntry]:
    by_schedule = select(_firing.c.send_id).where(_firing.c.send_id.is_not(None))
    rows = session.execute(
        select(_send.c.id, _send.c.state, _send.c.scheduled_for, _send.c.reason, _issue.c.slug)
        .join(_issue, _issue.c.id == _send.c.issue_id)
        .where(_send.c.scheduled_for.between(begin, end), _send.c.id.not_in(by_schedule))
    )
    for row in rows:
        wall = _wall(row.scheduled_for, zone, own_clock=False)
        yield UpcomingEntry(wall, EntryKind.SEND, row.slug, row.state, row.reason, send_id=row.id)


def _wall(moment: datetime, zone: ZoneInfo, *, own_clock: bool) -> datetime:
    shown = ZoneInfo(FIRST_ZONE) if own_clock else zone
    return moment.astimezone(shown).replace(tzinfo=None)
