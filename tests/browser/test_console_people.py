"""Subscribers, imports and segments in a real browser."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.imports.models import ImportJob
from newsletter.tracking.models import EventRow
from subscribers.consent import suppression, topics
from subscribers.models import Consent, Subscriber, Subscription, SuppressionReason
from tests.browser.chromium import complaints, wear
from tests.browser.console import RunningService, sound
from tests.conftest import add_person

pytestmark = pytest.mark.browser

NOW = datetime.now(UTC)
FIRST = (
    "Ada Barbara Claude Dana Edsger Frances Grace Hedy Ivan Jean Ken Lynn Margaret Niklaus".split()
)
LAST = "Lovelace Liskov Shannon Ångström Dijkstra Allen Hopper Lamarr Petrov Bartik".split()


def furnish(session: Session) -> int:
    """A list of some length, and Ada with a history; returns her number."""
    news = topics.save(session, "engineering", name="Engineering", description="Each Tuesday")
    topics.save(session, "careers", name="Careers", description="Now and then")
    for number in range(130):
        first, last = FIRST[number % len(FIRST)], LAST[number % len(LAST)]
        person = add_person(
            session,
            f"{first}.{last}.{number}@example.org".replace("Å", "A").replace("ö", "o"),
            name=f"{first} {last}",
            source=("form:hosted", "import:people.csv")[number % 2],
            created_at=NOW - timedelta(days=number, hours=number),
            confirmed_at=None if number % 17 == 3 else NOW,
            paused_until=NOW + timedelta(days=30) if number % 19 == 5 else None,
        )
        if number % 11 == 2:
            why = list(SuppressionReason)[number % 4]
            suppression.add(session, [person], why, at=NOW, evidence="event 550 no such mailbox")
    ada = add_person(
        session,
        "ada@example.org",
        name="Ada Lovelace",
        source="form:hosted",
        language="en-GB",
        timezone="Europe/London",
        attributes={"plan": "pro", "company": "Analytical Engines", "tags": ["vip", "speaker"]},
        created_at=NOW - timedelta(days=90),
        last_open_at=NOW - timedelta(days=2),
    )
    session.add(Subscription(subscriber_id=ada, topic_id=news.id, since=NOW))
    began = NOW - timedelta(days=90)
    for after, act, wording in (
        (0, "requested", "I want to get this newsletter by email."),
        (4, "confirmed", "I want to get this newsletter by email."),
    ):
        session.add(
            Consent(
                subscriber_id=ada,
                at=began + timedelta(minutes=after),
                act=act,
                source="form:hosted",
                wording=wording,
                ip="192.0.2.7",
            )
        )
    for number, (days, kind, machine, more) in enumerate(
        (
            (30, "delivered", False, {}),
            (30, "open", True, {}),
            (29, "open", False, {}),
            (29, "click", False, {"link": "https://example.com/articles/slow-queries"}),
            (16, "deferred", False, {"raw": '{"response": "451 4.7.1 try again later"}'}),
            (16, "delivered", False, {}),
            (2, "delivered", False, {}),
            (2, "click", True, {"link": "https://example.com/articles/on-call"}),
            (2, "open", False, {}),
        )
    ):
        at = NOW - timedelta(days=days) + timedelta(minutes=number)
        row = {"at": at, "received_at": at, "key": bytes([number] * 16), "raw": "{}"}
        session.add(
            EventRow(**row | {"kind": kind, "subscriber_id": ada, "by_machine": machine} | more)
        )
    return ada


@pytest.fixture(scope="module")
def service(service: RunningService) -> RunningService:
    with transaction(service.parts.database) as session:
        furnish(session)
    return service


@pytest.fixture
def background(service: RunningService) -> Iterator[None]:
    """Whoever works on uploaded lists; the service has no background of its own."""
    importer = service.parts.import_worker()
    importer.start()
    yield
    importer.stop()


def ada(service: RunningService) -> str:
    person = table_of(Subscriber).c
    with transaction(service.parts.database) as session:
        number = session.scalar(select(person.id).where(person.email == "ada@example.org"))
    return f"{service.url}/console/subscribers/{number}"


def test_typing_finds_people_and_states_narrow_them_down(
    service: RunningService, tab: Page
) -> None:
    tab.goto(f"{service.url}/console/subscribers")
    expect(tab.locator("tbody tr")).to_have_count(50)
    tab.keyboard.press("/")
    tab.keyboard.type("ada.")
    expect(tab.locator("tbody tr")).to_have_count(10)
    tab.get_by_role("link", name="Unconfirmed").click()
    expect(tab.get_by_label("Address or name")).to_have_value("ada.")
    for badge in tab.locator("tbody .badge").all_inner_texts():
        assert badge == "Unconfirmed"
    tab.goto(f"{service.url}/console/subscribers")
    tab.get_by_role("link", name="Next page").click()
    expect(tab.get_by_role("link", name="First page")).to_be_visible()
    expect(tab.locator("tbody tr")).to_have_count(50)


def test_the_way_back_shows_what_was_asked_for(service: RunningService, tab: Page) -> None:
    tab.goto(f"{service.url}/console/subscribers")
    field = tab.get_by_label("Address or name")
    for typed, found in (("ada.", 10), ("ada@", 1)):
        field.fill(typed)
        expect(tab.locator("tbody tr")).to_have_count(found)
        # The address follows the list; the way back begins there.
        expect(tab).to_have_url(re.compile(f"q={re.escape(quote(typed))}"))
    for typed, found in (("ada.", 10), ("", 50)):
        tab.go_back()
        expect(tab.locator("tbody tr")).to_have_count(found)
        expect(field).to_have_value(typed)
        # The people are there before the script that goes further.
        tab.wait_for_load_state()
    tab.go_forward()
    expect(tab.locator("tbody tr")).to_have_count(10)
    expect(field).to_have_value("ada.")


def test_nobody_is_left_in_the_browser_after_signing_out(
    service: RunningService, tab: Page
) -> None:
    tab.goto(f"{service.url}/console/subscribers")
    for typed, found in (("ada.", 10), ("zzz", 0)):
        tab.get_by_label("Address or name").fill(typed)
        expect(tab.locator("tbody tr")).to_have_count(found)
        expect(tab).to_have_url(re.compile(f"q={re.escape(typed)}"))
    tab.get_by_role("button", name="Sign out").click()
    expect(tab.get_by_role("heading", name="Sign in")).to_be_visible()
    kept = tab.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])")
    assert "@example.org" not in kept


@pytest.mark.slow
def test_the_list_reads_well_everywhere(service: RunningService, tab: Page) -> None:
    tab.goto(f"{service.url}/console/subscribers")
    sound(tab, "subscribers")


@pytest.mark.slow
def test_a_persons_page_reads_well_everywhere(service: RunningService, tab: Page) -> None:
    tab.goto(ada(service))
    tab.get_by_text("Edit name, topics and attributes").click()
    expect(tab.get_by_role("textbox", name="Attributes")).to_be_visible()
    expect(tab.locator(".moment", has_text="Bot")).to_have_count(2)
    sound(tab, "subscriber")


@pytest.mark.slow
def test_the_form_to_add_somebody_reads_well_everywhere(service: RunningService, tab: Page) -> None:
    tab.goto(f"{service.url}/console/subscribers/add")
    sound(tab, "subscriber-add")


def test_a_list_is_uploaded_looked_at_and_taken_over(
    service: RunningService, tab: Page, background: None, tmp_path: Path
) -> None:
    tab.goto(f"{service.url}/console/subscribers")
    tab.get_by_role("link", name="Import").click()
    sound(tab, "imports")
    lines = [f"reader{n}@example.net,Reader {n},{('pro', 'free')[n % 2]}" for n in range(300)]
    wrong = ["not an address,Nobody,pro", "x@example.net,Zoë,too,many,cells", ",,"]
    people = tmp_path / "Stand in Vienna, May 2026.csv"
    people.write_text("\n".join(["email,name,plan", *lines, *wrong]), encoding="utf-8")
    tab.get_by_label("File", exact=True).set_input_files(people)
    tab.get_by_role("button", name="Upload and check").click()
    # The page goes on by itself, without being loaded again.
    expect(tab.get_by_role("heading", name="Import", exact=True)).to_be_visible()
    expect(tab.locator(".tile", has_text="would be added")).to_contain_text("300")
    expect(tab.get_by_text("not an address", exact=False).first).to_be_visible()
    tab.set_viewport_size({"width": 1440, "height": 900})
    sound(tab, "import-checked")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download all as CSV").click()
    assert "not an address" in download.value.path().read_text()
    tab.get_by_label("Engineering").check()
    tab.get_by_label("Yes, all of them").check()
    tab.get_by_role("button", name="Import", exact=True).click()
    expect(tab.get_by_role("alert")).to_contain_text("What did these people agree to")
    expect(tab.get_by_label("Engineering")).to_be_checked()
    tab.get_by_label("What did they agree to, and where?").fill("Signed up at our stand")
    tab.get_by_role("button", name="Import", exact=True).click()
    expect(tab.get_by_text("Import finished.")).to_be_visible()
    sound(tab, "import-done")
    tab.goto(f"{service.url}/console/subscribers?q=reader77@example.net")
    tab.get_by_role("link", name="reader77@example.net").click()
    expect(tab.get_by_text("Signed up at our stand")).to_be_visible()


def under_way(service: RunningService) -> int:
    """A list that is being imported; returns its number."""
    with transaction(service.parts.database) as session:
        job = ImportJob(
            name="a list.csv",
            size=48_000_000,
            state="running",
            rows=640_000,
            progress=612,
            made_by="owner@example.org",
            made_at=NOW,
            interruptions=1,
        )
        session.add(job)
        session.flush()
        return job.id


def test_an_import_can_be_stopped_by_keyboard(service: RunningService, tab: Page) -> None:
    tab.goto(f"{service.url}/console/subscribers/import/{under_way(service)}")
    stop = tab.get_by_role("button", name="Stop")
    stop.focus()
    for _ in range(2):
        tab.locator("#status").evaluate("status => { status.dataset.seen = 'yes'; }")
        expect(tab.locator("#status[data-seen]")).to_have_count(0)
        expect(stop).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.get_by_text("Stopping")).to_be_visible()


@pytest.mark.slow
def test_progress_reads_well_everywhere(service: RunningService, tab: Page) -> None:
    number = under_way(service)
    tab.goto(f"{service.url}/console/subscribers/import/{number}")
    sound(tab, "import-running")
    with transaction(service.parts.database) as session:
        found = session.get(ImportJob, number)
        assert found is not None
        found.rows, found.state, found.problem = 700_000, "failed", "it broke"
    expect(tab.get_by_text("It broke.")).to_be_visible()


@pytest.mark.slow
def test_the_editor_of_a_segment_counts_while_one_types_and_marks_what_is_wrong(
    service: RunningService, tab: Page
) -> None:
    tab.goto(f"{service.url}/console/segments/new")
    tab.get_by_label("Name").fill("Ada and her like")
    rule = tab.get_by_role("textbox", name="Rule")
    rule.press_sequentially('plan == "pro" and topic("engineering")')
    expect(tab.locator("#preview")).to_contain_text("ada@example.org")
    rule.press_sequentially(" and contry == 3")
    expect(tab.locator("#preview mark")).to_contain_text("contry")
    expect(rule).to_be_focused()
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator("#preview mark")).to_contain_text("contry")
    tab.evaluate("history.replaceState(null, '', '/console/segments/new')")
    expect(tab.get_by_role("textbox", name="Rule")).to_have_value(
        'plan == "pro" and topic("engineering") and contry == 3'
    )
    for scheme in ("light", "dark"):
        wear(tab, scheme)
        assert complaints(tab) == []
        if "SCREENSHOTS" in os.environ:
            folder = Path(os.environ["SCREENSHOTS"])
            tab.screenshot(path=folder / f"console-segment-wrong-1440-{scheme}.png", full_page=True)
    tab.emulate_media(color_scheme="light")
    tab.get_by_role("textbox", name="Rule").fill('plan == "pro" and topic("engineering")')
    tab.get_by_role("button", name="Save").click()
    expect(tab.get_by_text("Segment saved.")).to_be_visible()
    tab.get_by_text("Rule syntax").click()
    sound(tab, "segment")
    tab.goto(f"{service.url}/console/segments")
    expect(tab.get_by_role("link", name="Ada and her like")).to_be_visible()
    sound(tab, "segments")
