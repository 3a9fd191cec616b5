"""Tables of what comes by the clock: who holds it, schedules, and what became of each due time."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Index

from newsletter.db.orm import NEVER_AGAIN, Field, Id, Json, Model, one_of


class Lease(Model, table=True):
    """A job for one process at a time, held until ``until`` unless renewed."""

    __tablename__ = "lease"

    name: str = Field(primary_key=True, max_length=40)
    holder: str = Field(max_length=100)
    until: datetime


class ScheduleState(StrEnum):
    """Where a schedule stands."""

    #: It comes due by its rule.
    ACTIVE = "active"
    #: Nothing comes due before an operator resumes it.
    PAUSED = "paused"
    #: Its rule names no time any more: it was for one day, and that is past.
    ENDED = "ended"


class RunOutcome(StrEnum):
    """What became of one due time of a schedule."""

    #: A send was made.
    SENT = "sent"
    #: Everything is in order, and there was nothing to send or nobody to send it to.
    NOTHING = "nothing"
    #: The day stands on the schedule's list of days to leave out.
    SKIPPED = "skipped"
    #: Nothing ran at that time, or for too long after it.
    MISSED = "missed"
    #: A send could not be made; the reason says what stands in the way.
    FAILED = "failed"


class Schedule(Model, table=True):
    """When the next approved issue of a series goes out, and to whom."""

    __tablename__ = "schedule"
    __table_args__ = (one_of("state", ScheduleState), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    name: str = Field(max_length=64, unique=True)
    series: str = Field(max_length=100)
    #: newsletter.scheduling.recurrence.Rule, as written.
    rule: str = Field(max_length=100)
    #: The IANA zone on whose clock the rule is read.
    zone: str = Field(max_length=64)
    #: Read the rule on each person's own clock instead.
    own_clock: bool = False
    #: Days (ISO, on the clock of the rule) on which nothing goes out.
    skips: list[str] = Field(default_factory=list, sa_type=Json)
    #: newsletter.sending.pacing.timetable.Timetable as JSON: how its sends are paced.
    timetable: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: What its sends say of measuring clicks and opens; None leaves it to issue and settings.
    track_clicks: bool | None = None
    track_opens: bool | None = None
    state: str = Field(default=ScheduleState.ACTIVE, max_length=10)
    #: When it is due next, days to leave out among them; None while it is not active.
    next_at: datetime | None = None
    #: What the clock of the rule shows then. A government may move the moment of it; None where
    #: no version has written it yet.
    next_wall: datetime | None = Field(default=None, sa_type=DateTime)
    created_at: datetime


class ScheduleSegment(Model, table=True):
    """A segment that a schedule sends to, or leaves out: it cannot be deleted meanwhile."""

    __tablename__ = "schedule_segment"

    schedule_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="schedule.id", ondelete="CASCADE"
    )
    segment_id: int = Field(primary_key=True, sa_type=Id, foreign_key="segment.id", index=True)
    excluded: bool = False


class ScheduleRun(Model, table=True):
    """One due time of a schedule and what became of it: the key lets it come only once."""

    __tablename__ = "schedule_run"
    __table_args__ = (one_of("outcome", RunOutcome), Index(None, "due_at"))

    schedule_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="schedule.id", ondelete="CASCADE"
    )
    due_at: datetime = Field(primary_key=True)
    #: When it was dealt with.
    at: datetime
    outcome: str = Field(max_length=10)
    #: Why nothing was sent, in the operator's words.
    reason: str = Field(default="", max_length=1000)
    send_id: int | None = Field(default=None, sa_type=Id, foreign_key="send.id", index=True)
