"""Schedules as operators keep them: each mistake has its answer, each change stands in the log."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.errors import SegmentError, SendError, UserError
from newsletter.operations import segments as segment_operations
from newsletter.scheduling import schedules
from newsletter.scheduling.schedules import ScheduleOptions
from newsletter.sending.pacing import sending_windows
from newsletter.sending.pacing.timetable import Timetable
from subscribers.segments import store as segment_store
from tests.conftest import NOW
from tests.newsletter.scheduling.conftest import approve, make_schedule, rows, tick

ALICE = Actor(None, "alice@example.org")
WEEKLY = ScheduleOptions("weekly", "letter", "mon 09:00", "Europe/Berlin", ("everybody",))
#: NOW is a Friday.
MONDAY = datetime(2026, 3, 30, 7, tzinfo=UTC)


def do(database: Engine, change: Callable[..., Any], *args: Any, **more: Any) -> Any:
    with transaction(database) as session:
        return change(session, *args, by=ALICE, now=more.pop("now", NOW), **more)


@pytest.fixture
def weekly(database: Engine, everybody: str) -> str:
    do(database, schedules.create, WEEKLY)
    return WEEKLY.name


def log(database: Engine) -> list[tuple[str, str, str]]:
    with reading(database) as session:
        return [(row.actor, row.action, row.subject) for row in audit.entries(session)]


def next_at(database: Engine, name: str = "weekly") -> datetime | None:
    with reading(database) as session:
        return schedules.find(session, name).next_at


def test_a_schedule_is_kept_as_it_was_asked_for(database: Engine, weekly: str) -> None:
    with reading(database) as session:
        [(schedule, audience, last)] = schedules.list_all(session)
    assert (schedule.name, schedule.rule, schedule.next_at) == ("weekly", "mon 09:00", MONDAY)
    assert (audience.segments, audience.excluded, last) == (("everybody",), (), None)
    assert log(database) == [("alice@example.org", "schedule created", "weekly")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "cannot be the name of a schedule"),
        ({"name": "a/b"}, "cannot be the name of a schedule"),
        ({"name": "x" * 65}, "cannot be the name of a schedule"),
        ({"name": "a\tb"}, "unprintable characters"),
        ({"series": "Our Letter"}, "cannot be the name of a series"),
        ({"series": ""}, "cannot be the name of a series"),
        ({"rule": "whenever"}, "no time of day"),
        ({"rule": "2026-03-27 07:00"}, "this time is in the past"),
        ({"zone": "Europe/Atlantis"}, "there is no time zone"),
        ({"segments": ()}, "the schedule has no segment"),
        ({"segments": ("nobody",)}, "no segment of this name"),
        ({"excluded": ("nobody",)}, "no segment of this name"),
        ({"excluded": ("everybody",)}, "cannot be both sent to and excluded"),
        (
            {"timetable": Timetable(local_time=sending_windows.parse_time("09:00", place=""))},
            "has no local time in its pace",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(
    database: Engine, everybody: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        do(database, schedules.create, replace(WEEKLY, **change))
    with reading(database) as session:
        assert schedules.list_all(session) == []
    assert log(database) == []


def test_names_are_taken_once(database: Engine, weekly: str) -> None:
    with pytest.raises(SendError, match="a schedule of this name exists"):
        do(database, schedules.create, WEEKLY)
    do(database, schedules.create, replace(WEEKLY, name="daily"))
    with pytest.raises(SendError, match="another schedule has this name"):
        do(database, schedules.change, "daily", WEEKLY)
    for name in ("none", "a\0b"):
        with pytest.raises(SendError, match="there is no such schedule"):
            do(database, schedules.pause, name)


def test_a_change_counts_from_now_on(database: Engine, weekly: str) -> None:
    wanted = replace(WEEKLY, name="daily", rule="daily 06:00", zone="UTC")
    later = NOW + timedelta(days=10)
    do(database, schedules.change, "weekly", wanted, now=later)
    assert next_at(database, "daily") == datetime(2026, 4, 7, 6, tzinfo=UTC)
    assert tick(database, later) == []
    assert log(database)[0] == ("alice@example.org", "schedule changed", "daily")


def test_a_paused_schedule_stays_paused_when_it_is_changed(database: Engine, weekly: str) -> None:
    do(database, schedules.pause, "weekly")
    with pytest.raises(SendError, match="paused already"):
        do(database, schedules.pause, "weekly")
    do(database, schedules.change, "weekly", replace(WEEKLY, rule="daily 06:00"))
    assert next_at(database) is None
    assert do(database, schedules.resume, "weekly", now=NOW + timedelta(days=1)) == datetime(
        2026, 3, 29, 4, tzinfo=UTC
    )
    with pytest.raises(SendError, match="active, not paused"):
        do(database, schedules.resume, "weekly")


def test_a_day_that_passed_during_a_pause_ends_the_schedule(database: Engine, everybody) -> None:
    do(database, schedules.create, replace(WEEKLY, rule="2026-04-01 09:00"))
    do(database, schedules.pause, "weekly")
    assert do(database, schedules.resume, "weekly", now=NOW + timedelta(days=30)) is None
    with reading(database) as session:
        assert schedules.find(session, "weekly").state == "ended"


def test_the_next_day_is_skipped_or_those_named_and_sent_on_after_all(
    database: Engine, weekly: str
) -> None:
    assert do(database, schedules.skip, "weekly", []) == [date(2026, 3, 30)]
    assert do(database, schedules.skip, "weekly", []) == [date(2026, 4, 6)]
    christmas = [date(2026, 12, 28)]
    do(database, schedules.skip, "weekly", christmas)
    do(database, schedules.unskip, "weekly", [date(2026, 4, 6)])
    with pytest.raises(SendError, match="does not skip 2026-04-06"):
        do(database, schedules.unskip, "weekly", [date(2026, 4, 6)])
    with reading(database) as session:
        assert schedules.find(session, "weekly").skips == ["2026-03-30", "2026-12-28"]


def test_removed_it_takes_its_due_times_along_and_leaves_its_sends(
    database: Engine, weekly: str
) -> None:
    approve(database, "first")
    tick(database, MONDAY)
    do(database, schedules.remove, "weekly")
    assert rows(database, 1) == []
    with reading(database) as session:
        assert schedules.list_all(session) == []
        assert session.connection().exec_driver_sql("SELECT count(*) FROM send").scalar() == 1


def test_a_segment_that_a_schedule_uses_is_not_deleted(database: Engine, everybody: str) -> None:
    with transaction(database) as session:
        segment_store.save(session, "insiders", 'email == "p1@example.org"', now=NOW)
    make_schedule(database, "daily", excluded=("insiders",))
    make_schedule(database, "weekly")
    with (
        pytest.raises(SegmentError, match="schedules daily, weekly use it"),
        transaction(database) as session,
    ):
        segment_operations.delete(session, "everybody", by=ALICE, now=NOW)
    with (
        pytest.raises(SegmentError, match="schedule daily uses it"),
        transaction(database) as session,
    ):
        segment_operations.delete(session, "insiders", by=ALICE, now=NOW)
    # Nor by a way that does not ask first: the database refuses it.
    with pytest.raises(SegmentError, match="still in use"), transaction(database) as session:
        segment_store.delete(session, "insiders")
    do(database, schedules.remove, "daily")
    with transaction(database) as session:
        segment_operations.delete(session, "insiders", by=ALICE, now=NOW)
