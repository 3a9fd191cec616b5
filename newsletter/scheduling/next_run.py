"""When a schedule comes due: its rule, on its clock."""

from collections.abc import Iterator
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

#: What goes out next, or is to be skipped next, is looked for among so many due times.
SOON = 1000
#: What is asked for after a moment does not contain it.
INSTANT = timedelta(microseconds=1)


class Timed(Protocol):
    """A schedule, stored or asked for."""

    @property
    def rule(self) -> str: ...

    @property
    def zone(self) -> str: ...

    @property
    def own_clock(self) -> bool: ...


def due(session: Session, *, now: datetime) -> list[int]:
    """Schedules whose time has come, the one that has waited longest first."""
    wanted = (
        select(_schedule.c.id)
        .where(_schedule.c.state == ScheduleState.ACTIVE, _schedule.c.next_at <= now)
        .order_by(_schedule.c.next_at, _schedule.c.id)
    )
    return list(session.scalars(wanted))


def upcoming(schedule: Timed, *, after: datetime) -> Iterator[Occurrence]:
    """Each time that its rule names after a moment, those on days left out among them."""
    return recurrence.occurrences(rule_of(schedule), zone_of(schedule), after=after)


def coming(schedule: Schedule) -> Iterator[Occurrence]:
    """Each time from the next one on; none while it is not active.

    They are found by what the clock shows: by the moment alone, one that a government has
    made an earlier moment since would be lost, and one that it made a later one come twice.
    """
    if schedule.next_at is None:
        return iter(())
    if schedule.next_wall is None:
        return upcoming(schedule, after=schedule.next_at - INSTANT)
    return recurrence.from_wall(rule_of(schedule), zone_of(schedule), schedule.next_wall)


def next_send(schedule: Schedule) -> datetime | None:
    """When something goes out next: no day that is left out, and None while nothing comes due."""
    soon = islice(coming(schedule), SOON)
    return next((one.due for one in soon if not skips(schedule, one)), None)


def skips(schedule: Schedule, one: Occurrence) -> bool:
    """Whether its day is left out."""
    return one.wall.date().isoformat() in schedule.skips


def rule_of(schedule: Timed) -> RecurrenceRule:
    """When it is due."""
    return recurrence.parse(schedule.rule, place="when")


def zone_of(schedule: Timed) -> ZoneInfo:
    """On whose clock its rule is read: for everybody's own, where each day begins."""
    name = FIRST_ZONE if schedule.own_clock else schedule.zone
    return recurrence.find_zone(name, place="zone")


def set_next_run(schedule: Schedule, following: Occurrence | None) -> None:
    """Set when it is due next; it ends where its rule names no time any more."""
    schedule.next_at = following.due if following else None
    schedule.next_wall = following.wall if following else None
    if following is None:
        schedule.state = ScheduleState.ENDED
