"""Schedules in the console: what is typed is stored, or comes back with what is wrong with it."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from newsletter.accounts import audit
from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling import schedules
from newsletter.scheduling.models import Schedule
from newsletter.scheduling.schedules import ScheduleAudience
from newsletter.sending.pacing.timetable import Timetable
from subscribers.segments import store as segment_store
from tests.conftest import NOW
from tests.newsletter.scheduling.conftest import approve, everybody, five, make_schedule, tick
from tests.newsletter.sending.conftest import make_send
from tests.newsletter.web.conftest import Browser, Office

__all__ = ["everybody", "five"]

HOME = "/console/schedules"
FORM = {
    "name": "weekly",
    "series": "letter",
    "when": "first tuesday 09:00",
    "zone": "America/New_York",
    "segments": "everybody",
    "skips": "2099-01-06 # a feast\n2099-02-03",
    "per_hour": "10,000",
    "quiet": "22:00-07:00",
    "windows": "mon-fri 08:00-18:00",
}


@pytest.fixture
def editor(office: Office, everybody: str) -> Browser:
    return office.signed_in(Role.APPROVER)


def post(browser: Browser, path: str, **fields: str) -> Any:
    return browser.post(f"{HOME}{path}", **fields)


def stored(database: Engine, name: str = "weekly") -> tuple[Schedule, ScheduleAudience]:
    with reading(database) as session:
        schedule = schedules.find(session, name)
        return schedule, schedules.audience(session, schedule.id)


def test_what_is_typed_is_stored_and_logged(editor: Browser, database: Engine) -> None:
    made = post(editor, "", **FORM)
    assert (made.status_code, made.headers["location"]) == (303, f"{HOME}/1?done=made")
    schedule, audience = stored(database)
    assert (schedule.rule, schedule.zone, schedule.own_clock) == (
        "first tuesday 09:00",
        "America/New_York",
        False,
    )
    assert schedule.skips == ["2099-01-06", "2099-02-03"]
    assert audience == ScheduleAudience(("everybody",), ())
    pace = Timetable.from_json(schedule.timetable)
    assert (pace.per_hour, str(pace.quiet)) == (10_000, "22:00-07:00")
    with reading(database) as session:
        last = audit.entries(session, limit=1)[0]
    assert (last.actor, last.action) == ("approver@example.org", "schedule created")
    page = editor.get(f"{HOME}/1?done=made").text
    assert "At 09:00 on the first Tuesday of the month" in page
    assert "No approved issue in the series letter" in page
    assert "Shows its issues after they are sent" in page
    with transaction(database) as session:
        segment_store.save(session, "some", 'domain == "example.org"', now=datetime.now(UTC))
    assert post(editor, "/1", **FORM | {"number": "1", "segments": "some"}).status_code == 303
    assert "Does not show its issues" in editor.get(f"{HOME}/1").text


def test_the_form_of_a_schedule_stores_what_it_shows(editor: Browser, database: Engine) -> None:
    post(editor, "", **FORM)
    form = editor.get(f"{HOME}/1/edit").text
    for text in ('value="first tuesday 09:00"', "2099-01-06\n2099-02-03", 'value="10000"'):
        assert text in form
    changed = post(editor, "/1", **FORM | {"name": "monthly", "own_clock": "yes", "number": "1"})
    assert changed.headers["location"] == f"{HOME}/1?done=changed"
    assert stored(database, "monthly")[0].own_clock


def test_the_slower_of_two_who_change_a_schedule_overwrites_nothing(
    office: Office, editor: Browser, database: Engine
) -> None:
    post(editor, "", **FORM)
    other = office.signed_in(Role.APPROVER, "other@example.org")

    def opened(browser: Browser) -> dict[str, str]:
        found = re.search(r'name="base" value="(\w{16})"', browser.get(f"{HOME}/1/edit").text)
        assert found is not None
        return FORM | {"number": "1", "base": found[1]}

    mine, theirs = opened(editor), opened(other)
    assert post(other, "/1", **theirs | {"when": "daily 06:00"}).status_code == 303
    answer = post(editor, "/1", **mine | {"when": "daily 08:00"})
    assert answer.status_code == 400
    assert "someone else has changed it meanwhile" in answer.text
    assert 'value="daily 08:00"' in answer.text
    assert stored(database)[0].rule == "daily 06:00"
    assert post(editor, "/1", **opened(editor) | {"when": "daily 08:00"}).status_code == 303
    assert stored(database)[0].rule == "daily 08:00"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("name", "", "cannot be the name of a schedule"),
        ("name", "a\0b", "the name has unprintable characters"),
        ("series", "Our Letter", "cannot be the name of a series"),
        ("when", "* 7 * * *", "more than once an hour"),
        ("when", "whenever", "When: the rule has no time of day"),
        ("when", "9999-12-31 23:30", "the year 9999 is not supported"),
        ("zone", "Mars/Olympus", "Zone: there is no time zone"),
        ("segments", "no\0body", "there is no segment of this name"),
        ("skips", "soon", "“soon” is not a date"),
        ("rate", "fast", "Recipients per second: not a number"),
        ("rate", "nan", "0"),
        ("per_hour", "1.5", "not a whole number"),
        ("per_day", "9" * 60, "not a whole number"),
        ("quiet", "always", "not a time of day"),
        ("windows", "never", "not a weekly sending window"),
    ],
)
def test_a_mistake_is_named_and_nothing_typed_is_lost(
    editor: Browser, database: Engine, field: str, text: str, said: str
) -> None:
    for path in ("", "/1"):
        if path:
            post(editor, "", **FORM)
        answer = post(editor, path, **FORM | {field: text})
        assert answer.status_code == 400
        assert said in answer.text
        assert 'role="alert"' in answer.text
        if field != "name":
            assert 'value="weekly"' in answer.text
        assert "2099-01-06 # a feast" in answer.text or field == "skips"
    with reading(database) as session:
        assert [one.rule for one, *_ in schedules.list_all(session)] == ["first tuesday 09:00"]


def test_a_preview_shows_the_days_and_stores_nothing(editor: Browser, database: Engine) -> None:
    form = FORM | {"when": "last sunday 02:30", "zone": "Europe/Berlin"}
    answer = post(editor, "/preview", **form)
    assert answer.status_code == 200
    assert "At 02:30 on the last Sunday of the month" in answer.text
    # Eight months hold one of the two days at least.
    assert ("The clocks skip 02:30: it is due at 03:00." in answer.text) or (
        "The clocks show 02:30 twice: the first time counts." in answer.text
    )
    wrong = post(editor, "/preview", **form | {"when": "whenever"})
    assert "The rule has no time of day." in wrong.text
    with reading(database) as session:
        assert schedules.list_all(session) == []


def test_viewers_see_everything_and_are_offered_nothing(
    office: Office, editor: Browser, database: Engine
) -> None:
    post(editor, "", **FORM)
    viewer = office.signed_in(Role.VIEWER)
    for path in ("", "/1", "/calendar"):
        page = viewer.get(f"{HOME}{path}")
        assert page.status_code == 200
        assert "/console/schedules/new" not in page.text
        assert f'action="{HOME}' not in page.text
    assert viewer.get(f"{HOME}/1/edit").status_code == 403


def test_days_pauses_and_the_end_of_a_schedule(editor: Browser, database: Engine) -> None:
    post(editor, "", **FORM)
    assert post(editor, "/1/skip", day="2099-03-03").status_code == 303
    assert post(editor, "/1/skip", day="2099-01-06", undo="yes").status_code == 303
    assert stored(database)[0].skips == ["2099-02-03", "2099-03-03"]
    again = post(editor, "/1/skip", day="2099-01-06", undo="yes")
    assert (again.status_code, "It does not skip 2099-01-06." in again.text) == (400, True)
    assert post(editor, "/1/pause").status_code == 303
    assert post(editor, "/1/pause").status_code == 400
    assert "The schedule is paused." in editor.get(f"{HOME}/1").text
    assert post(editor, "/1/resume").status_code == 303
    gone = post(editor, "/1/delete")
    assert gone.headers["location"] == f"{HOME}?done=deleted"
    assert editor.get(f"{HOME}/1").status_code == 404
    for path in ("/1", "/1/pause", f"/{10**30}", f"/{10**30}/delete"):
        assert post(editor, path, **FORM).status_code == 404


def test_the_calendar_shows_what_comes_what_came_and_what_is_sent_by_hand(
    editor: Browser, database: Engine
) -> None:
    make_schedule(database, "digest", skips=[date(2026, 3, 29)])
    approve(database, "first")
    for day in (1, 2, 3, 5):
        tick(database, NOW + timedelta(days=day))
    make_send(database, slug="by-hand", at=NOW + timedelta(days=2))
    march = editor.get(f"{HOME}/calendar?month=2026-03").text
    for words in (
        "nothing to send: no approved issue in series letter",
        "skipped",
        "send, scheduled",
    ):
        assert words in march
    assert "/console/sends/1" in march
    assert march.count("by-hand") == 1
    april = editor.get(f"{HOME}/calendar?month=2026-04").text
    assert "scheduled" in april
    assert "missed" in april or "nothing ran" in april
    assert "month=2026-03" in april
    assert "month=2026-05" in april
    assert (
        "Nothing is scheduled in this month." in editor.get(f"{HOME}/calendar?month=2001-01").text
    )
    for month in ("2026-13", "1026-01", "2026-1", "x", "20260101"):
        assert editor.get(f"{HOME}/calendar?month={month}").status_code == 400


def test_the_overview_says_what_comes_next_and_a_send_what_made_it(
    editor: Browser, database: Engine
) -> None:
    now = datetime.now(UTC)
    make_schedule(database, "morning digest", "daily 06:30", series="digest", now=NOW)
    make_schedule(database, "paused one", "daily 06:30", now=now)
    with transaction(database) as session:
        schedules.pause(session, "paused one", by=COMMAND_LINE, now=now)
    approve(database, "first", series="digest")
    tick(database, NOW + timedelta(days=1))
    overview = editor.get("/console/").text
    assert f'<a class="strong" href="{HOME}/1">morning digest</a>' in overview
    assert "the next issue of digest" in overview
    assert "paused one" not in overview
    assert f'<a href="{HOME}/1">morning digest</a>' in editor.get("/console/sends/1").text
    make_send(database, slug="by-hand", at=NOW)
    assert "morning digest" not in editor.get("/console/sends/2").text


def test_a_time_on_everybodys_own_clock_stands_on_its_own_day(
    editor: Browser, database: Engine
) -> None:
    later = datetime.now(UTC) + timedelta(days=40)
    day = later.replace(day=10).date()
    make_schedule(database, rule=f"{day} 09:00", own_clock=True, now=datetime.now(UTC))
    page = editor.get(f"{HOME}/calendar?month={day:%Y-%m}").text
    assert f'<time datetime="{day}T09:00">09:00</time>' in page
    assert "scheduled, local time" in page


def test_names_and_reasons_are_words_and_no_markup(editor: Browser, database: Engine) -> None:
    hostile = "<script>alert(1)</script>".replace("/", "\\")
    with transaction(database) as session:
        segment_store.save(session, hostile, "", now=NOW)
    post(editor, "", **FORM | {"name": hostile, "segments": hostile, "when": "daily 07:00"})
    number = stored(database, hostile)[0].id
    for path in ("", "/new", f"/{number}", f"/{number}/edit", "/calendar"):
        page = editor.get(f"{HOME}{path}").text
        assert "&lt;script&gt;" in page
        assert "<script>alert" not in page
    with transaction(database) as session:
        schedules.remove(session, hostile, by=COMMAND_LINE, now=NOW)
