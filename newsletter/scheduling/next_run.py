"""When a schedule runs: its rule, in its time zone."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import select

from newsletter.db.orm import Session, table_of
from newsletter.scheduling import recurrence
from newsletter.scheduling.models import Schedule, ScheduleState
from newsletter.scheduling.recurrence import Occurrence, RecurrenceRule
from newsletter.sending.pacing.sending_windows import FIRST_ZONE

_schedule = table_of(Schedule)

#: The search for the next time that is not skipped ends after this many times.
MAX_SKIPPED = 1000
#: ``upcoming`` excludes ``after``; subtract this to include it.
INSTANT = timedelta(microseconds=1)


class Timed(Protocol):
    """The fields of a schedule, or of the options for one, that say when it runs."""

    @property
    def rule(self) -> str: ...

    @property
    def zone(self) -> str: ...

    @property
    def own_clock(self) -> bool: ...


def due(session: Session, *, now: datetime) -> list[int]:
    """The IDs of the schedules that are due, the one due longest first."""
    ids = (
        select(_schedule.c.id)
        .where(_schedule.c.state == ScheduleState.ACTIVE, _schedule.c.next_at <= now)
        .order_by(_schedule.c.next_at, _schedule.c.id)
    )
    return list(session.scalars(ids))


def upcoming(schedule: Timed, *, after: datetime) -> Iterator[Occurrence]:
    """Each time of its rule after ``after`` (excluded), including those on days to skip."""
    return recurrence.occurrences(rule_of(schedule), zone_of(schedule), after=after)


def from_next(schedule: Schedule) -> Iterator[Occurrence]:
    """Each time from ``next_at`` on; none while the schedule is not active.

    It continues from the local time. A government may have changed the zone since ``next_at`` was
    computed; from ``next_at`` itself, a time could be lost or come twice.
    """
    if schedule.next_at is None:
        return iter(())
    if schedule.next_wall is None:
        return upcoming(schedule, after=schedule.next_at - INSTANT)
    return recurrence.from_wall(rule_of(schedule), zone_of(schedule), schedule.next_wall)


def next_send(schedule: Schedule) -> datetime | None:
    """When it sends next, days to skip excluded; None while it does not run."""
    following = first_not_skipped(schedule, from_next(schedule))
    return following.due if following else None


def first_not_skipped(schedule: Schedule, occurrences: Iterable[Occurrence]) -> Occurrence | None:
    """The first of these times that is not on a day to skip."""
    candidates = islice(occurrences, MAX_SKIPPED)
    return next((one for one in candidates if not skips(schedule, one)), None)


def skips(schedule: Schedule, occurrence: Occurrence) -> bool:
    """Whether the time is on a day to skip."""
    return occurrence.wall.date().isoformat() in schedule.skips


def rule_of(schedule: Timed) -> RecurrenceRule:
    """The parsed rule; SendError where it is wrong."""
    return recurrence.parse(schedule.rule, place="when")


def zone_of(schedule: Timed) -> ZoneInfo:
    """The zone of its rule; with ``own_clock`` the zone where each day begins first."""
    name = FIRST_ZONE if schedule.own_clock else schedule.zone
    return recurrence.find_zone(name, place="zone")


def set_next_run(schedule: Schedule, following: Occurrence | None) -> None:
    """Set when the schedule is due next; without a next time it ends."""
    schedule.next_at = following.due if following else None
    schedule.next_wall = following.wall if following else None
    if following is None:
        schedule.state = ScheduleState.ENDED
