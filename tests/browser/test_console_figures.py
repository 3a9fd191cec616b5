"""Overview and deliverability in a real browser: at every width, light and dark, with charts."""

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert, select, update

from newsletter.accounts.audit import Actor
from newsletter.db.engine import transaction
from newsletter.db.orm import Session, table_of
from newsletter.issues import approval, store
from newsletter.issues.models import Issue, Revision
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.rendering.render import render
from newsletter.sending.models import Send
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.planning.planner import plan
from newsletter.tracking.models import SendCounter, VariantCounter
from subscribers.models import AudienceDay, Subscriber
from subscribers.segments import store as segment_store
from tests.browser.console import RunningService, sound

pytestmark = pytest.mark.browser

TITLES = (
    "What broke in March, and what we learned",
    "Queues are not databases",
    "A gentle introduction to consensus",
    "Caches, and how to live without them",
)
DOMAINS = ("gmail.com", "outlook.com", "yahoo.co.jp", "proton.me", "example.ac.uk", "web.de")
LINKS = (
    "https://engineering.example.org/posts/what-broke-in-march",
    "https://example.org/" + "a-very-long-path-without-any-end/" * 5,
    "javascript:alert(1)",
)


def fill(service: RunningService, session: Session) -> None:
    """A year of weekly sends with figures, one paused, one to come, one issue to review."""
    now, send = datetime.now(UTC), table_of(Send)
    people = [
        {
            "email": f"reader{n}@example{n % 7}.org",
            "address_hash": n.to_bytes(16, "big"),
            "created_at": now,
            "confirmed_at": now,
            "attributes": {},
            "source": "test",
        }
        for n in range(400)
    ]
    session.execute(insert(table_of(Subscriber)), people)
    segment_store.save(session, "everybody", "", now=now)
    draft = parse_issue(f"---\nsubject: {TITLES[0]}\nslug: first\n---\n\nHello.\n", name="x.md")
    words = render(
        draft, service.parts.publication, templates=service.parts.settings.templates_directory
    )

    def make(at: datetime) -> int:
        return send_lifecycle.create(
            session,
            draft,
            words,
            ["everybody"],
            by=Actor(None, "operator"),
            at=at,
            now=now,
            approved_by=COMMAND_LINE,
        ).id

    coming, first = make(now + timedelta(days=2)), make(now)
    issue, revision = table_of(Issue), table_of(Revision)
    known = session.execute(select(issue)).one()._asdict()
    text = session.execute(select(revision)).one()._asdict()
    row = session.execute(select(send).where(send.c.id == first)).one()._asdict()
    figures, parts = [], []
    for n in range(40):
        session.execute(
            insert(issue).values(
                {**known, "id": 100 + n, "slug": f"weekly-{n}", "title": TITLES[n % 4]}
            )
        )
        session.execute(insert(revision).values({**text, "id": 100 + n, "issue_id": 100 + n}))
        began = now - timedelta(days=7 * (40 - n))
        values = {"id": 100 + n, "issue_id": 100 + n, "revision_id": 100 + n}
        values |= {"planned": 40_000, "accepted_count": 40_000}
        session.execute(
            insert(send).values(
                {
                    **row,
                    **values,
                    "state": "sent",
                    "started_at": began,
                    "finished_at": began,
                }
            )
        )
        for what, count in (
            ("delivered", 39_000 + 20 * (n % 7)),
            ("opened", 15_000 + 90 * n + 700 * (n % 3)),
            ("clicked", 3_000 + 40 * (n % 11)),
            ("bounce", 400 - 5 * n + 60 * (n % 4)),
            ("blocked", 90 + 9 * (n % 5)),
            ("complained", 10 + n % 6),
            ("left", 80 + 3 * (n % 9)),
        ):
            figures.append({"send_id": 100 + n, "what": what, "count": count})
    for n, domain in enumerate(DOMAINS):
        for what, count in (("delivered", 18_000), ("opened", 7_000), ("bounce", 120 + 400 * n)):
            part = {"send_id": 139, "part": "domain", "value": domain, "what": what}
            parts.append({**part, "count": count // (n + 1)})
    for n, link in enumerate(LINKS):
        for what, count in (("clicked", 900), ("click", 1_300), ("machine_click", 70)):
            part = {"send_id": 139, "part": "link", "value": link, "what": what}
            parts.append({**part, "count": count // (n + 1)})
    session.execute(insert(table_of(SendCounter)), figures)
    session.execute(insert(table_of(VariantCounter)), parts)
    session.execute(update(send).where(send.c.id == coming).values(issue_id=139))
    plan(session, first, now=now, batch_size=50)
    why = "5.2 % of 4,000 emails bounced (208), above 5 %: look at the list, then resume or cancel"
    send_lifecycle.pause(session, first, by=Actor(None, "operator"), reason=why, now=now)
    review = parse_issue("---\nsubject: Spring\nslug: spring\n---\n\nHello.\n", name="x.md")
    store.save(session, review, by=COMMAND_LINE, now=now)
    approval.request(session, "spring", by=COMMAND_LINE, now=now)
    for n in range(120):
        day = (now - timedelta(days=119 - n)).date().isoformat()
        active = 38_000 + 17 * n + 30 * (n % 5)
        session.add(AudienceDay(day=day, people=active + 900, active=active, counted_at=now))


@pytest.fixture(scope="module")
def full(service: RunningService) -> RunningService:
    """The service, with figures from now on."""
    with transaction(service.parts.database) as session:
        fill(service, session)
    return service


@pytest.mark.slow
def test_the_empty_pages_are_sound(service: RunningService, tab: Page) -> None:
    tab.goto(f"{service.url}/console/")
    sound(tab, "overview-empty")
    tab.goto(f"{service.url}/console/deliverability")
    sound(tab, "deliverability-empty")


@pytest.mark.slow
def test_the_full_pages_are_sound_and_have_charts(full: RunningService, tab: Page) -> None:
    tab.goto(f"{full.url}/console/")
    expect(tab.get_by_text("5.2 % of 4,000 emails bounced")).to_be_visible()
    expect(tab.locator(".chart canvas")).to_have_count(1)
    sound(tab, "overview")
    tab.goto(f"{full.url}/console/deliverability?days=365")
    expect(tab.locator(".chart canvas")).to_have_count(2)
    sound(tab, "deliverability")
    expect(tab.get_by_role("link", name="Queues are not databases").first).to_be_hidden()
    tab.get_by_text("Show as table").click()
    expect(tab.get_by_role("link", name="Queues are not databases").first).to_be_visible()


def test_without_scripts_the_table_is_open(full: RunningService, tab: Page) -> None:
    context = full.browser.new_context(java_script_enabled=False)
    context.add_cookies(tab.context.cookies())  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{full.url}/console/deliverability?days=365")
    expect(page.get_by_role("link", name="Queues are not databases").first).to_be_visible()
    expect(page.locator(".chart").first).to_be_hidden()
    context.close()
