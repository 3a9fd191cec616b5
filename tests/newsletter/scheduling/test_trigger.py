"""What becomes of a due time: one send, or a reason; never two, never a burst."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, event, insert
from sqlalchemy.exc import IntegrityError

from newsletter.accounts import audit
from newsletter.checking.checker import Checker
from newsletter.checking.finding import Finding
from newsletter.db.engine import open_database, reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling import next_run, schedules, tasks, trigger
from newsletter.scheduling.models import Schedule, ScheduleRun
from newsletter.sending.models import Variant
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.queries import send_status
from subscribers.segments import store as segment_store
from tests.conftest import NOW, add_person
from tests.newsletter.scheduling.calendar_walk import walked
from tests.newsletter.scheduling.conftest import RENDERER, TEXT, approve, make_schedule, rows, tick
from tests.newsletter.scheduling.test_leader_clock import task_context

pytestmark = pytest.mark.both_databases

DAY = timedelta(days=1)
#: Seven o'clock of the day after NOW, which is seven itself.
SEVEN = NOW + DAY


def sends(database: Engine) -> list[tuple[str, datetime]]:
    """Issue and time of each, in order."""
    with reading(database) as session:
        found = send_status.latest_sends(session)
        return [(slug, send.scheduled_for) for send, slug in reversed(found)]


def find(database: Engine, name: str = "weekly") -> Schedule:
    with reading(database) as session:
        return schedules.find(session, name)


def test_each_due_time_takes_the_issue_that_has_waited_longest(database, everybody) -> None:
    schedule = make_schedule(database)
    approve(database, "second", now=NOW + timedelta(minutes=2))
    approve(database, "first", now=NOW + timedelta(minutes=1))
    approve(database, "other", series="digest")
    assert tick(database, SEVEN - timedelta(seconds=1)) == []
    for n in range(3):
        tick(database, SEVEN + n * DAY + timedelta(seconds=1))
    assert sends(database) == [("first", SEVEN), ("second", SEVEN + DAY)]
    found = rows(database, schedule)
    assert [outcome for _, outcome, _, _ in found] == ["sent", "sent", "nothing"]
    assert found[2][2] == "no approved issue in series letter"
    with reading(database) as session:
        last = audit.entries(session, limit=1)[0]
    assert (last.actor, last.action) == ("schedule weekly", "sent nothing")
    assert last.detail == {"reason": "no approved issue in series letter"}


def test_a_schedule_without_any_issue_says_so_and_goes_on(database, everybody) -> None:
    schedule = make_schedule(database, series="never-written")
    tick(database, SEVEN)
    [(_, outcome, reason, send)] = rows(database, schedule)
    assert (outcome, reason, send) == (
        "nothing",
        "no approved issue in series never-written",
        None,
    )
    assert find(database).next_at == SEVEN + DAY


def test_what_was_edited_after_its_approval_is_not_sent(database, everybody) -> None:
    schedule = make_schedule(database)
    approve(database, "first")
    text = TEXT.format(number="changed", slug="first", series="letter")
    with transaction(database) as session:
        store.save(session, parse_issue(text, name="first.md"), by=COMMAND_LINE, now=NOW)
    tick(database, SEVEN)
    assert rows(database, schedule)[0][1] == "nothing"
    with transaction(database) as session:
        approval.request(session, "first", by=COMMAND_LINE, now=NOW)
        approval.approve(session, "first", revision=2, by=COMMAND_LINE, now=NOW)
    tick(database, SEVEN + DAY)
    assert rows(database, schedule)[1][1] == "sent"


def test_one_day_fires_once_and_ends(database, everybody) -> None:
    schedule = make_schedule(database, rule="2026-03-28 09:00", zone="Europe/Berlin")
    approve(database, "first")
    due = datetime(2026, 3, 28, 8, tzinfo=UTC)
    tick(database, due)
    tick(database, due + DAY)
    assert [row[:2] for row in rows(database, schedule)] == [(due, "sent")]
    ended = find(database)
    assert (ended.state, ended.next_at) == ("ended", None)


def test_the_send_has_the_schedules_audience_and_pace(database, everybody) -> None:
    with transaction(database) as session:
        segment_store.save(session, "one", 'email == "p1@example.org"', now=NOW)
    pace = Timetable(per_hour=2)
    make_schedule(database, excluded=("one",), timetable=pace)
    approve(database, "first")
    tick(database, SEVEN)
    with reading(database) as session:
        send = send_status.find(session, 1)
    assert [one["name"] for one in send.segments] == ["everybody"]
    assert [one["name"] for one in send.excluded] == ["one"]
    assert Timetable.from_json(send.timetable) == pace


def test_on_everybodys_own_clock_the_day_begins_where_it_begins_on_earth(
    database, everybody
) -> None:
    schedule = make_schedule(
        database, rule="sat 09:00", zone="Europe/Berlin", own_clock=True, now=NOW
    )
    approve(database, "first")
    due = datetime(2026, 3, 27, 19, tzinfo=UTC)  # Saturday, nine, on Kiritimati
    assert find(database).next_at == due
    tick(database, due)
    with reading(database) as session:
        send = send_status.find(session, 1)
    assert send.timetable["local_time"] == "09:00"
    assert send.timetable["local_date"] == "2026-03-28"
    assert rows(database, schedule)[0][0] == due


def test_days_to_leave_out_are_left_out_and_said(database, everybody) -> None:
    schedule = make_schedule(database, skips=[date(2026, 3, 28)])
    approve(database, "first")
    tick(database, SEVEN)
    tick(database, SEVEN + DAY)
    assert [row[1] for row in rows(database, schedule)] == ["skipped", "sent"]
    assert sends(database) == [("first", SEVEN + DAY)]


@pytest.mark.parametrize(("late", "outcome"), [(5.9, "sent"), (6.1, "missed")])
def test_what_came_while_nothing_ran_is_made_up_for_within_the_limit(
    database, everybody, late: float, outcome: str
) -> None:
    schedule = make_schedule(database)
    approve(database, "first")
    tick(database, SEVEN + timedelta(hours=late))
    [(due, found, reason, _)] = rows(database, schedule)
    assert (due, found) == (SEVEN, outcome)
    assert "did not run" in reason
    assert find(database).next_at == SEVEN + DAY


def test_after_a_week_without_a_machine_there_is_one_send_and_no_burst(database, everybody) -> None:
    schedule = make_schedule(database)
    for slug in ("first", "second", "third"):
        approve(database, slug)
    back = SEVEN + 6 * DAY + timedelta(hours=2)
    tick(database, back)
    found = rows(database, schedule)
    assert [outcome for _, outcome, _, _ in found] == ["missed"] * 6 + ["sent"]
    assert "a later time has come since" in found[0][2]
    assert "2 h late" in found[-1][2]
    assert sends(database) == [("first", SEVEN + 6 * DAY)]
    assert tick(database, back + timedelta(seconds=1)) == []


def test_the_last_day_that_is_not_left_out_is_the_one_made_up_for(database, everybody) -> None:
    schedule = make_schedule(database, rule="0 * * * *", skips=[date(2026, 3, 28)])
    approve(database, "first")
    tick(database, datetime(2026, 3, 28, 1, 30, tzinfo=UTC))
    assert [row[1] for row in rows(database, schedule)][-3:] == ["sent", "skipped", "skipped"]


def test_what_came_during_a_pause_is_not_made_up_for(database, everybody) -> None:
    schedule = make_schedule(database)
    approve(database, "first")
    with transaction(database) as session:
        schedules.pause(session, "weekly", by=COMMAND_LINE, now=NOW)
    assert tick(database, SEVEN + timedelta(hours=1)) == []
    with transaction(database) as session:
        again = SEVEN + timedelta(hours=2)
        following = schedules.resume(session, "weekly", by=COMMAND_LINE, now=again)
    assert following == SEVEN + DAY
    assert tick(database, again) == []
    assert rows(database, schedule) == []


def test_when_nobody_would_get_it_the_issue_waits_for_the_next_time(database, everybody) -> None:
    with transaction(database) as session:
        segment_store.save(session, "nobody", 'email == "nobody@example.org"', now=NOW)
    schedule = make_schedule(database, to=("nobody",))
    approve(database, "first")
    tick(database, SEVEN)
    [(_, outcome, reason, _)] = rows(database, schedule)
    assert (outcome, sends(database)) == ("nothing", [])
    assert reason.startswith("issue first: nobody would get this issue")
    with transaction(database) as session:
        add_person(session, "nobody@example.org")
    tick(database, SEVEN + DAY)
    assert sends(database) == [("first", SEVEN + DAY)]


class BrokenChecker(Checker):
    """Fails as no check should."""

    def check(self, *args: Any, **more: Any) -> list[Finding]:
        raise RuntimeError("the checker is broken")


def broken() -> Checker:
    usual = RENDERER.checker
    return BrokenChecker(usual.publication, usual.templates, usual.rules)


def without_templates() -> Checker:
    return replace(RENDERER.checker, templates=Path("nowhere"))


@pytest.mark.parametrize(
    ("checker", "said"),
    [(broken, "RuntimeError: the checker is broken"), (without_templates, "there is no template")],
)
def test_whatever_goes_wrong_is_said_and_leaves_nothing_half_made(
    database, everybody, checker: Callable[[], Checker], said: str
) -> None:
    schedule = make_schedule(database)
    approve(database, "first")
    tick(database, SEVEN, replace(RENDERER, checker=checker()))
    [(_, outcome, reason, send)] = rows(database, schedule)
    assert (outcome, send, sends(database)) == ("failed", None, [])
    assert reason.startswith("issue first: ")
    assert said in reason
    tick(database, SEVEN + DAY)
    assert sends(database) == [("first", SEVEN + DAY)]


def test_a_send_that_is_half_made_is_taken_back(database, everybody) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    schedule = make_schedule(database)
    approve(database, "first")
    event.listen(Variant, "before_insert", fail)
    try:
        tick(database, SEVEN)
    finally:
        event.remove(Variant, "before_insert", fail)
    [(_, outcome, reason, send)] = rows(database, schedule)
    assert (outcome, send, sends(database)) == ("failed", None, [])
    assert "the disk is full" in reason


def test_what_a_check_blocks_is_not_sent_and_the_finding_is_said(database, everybody) -> None:
    rules = RENDERER.checker.rules
    subject = rules.subject.model_copy(update={"level": "block"})
    stern = replace(RENDERER.checker, rules=rules.model_copy(update={"subject": subject}))
    schedule = make_schedule(database)
    approve(database, "x" * 100)
    tick(database, SEVEN, replace(RENDERER, checker=stern))
    [(_, outcome, reason, _)] = rows(database, schedule)
    assert (outcome, sends(database)) == ("failed", [])
    assert "checks found errors" in reason
    assert "page of the issue lists all findings" in reason


def test_two_schedules_of_a_series_do_not_take_the_same_issue(database, everybody) -> None:
    make_schedule(database, "one")
    make_schedule(database, "two")
    approve(database, "first")
    fired = tick(database, SEVEN)
    assert [(one.schedule, one.outcome) for one in fired] == [("one", "sent"), ("two", "nothing")]


def at_once(database: Engine, now: datetime, count: int = 3) -> list[str]:
    """So many clocks, each with its own connections, find it due together; what they say."""
    url = database.url.render_as_string(hide_password=False)
    barrier, fired = threading.Barrier(count), []

    def clock(engine: Engine, number: int) -> None:
        with reading(engine) as session:
            due = next_run.due(session, now=now)
        barrier.wait()
        # Each begins with another one: so they meet at the issues, not at the schedules.
        for schedule_id in [*due[number:], *due[:number]]:
            with transaction(engine) as session:
                fired.extend(trigger.run_schedule(session, schedule_id, RENDERER, now=now))

    engines = [open_database(url) for _ in range(count)]
    threads = [threading.Thread(target=clock, args=(e, n)) for n, e in enumerate(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.dispose()
    return [one.outcome for one in fired]


def test_clocks_that_fire_at_once_make_one_send_of_a_due_time(database, everybody) -> None:
    schedule = make_schedule(database)
    for n in range(6):
        approve(database, f"issue-{n}")
    for n in range(5):
        assert at_once(database, SEVEN + n * DAY) == ["sent"]
    assert sends(database) == [(f"issue-{n}", SEVEN + n * DAY) for n in range(5)]
    assert len(rows(database, schedule)) == 5


def test_clocks_that_fire_several_schedules_of_a_series_at_once_send_no_issue_twice(
    database, everybody
) -> None:
    for name in ("one", "two", "three"):
        make_schedule(database, name)
    for slug in ("a", "b"):
        approve(database, slug)
    assert sorted(at_once(database, SEVEN)) == ["nothing", "sent", "sent"]
    assert sorted(slug for slug, _ in sends(database)) == ["a", "b"]


def test_the_key_lets_no_due_time_come_twice(database, everybody) -> None:
    schedule = make_schedule(database)
    tick(database, SEVEN)
    again = {
        "schedule_id": schedule,
        "due_at": SEVEN,
        "at": NOW,
        "outcome": "sent",
        "reason": "",
    }
    with pytest.raises(IntegrityError), transaction(database) as session:
        session.execute(insert(table_of(ScheduleRun)).values(again))


def test_the_job_deals_with_the_others_when_one_cannot_be_dealt_with(
    database, everybody, caplog
) -> None:
    broken, well = make_schedule(database, "a"), make_schedule(database, "b")
    with transaction(database) as session:
        # As another version, or a hand, may have written it.
        schedules.find(session, "a").rule = "whenever"
    approve(database, "first")
    tasks.run_due_schedules(task_context(database, RENDERER), now=SEVEN)
    assert rows(database, broken) == []
    assert rows(database, well)[0][1] == "sent"
    assert "could not run" in caplog.text


def worked_out(database: Engine, next_at: datetime) -> None:
    """As by the zones' data before a government moved seven o'clock to another moment."""
    with transaction(database) as session:
        schedules.find(session, "weekly").next_at = next_at


def test_a_time_that_is_a_later_moment_by_now_waits_for_it(database, everybody) -> None:
    schedule = make_schedule(database)
    approve(database, "first")
    worked_out(database, SEVEN - timedelta(hours=1))
    assert tick(database, SEVEN - timedelta(minutes=59)) == []
    assert (rows(database, schedule), find(database).next_at) == ([], SEVEN)
    tick(database, SEVEN)
    assert sends(database) == [("first", SEVEN)]


@pytest.mark.parametrize("rule", ["daily 07:00", f"{SEVEN:%Y-%m-%d %H:%M}"])
def test_a_time_that_was_an_earlier_moment_is_made_up_for(database, everybody, rule: str) -> None:
    schedule = make_schedule(database, rule=rule)
    approve(database, "first")
    worked_out(database, SEVEN + timedelta(hours=1))
    assert tick(database, SEVEN) == []
    tick(database, SEVEN + timedelta(hours=1))
    [(due, outcome, reason, _)] = rows(database, schedule)
    assert (due, outcome) == (SEVEN, "sent")
    assert reason == "1 h late: the rules of its time zone changed after this time was computed"
    assert find(database).next_at == (SEVEN + DAY if rule == "daily 07:00" else None)


def test_what_was_dealt_with_does_not_come_again_at_a_later_moment(database, everybody) -> None:
    schedule = make_schedule(database, rule="0 */2 * * *", zone="Etc/GMT-1")
    nine, hour = NOW + timedelta(hours=2), timedelta(hours=1)
    tick(database, nine - 2 * hour)
    tick(database, nine)
    with transaction(database) as session:
        # A government puts its clocks back: ten o'clock, which was at nine, is at ten by now.
        schedules.find(session, "weekly").zone = "UTC"
    for hours in (1, 2, 3):
        tick(database, nine + hours * hour)
    assert [due for due, *_ in rows(database, schedule)] == [nine, nine + 3 * hour]


def test_a_schedule_of_an_older_version_goes_on(database, everybody) -> None:
    schedule = make_schedule(database)
    with transaction(database) as session:
        schedules.find(session, "weekly").next_wall = None
    tick(database, SEVEN)
    tick(database, SEVEN + DAY)
    assert [due for due, *_ in rows(database, schedule)] == [SEVEN, SEVEN + DAY]


def set_back(database: Engine, now: datetime) -> None:
    """The clock of the machine shows this again, and somebody pauses and resumes."""
    with transaction(database) as session:
        schedules.pause(session, "weekly", by=COMMAND_LINE, now=now)
        schedules.resume(session, "weekly", by=COMMAND_LINE, now=now)


def test_a_clock_that_is_set_back_brings_no_time_again_that_made_a_send(
    database, everybody
) -> None:
    schedule = make_schedule(database)
    approve(database, "first")
    approve(database, "second")
    tick(database, SEVEN)
    set_back(database, SEVEN - timedelta(minutes=1))
    assert tick(database, SEVEN) == []
    assert find(database).next_at == SEVEN + DAY
    tick(database, SEVEN + DAY)
    assert sends(database) == [("first", SEVEN), ("second", SEVEN + DAY)]
    assert [row[1] for row in rows(database, schedule)] == ["sent", "sent"]


def test_times_that_a_clock_far_ahead_called_missed_come_once_it_is_right(
    database, everybody
) -> None:
    schedule = make_schedule(database)
    approve(database, "first")
    tick(database, SEVEN + 365 * DAY + timedelta(hours=8))
    assert {row[1] for row in rows(database, schedule)} == {"missed"}
    set_back(database, NOW)
    tick(database, SEVEN)
    assert sends(database) == [("first", SEVEN)]
    assert [row[1] for row in rows(database, schedule)[:2]] == ["sent", "missed"]


#: A rule of each kind in each zone; two of them on hours that clocks skip or repeat.
WORLD = {
    "berlin": ("daily 02:30", "Europe/Berlin"),
    "new-york": ("first tuesday 02:00", "America/New_York"),
    "lord-howe": ("45 1 * * 7", "Australia/Lord_Howe"),
    "sao-paulo": ("last day 00:30", "America/Sao_Paulo"),
    "sydney": ("mon-fri 09:15", "Australia/Sydney"),
}
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)


def make_world(database: Engine) -> dict[str, tuple[int, list[datetime]]]:
    """A schedule in each zone: its id, and its due times by the walk."""
    made = {}
    for name, (rule, zone) in WORLD.items():
        schedule = make_schedule(database, name, rule, zone, series=name, now=BEGIN)
        expected = walked(ZoneInfo(zone), BEGIN, END, rule)[rule]
        made[name] = schedule, expected
    return made


@pytest.mark.slow
def test_two_years_of_schedules_in_five_zones_as_an_independent_walk_finds_them(
    database, everybody
) -> None:
    world = make_world(database)
    approved = [f"berlin-{n}" for n in range(3)]
    for n, slug in enumerate(approved):
        approve(database, slug, series="berlin", now=BEGIN + timedelta(minutes=n))
    moment = BEGIN
    while moment < END:
        moment += timedelta(hours=6)
        tick(database, moment)
    for schedule, expected in world.values():
        assert [due for due, *_ in rows(database, schedule)] == expected
    schedule, expected = world["berlin"]
    assert [row[1] for row in rows(database, schedule)] == ["sent"] * 3 + ["nothing"] * (
        len(expected) - 3
    )
    assert sends(database) == list(zip(approved, expected, strict=False))


# Both databases walk through two years above.
@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_two_years_with_a_machine_that_often_does_not_run_lose_nothing_and_burst_never(
    database, everybody
) -> None:
    world, dice = make_world(database), random.Random(2026)
    ticks = [BEGIN]
    while ticks[-1] < END:
        away = dice.choice([timedelta(hours=3), timedelta(hours=5), timedelta(days=4)])
        ticks.append(min(END, ticks[-1] + away * dice.random() + timedelta(seconds=1)))
    for moment in ticks[1:]:
        tick(database, moment)
    for schedule, expected in world.values():
        found = rows(database, schedule)
        assert [due for due, *_ in found] == expected
        dealt = {due: outcome for due, outcome, *_ in found}
        for before, moment in pairwise(ticks):
            came = [due for due in expected if before < due <= moment]
            made_up = [due for due in came if dealt[due] != "missed"]
            within = [due for due in came[-1:] if moment - due <= RENDERER.late_limit]
            assert made_up == within
    assert {slug for slug, _ in sends(database)} == set()
