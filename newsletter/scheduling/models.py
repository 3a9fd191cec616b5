"""Tables of scheduling: schedules, their segments and their runs."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Index

from newsletter.db.orm import NEVER_AGAIN, Field, Id, Json, Model, one_of


class ScheduleState(StrEnum):
    """The state of a schedule."""

    #: It runs by its rule.
    ACTIVE = "active"
    #: It does not run until an operator resumes it.
    PAUSED = "paused"
    #: Its rule has no further time: it was for one day, which is past.
    ENDED = "ended"


class RunOutcome(StrEnum):
    """The outcome of one run of a schedule."""

    #: It created a send.
    SENT = "sent"
    #: There was no issue to send, or no recipient.
    NOTHING = "nothing"
    #: The day is one of the schedule's days to skip.
    SKIPPED = "skipped"
    #: The service did not run at that time, nor soon enough after it.
    MISSED = "missed"
    #: It could not create a send; the reason says why.
    FAILED = "failed"


class Schedule(Model, table=True):
    """When the next approved issue of a series goes out, and to whom."""

    __tablename__ = "schedule"
    __table_args__ = (one_of("state", ScheduleState), NEVER_AGAIN)

    id: int = Field(default=None, primary_key=True, sa_type=Id)
    name: str = Field(max_length=64, unique=True)
    series: str = Field(max_length=100)
    #: newsletter.scheduling.recurrence.RecurrenceRule, as written.
    rule: str = Field(max_length=100)
    #: The IANA zone on whose clock the rule is read.
    zone: str = Field(max_length=64)
    #: Read the rule on each subscriber's own clock instead.
    own_clock: bool = False
    #: Days (ISO, on the clock of the rule) on which it does not send.
    skips: list[str] = Field(default_factory=list, sa_type=Json)
    #: newsletter.sending.pacing.timetable.Timetable as JSON: how its sends are paced.
    timetable: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    #: Whether its sends measure clicks and opens; None means as the issue or the settings say.
    track_clicks: bool | None = None
    track_opens: bool | None = None
    state: str = Field(default=ScheduleState.ACTIVE, max_length=10)
    #: When it is due next, possibly on a day to skip; None while it is not active.
    next_at: datetime | None = None
    #: The local time of ``next_at``. A government may change the zone, which moves ``next_at`` and
    #: not the local time. None while the schedule is not active.
    next_wall: datetime | None = Field(default=None, sa_type=DateTime)
    created_at: datetime


class ScheduleSegment(Model, table=True):
    """A segment that a schedule sends to or excludes. It cannot be deleted meanwhile."""

    __tablename__ = "schedule_segment"

    schedule_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="schedule.id", ondelete="CASCADE"
    )
    segment_id: int = Field(primary_key=True, sa_type=Id, foreign_key="segment.id", index=True)
    excluded: bool = False


class ScheduleRun(Model, table=True):
    """One time at which a schedule was due, and its outcome. The key lets each time run once."""

    __tablename__ = "schedule_run"
    __table_args__ = (one_of("outcome", RunOutcome), Index(None, "due_at"))

    schedule_id: int = Field(
        primary_key=True, sa_type=Id, foreign_key="schedule.id", ondelete="CASCADE"
    )
    due_at: datetime = Field(primary_key=True)
    #: When it ran.
    at: datetime
    outcome: str = Field(max_length=10)
    #: Why nothing was sent, or why it was late, as the operator reads it.
    reason: str = Field(default="", max_length=1000)
    send_id: int | None = Field(default=None, sa_type=Id, foreign_key="send.id", index=True)
