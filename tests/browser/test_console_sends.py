"""The pages of sends in a real browser: at every width, light and dark, live, and by keyboard."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert, update

from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.issues import approval, store
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.rendering.render import render
from newsletter.sending.ab_testing import ABTest, Measure
from newsletter.sending.ledger import sends
from newsletter.sending.models import Batch, Delivery, Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.pacing.timetable import Timetable
from newsletter.sending.planning.estimate import SendOptions
from newsletter.sending.planning.planner import plan
from newsletter.sending.states import SendState
from newsletter.tracking.models import SendCounter, VariantCounter
from subscribers.models import Subscriber
from subscribers.segments import store as segment_store
from tests.browser.chromium import accessible
from tests.browser.console import RunningService, sound

pytestmark = pytest.mark.browser

PEOPLE = 1200
TITLES = (
    "What broke in March, and what we learned",
    "Queues are not databases",
    "A gentle introduction to consensus",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
)
_send, _batch, _delivery = table_of(Send), table_of(Batch), table_of(Delivery)


@pytest.fixture(scope="module")
def service(service: RunningService) -> RunningService:
    with transaction(service.parts.database) as session:
        now = datetime.now(UTC)
        people = [
            {
                "email": f"reader{n}@example{n % 7}.org",
                "address_hash": n.to_bytes(16, "big"),
                "created_at": now,
                "confirmed_at": now - timedelta(days=n % 90),
                "attributes": {},
                "source": "test",
            }
            for n in range(PEOPLE)
        ]
        session.execute(insert(table_of(Subscriber)), people)
        segment_store.save(session, "everybody", "", now=now, description="Who confirmed")
        segment_store.save(session, "nobody-yet", 'name == "nobody"', now=now)
    return service


@pytest.fixture
def role() -> Role:
    return Role.APPROVER


def approve(session: Session, title: str, slug: str) -> None:
    source = f"---\nsubject: {title}\nslug: {slug}\n---\n\nHello.\n"
    draft, now = parse_issue(source, name="x.md"), datetime.now(UTC)
    saved = store.save(session, draft, by=COMMAND_LINE, now=now)
    if saved.issue.state == "draft":
        approval.request(session, slug, by=COMMAND_LINE, now=now)
        number = saved.revision.number
        approval.approve(session, slug, revision=number, by=COMMAND_LINE, now=now)


def make(
    service: RunningService,
    slug: str,
    *,
    title: str = TITLES[0],
    at: datetime | None = None,
    test: bool = False,
) -> int:
    """A send of an issue of that slug to everybody."""
    now = datetime.now(UTC)
    with transaction(service.parts.database) as session:
        approve(session, title, slug)
        draft = store.draft_of(session, store.revision_of(session, store.find(session, slug)))
        words = render(
            draft, service.parts.publication, templates=service.parts.settings.templates_directory
        )
        options = SendOptions(timetable=Timetable(per_hour=600))
        if test:
            share = ABTest(share=0.2, by=Measure.OPERATOR, wait=timedelta(hours=4))
            options = SendOptions(others=[(draft, words)], test=share)
        made = send_lifecycle.create(
            session,
            draft,
            words,
            ["everybody"],
            by=Actor(None, "operator"),
            at=at or now,
            now=now,
            options=options,
            approved_by=COMMAND_LINE,
        )
        return made.id


def begun(service: RunningService, slug: str, *, title: str = TITLES[0], test: bool = False) -> int:
    """A send under way: six batches handed over, one in doubt, the rest waiting."""
    number = make(service, slug, title=title, test=test)
    now = datetime.now(UTC)
    with transaction(service.parts.database) as session:
        plan(session, number, now=now, batch_size=50)
        of_send = _batch.c.send_id == number
        for state in ("claimed", "in_flight"):
            moved = update(_batch).where(of_send, _batch.c.number <= 7).values(state=state)
            session.execute(moved.values(departed_at=now - timedelta(seconds=40)))
        session.execute(
            update(_batch)
            .where(of_send, _batch.c.number <= 6)
            .values(state="accepted", settled_at=now - timedelta(seconds=30))
        )
        session.execute(
            update(_batch)
            .where(of_send, _batch.c.number == 7)
            .values(state="uncertain", detail="the connection was lost after the body was sent")
        )
        first = _delivery.c.send_id == number
        session.execute(
            update(_delivery).where(first, _delivery.c.batch <= 6).values(state="accepted")
        )
        session.execute(
            update(_delivery)
            .where(first, _delivery.c.batch == 1)
            .values(state="bounced", reason="550 5.1.1 no such user here")
        )
        figures = {"delivered": 250, "bounce": 50, "opened": 90, "clicked": 22, "left": 2}
        rows = [{"send_id": number, "what": k, "count": n} for k, n in figures.items()]
        session.execute(insert(table_of(SendCounter)), rows)
        domains = [
            {"send_id": number, "part": "domain", "value": f"example{n}.org", "what": k, "count": c}
            for n in range(7)
            for k, c in (("delivered", 40 - 5 * n), ("opened", 12 - n), ("bounce", n))
            if c
        ]
        links = [
            {
                "send_id": number,
                "part": "link",
                "value": f"https://example.org/{'long/' * n}<script>",
                "what": "clicked",
                "count": 9 - n,
            }
            for n in range(8)
        ]
        session.execute(insert(table_of(VariantCounter)), domains + links)
    return number


def end(service: RunningService, number: int) -> None:
    """Cancel it, so that the next test finds a quiet service."""
    with transaction(service.parts.database) as session:
        send_lifecycle.cancel(session, number, by=Actor(None, "operator"), now=datetime.now(UTC))


@pytest.mark.slow
def test_the_list_is_sound_in_every_state(service: RunningService, tab: Page) -> None:
    tab.goto(f"{service.url}/console/sends")
    expect(tab.get_by_text("No sends yet")).to_be_visible()
    sound(tab, "sends-empty")
    for n, title in enumerate(TITLES):
        number = begun(service, f"list-{n}", title=title)
        if n == 1:
            with transaction(service.parts.database) as session:
                why = "5.2 % of 4,000 emails bounced (208), above 5 %: look at the list"
                send_lifecycle.pause(
                    session, number, by=Actor(None, "operator"), reason=why, now=datetime.now(UTC)
                )
        if n > 1:
            end(service, number)
    make(service, "list-coming", at=datetime.now(UTC) + timedelta(days=3))
    tab.goto(f"{service.url}/console/sends")
    expect(tab.get_by_text("Paused", exact=True)).to_be_visible()
    sound(tab, "sends")
    tab.keyboard.type("/")
    tab.keyboard.type("queues")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("row")).to_have_count(2)


@pytest.mark.slow
def test_a_sends_page_is_sound_under_way_and_paused(service: RunningService, tab: Page) -> None:
    number = begun(service, "under-way")
    tab.goto(f"{service.url}/console/sends/{number}")
    expect(tab.get_by_text("25 %", exact=True).first).to_be_visible()
    sound(tab, "send")
    tab.get_by_text("Send again…").click()
    tab.get_by_role("button", name="Send batch 7 again").click()
    expect(tab.get_by_role("status").first).to_have_text("The batch is sent again.")
    tab.get_by_role("button", name="Pause").click()
    expect(tab.get_by_text("paused by approver@example.org")).to_be_visible()
    sound(tab, "send-paused")
    tab.goto(f"{service.url}/console/sends/{number}/people?state=bounced")
    expect(tab.get_by_role("row")).to_have_count(51)
    sound(tab, "send-people")
    end(service, number)
    tab.goto(f"{service.url}/console/sends/{number}")
    expect(tab.get_by_role("heading", name="Retry")).to_be_visible()
    sound(tab, "send-cancelled")


def test_figures_move_while_one_looks_and_the_page_follows_the_state(
    service: RunningService, tab: Page
) -> None:
    number = begun(service, "live")
    tab.goto(f"{service.url}/console/sends/{number}")
    expect(tab.get_by_text("300 accepted", exact=True)).to_be_visible()
    with transaction(service.parts.database) as session:
        eighth = (_batch.c.send_id == number) & (_batch.c.number == 8)
        for state in ("claimed", "in_flight", "accepted"):
            session.execute(update(_batch).where(eighth).values(state=state))
    expect(tab.get_by_text("350 accepted", exact=True)).to_be_visible()
    with transaction(service.parts.database) as session:
        send_lifecycle.pause(
            session,
            number,
            by=Actor(None, "operator"),
            reason="the circuit breaker",
            now=datetime.now(UTC),
        )
    expect(tab.get_by_role("button", name="Resume")).to_be_visible()
    end(service, number)


def test_nobody_loses_what_they_type_when_the_state_changes(
    service: RunningService, tab: Page
) -> None:
    number = begun(service, "typing")
    tab.goto(f"{service.url}/console/sends/{number}")
    expect(tab.get_by_text("300 accepted", exact=True)).to_be_visible()
    tab.get_by_label("Recipients per hour").fill("1234")
    with transaction(service.parts.database) as session:
        send_lifecycle.pause(
            session,
            number,
            by=Actor(None, "operator"),
            reason="the circuit breaker",
            now=datetime.now(UTC),
        )
    expect(tab.get_by_text("The status of this send has changed.")).to_be_visible()
    assert tab.get_by_label("Recipients per hour").input_value() == "1234"
    end(service, number)


@pytest.mark.quick
def test_a_send_is_made_by_keyboard_alone(service: RunningService, tab: Page) -> None:
    with transaction(service.parts.database) as session:
        approve(session, "Made by keyboard", "by-keyboard")
    tab.goto(f"{service.url}/console/")
    tab.keyboard.type("gs")
    tab.wait_for_url("**/console/sends")
    tab.keyboard.press("Control+k")
    tab.keyboard.type("new send")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/console/sends/new")
    sound(tab, "send-new")
    tab.get_by_role("radio", name="Made by keyboard").focus()
    tab.keyboard.press("Space")
    tab.get_by_label(re.compile("everybody")).first.focus()
    tab.keyboard.press("Space")
    tab.get_by_role("button", name="Preview recipients").focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="1,200 recipients")).to_be_visible()
    # Asked by POST, so looked at as it is: a reload would ask once more.
    tab.get_by_role("button", name="Send to 1,200 recipients").focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("status").first).to_have_text("Send created.")
    sound(tab, "send-scheduled")
    end(service, int(tab.url.rsplit("/", 1)[1].split("?")[0]))


def test_an_ab_test_is_made_by_the_form_and_a_mistake_leads_to_its_field(
    service: RunningService, tab: Page
) -> None:
    with transaction(service.parts.database) as session:
        approve(session, "Tested", "tested")
        approve(session, "Another text", "another-text")
    tab.goto(f"{service.url}/console/sends/new")
    tab.get_by_role("radio", name="Tested").check()
    tab.get_by_role("checkbox", name="everybody").first.check()
    expect(tab.get_by_label("Other subjects")).to_be_hidden()
    tab.get_by_text("Test several variants").click()
    tab.get_by_label("Other subjects").fill("Really tested")
    tab.get_by_text("Test other issues as variants").click()
    tab.get_by_role("checkbox", name="Another text").check()
    tab.get_by_label("Sample").fill("some")
    tab.get_by_role("radio", name="By hand").check()
    tab.get_by_role("button", name="Preview recipients").click()
    tab.get_by_role("alert").get_by_role("link", name="Sample").click()
    # Asked by POST, so looked at as it is: a reload would ask once more.
    accessible(tab)
    sample = tab.get_by_label("Sample")
    expect(sample).to_have_accessible_description(re.compile("Not a share. Write it like 20%."))
    expect(sample).to_be_in_viewport()
    sample.fill("30%")
    tab.get_by_role("button", name="Preview recipients").click()
    expect(tab.get_by_role("row", name=re.compile("C Another text"))).to_contain_text("120")
    expect(tab.get_by_role("row", name=re.compile("for the rest"))).to_contain_text("840")
    accessible(tab)
    tab.get_by_role("button", name="Send to 1,200 recipients").click()
    expect(tab.get_by_role("status").first).to_have_text("Send created.")
    expect(tab.get_by_role("link", name="no winner yet")).to_be_visible()
    end(service, int(tab.url.rsplit("/", 1)[1].split("?")[0]))


@pytest.mark.slow
def test_the_report_of_a_test_is_sound_and_its_winner_chosen(
    service: RunningService, tab: Page
) -> None:
    number = begun(service, "variants", test=True)
    tab.goto(f"{service.url}/console/sends/{number}/test")
    sound(tab, "send-test")
    tab.locator("summary", has_text="Choose…").first.click()
    tab.get_by_role("button", name="Send A to the rest").click()
    expect(tab.get_by_role("heading", name="A won")).to_be_visible()
    with transaction(service.parts.database) as session:
        sends.move_send(session, number, SendState.CANCELLED)
