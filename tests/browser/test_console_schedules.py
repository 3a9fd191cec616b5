"""Schedules in a real browser: made with the keyboard alone, looked at, skipped, paused."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import Engine

from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from newsletter.issues.store import COMMAND_LINE
from newsletter.scheduling import schedules
from subscribers.segments import store as segment_store
from tests.browser.console import RunningService, sound
from tests.conftest import add_person
from tests.newsletter.scheduling.conftest import approve, make_schedule, tick

pytestmark = pytest.mark.browser

NOW = datetime.now(UTC)


def furnish(database: Engine) -> None:
    """Segments, issues, and schedules with a past of every kind."""
    with transaction(database) as session:
        for n in range(5):
            add_person(session, f"p{n}@example.org", name=f"P{n}")
        for name in ("everybody", "engineers", "customers"):
            segment_store.save(session, name, "", now=NOW)
    began = NOW - timedelta(days=9)
    make_schedule(
        database,
        "morning digest",
        "daily 06:30",
        "Europe/Berlin",
        series="digest",
        now=began,
        skips=[(NOW + timedelta(days=3)).date()],
    )
    make_schedule(database, "weekly letter", "tue 09:00", "America/New_York", now=began)
    make_schedule(
        database,
        "monthly, everywhere",
        "first tuesday 09:00",
        "UTC",
        own_clock=True,
        excluded=["customers"],
        now=NOW,
    )
    for n in range(3):
        approve(database, f"digest-{n}", series="digest", now=began)
    for hour in range(0, 9 * 24, 3):
        if not 100 < hour < 150:  # the machine was down
            tick(database, began + timedelta(hours=hour))
    approve(database, "digest-next", series="digest", now=NOW)


@pytest.fixture(scope="module")
def service(service: RunningService) -> RunningService:
    furnish(service.parts.database)
    return service


@pytest.fixture
def role() -> Role:
    return Role.APPROVER


@pytest.fixture
def tab(tab: Page, service: RunningService) -> Page:
    tab.goto(f"{service.url}/console/schedules")
    return tab


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("", "schedules"),
        ("/calendar", "calendar"),
        ("/new", "schedule-new"),
        ("/1", "schedule"),
        ("/3/edit", "schedule-edit"),
    ],
)
def test_each_page_is_sound_at_every_width(
    tab: Page, service: RunningService, path: str, name: str
) -> None:
    tab.goto(f"{service.url}/console/schedules{path}")
    sound(tab, name)


def test_a_schedule_is_made_with_the_keyboard_alone(tab: Page, service: RunningService) -> None:
    tab.keyboard.type("gc" if tab.locator('[data-key="c"]').count() else "")
    tab.get_by_role("link", name="New schedule").focus()
    # Loaded with its scripts, which listen to what is typed.
    with tab.expect_navigation(wait_until="load"):
        tab.keyboard.press("Enter")
    tab.get_by_label("Name").focus()
    for text in ("keys", "letter", "last sunday 02:30"):
        tab.keyboard.type(text)
        tab.keyboard.press("Tab")
    # Without a click, the times of the rule stand beside the form.
    expect(tab.get_by_text("At 02:30 on the last Sunday of the month")).to_be_visible()
    tab.keyboard.press("Control+a")
    tab.keyboard.type("Europe/Berlin")
    tab.keyboard.press("Tab")
    expect(tab.get_by_text(re.compile("The clocks (skip|show) 02:30")).first).to_be_visible()
    tab.get_by_role("group", name="Segments").get_by_label("everybody").focus()
    tab.keyboard.press("Space")
    tab.get_by_role("button", name="Create schedule").focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("status")).to_have_text("Schedule created.")
    expect(tab.get_by_role("heading", name="keys", exact=True)).to_be_visible()
    with transaction(service.parts.database) as session:
        made = schedules.find(session, "keys")
        assert (made.rule, made.zone) == ("last sunday 02:30", "Europe/Berlin")
        schedules.remove(session, "keys", by=COMMAND_LINE, now=NOW)


def test_the_times_follow_what_is_typed_while_they_are_asked_for(
    tab: Page, service: RunningService
) -> None:
    tab.goto(f"{service.url}/console/schedules/new")
    held: list[Route] = []
    tab.route("**/console/schedules/preview", lambda route: held.append(route), times=1)
    tab.get_by_label("Name").fill("keys")
    with tab.expect_request("**/console/schedules/preview"):
        tab.keyboard.press("Tab")
    tab.get_by_label("When", exact=True).fill("last sunday 02:30")
    tab.keyboard.press("Tab")
    # The answer to the name alone comes only after the rule was typed.
    for route in held:
        route.continue_()
    expect(tab.get_by_text("At 02:30 on the last Sunday of the month")).to_be_visible()


def test_what_is_typed_is_not_lost_by_a_mistake(tab: Page, service: RunningService) -> None:
    tab.goto(f"{service.url}/console/schedules/new")
    tab.get_by_label("Name").fill("mine")
    tab.get_by_label("Series").fill("letter")
    tab.get_by_label("When", exact=True).fill("* 7 * * *")
    tab.get_by_role("group", name="Segments").get_by_label("engineers").check()
    tab.get_by_role("button", name="Create schedule").click()
    expect(tab.get_by_role("alert")).to_contain_text(
        "When: the rule would run more than once an hour."
    )
    assert tab.get_by_label("Name").input_value() == "mine"
    expect(tab.get_by_role("group", name="Segments").get_by_label("engineers")).to_be_checked()


def test_the_calendar_goes_from_month_to_month_and_leads_to_what_stands_there(
    tab: Page, service: RunningService
) -> None:
    tab.goto(f"{service.url}/console/schedules/calendar")
    grid = tab.get_by_role("table")
    expect(grid.locator('[aria-current="date"]')).to_have_count(1)
    assert grid.get_by_role("link", name="morning digest").count() > 2
    tab.locator('[rel="next"]').click()
    following = (NOW.replace(day=1) + timedelta(days=32)).strftime("%B %Y")
    expect(tab.get_by_role("heading", name=following)).to_be_visible()
    tab.locator('[rel="prev"]').click()
    grid.get_by_role("link", name="morning digest").last.click()
    expect(tab).to_have_url(re.compile(r"/console/schedules/1$"))


def test_a_day_is_left_out_and_the_schedule_paused_and_resumed(
    tab: Page, service: RunningService
) -> None:
    tab.goto(f"{service.url}/console/schedules/2")
    tab.get_by_role("button", name=re.compile("^Skip")).first.click()
    expect(tab.get_by_role("status")).to_have_text("Skipped days saved.")
    tab.get_by_role("button", name=re.compile("^Do not skip")).click()
    tab.get_by_role("button", name="Pause").click()
    expect(tab.get_by_role("status")).to_contain_text("paused")
    tab.get_by_role("button", name="Resume").click()
    expect(tab.get_by_role("status")).to_contain_text("resumed")
