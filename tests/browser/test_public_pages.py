"""The pages that a reader meets from a mail, in a real browser on a real server.

With SCREENSHOTS=DIR in the environment, pictures are written to DIR.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page
from sqlalchemy import select

from newsletter.cli.processes.serve import listen
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Purpose
from newsletter.sending.models import OutboxEmail
from newsletter.settings.load import load
from newsletter.web.app import create_app
from subscribers.consent import suppression
from subscribers.models import Subscriber, SuppressionReason, Topic
from subscribers.self_service import preferences
from subscribers.self_service.preferences import PreferenceChoice
from tests.browser.chromium import accessible
from tests.conftest import ADDRESS_KEY, LINK_KEY, add_person

pytestmark = pytest.mark.browser

TOPICS = (
    ("engineering", "Engineering", "How things are built, and what breaks. Two or three a month."),
    ("product", "Product", "What is new and what it is for."),
    ("events", "Events", "Meetings near you, announced a few weeks ahead."),
)
#: What might push a narrow page open.
WIDE = ("wide", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk" * 2, "x" * 300)
WIDTHS = (320, 375, 1280)


@dataclass(frozen=True)
class Service:
    """A running service, and links of people known to it."""

    parts: Container
    url: str

    def link(self, page: str, person: int) -> str:
        return f"{self.url}/{page}/{self.parts.links.token(Purpose.RECIPIENT, 1, person)}"

    def person(self, email: str, *topics: str, weeks: int | None = None) -> int:
        with transaction(self.parts.database) as session:
            person = add_person(session, email)
            now = datetime.now(UTC)
            preferences.save(session, person, PreferenceChoice(topics, "en", weeks), now=now)
            return person


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    listening = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    parts = Container(
        load(
            {
                "NEWSLETTER_DATABASE_URL": f"sqlite:///{folder}/newsletter.db",
                "NEWSLETTER_LINKS__KEYS": LINK_KEY,
                "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
                "NEWSLETTER_SITE__NAME": "Engineering @ Scale",
                "NEWSLETTER_SITE__BASE_URL": url,
                # A browser under test fills in forms faster than people do.
                "NEWSLETTER_SIGNUP__FILL_TIME": "0s",
            }
        )
    )
    with transaction(parts.database) as session:
        for slug, name, about in TOPICS:
            session.add(Topic(slug=slug, name=name, description=about))
    app = create_app(parts, background=False)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield Service(parts, url)
    server.should_exit = True
    thread.join()
    parts.database.dispose()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield page
    page.close()


def sound(tab: Page) -> None:
    """Nothing wider than the screen, in any width; nothing for axe-core to complain of."""
    accessible(tab)
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def heading(tab: Page) -> str:
    return tab.locator("h1").inner_text()


def focused(tab: Page) -> str:
    return str(tab.evaluate("(document.activeElement.innerText || document.activeElement.id)"))


@pytest.mark.slow
def test_the_preferences_are_sound_at_every_width_and_in_every_state(
    service: Service, tab: Page
) -> None:
    person = service.person("sound@example.org", "product", weeks=3)
    link = service.link("preferences", person)
    tab.goto(link)
    sound(tab)
    tab.get_by_role("button", name="Save").click()
    assert tab.get_by_role("status").inner_text().startswith("Saved.")
    sound(tab)
    tab.get_by_label("New email address").fill("sound@example.org")
    tab.get_by_role("button", name="Change").click()
    assert "your current address" in tab.get_by_role("alert").inner_text()
    sound(tab)
    with transaction(service.parts.database) as session:
        suppression.add(
            session, [person], SuppressionReason.BOUNCED, at=datetime.now(UTC), evidence="x"
        )
    tab.goto(link)
    assert "bounced" in tab.locator(".note").inner_text()
    sound(tab)


def test_long_words_and_addresses_stay_within_the_page(service: Service, tab: Page) -> None:
    slug, name, about = WIDE
    with transaction(service.parts.database) as session:
        topic = Topic(slug=slug, name=name, description=about)
        session.add(topic)
        session.flush()
        number = topic.id
    person = service.person(f"{'l' * 60}@{'d' * 60}.{'e' * 60}.example", slug)
    tab.goto(service.link("preferences", person))
    sound(tab)
    with transaction(service.parts.database) as session:
        session.delete(session.get_one(Topic, number))


def test_everything_works_without_script(service: Service, browser: Browser) -> None:
    person = service.person("plain@example.org", "product")
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(service.link("preferences", person))
    assert tab.get_by_label("Product").is_checked()
    tab.get_by_label("Product").uncheck()
    tab.get_by_label("Events").check()
    tab.get_by_label("Pause").select_option("for 4 weeks")
    tab.get_by_label("Language").select_option("Deutsch")
    tab.get_by_role("button", name="Save").click()
    tab.get_by_role("status").wait_for()
    tab.reload()
    assert tab.get_by_label("Events").is_checked()
    assert not tab.get_by_label("Product").is_checked()
    assert tab.get_by_label("Language").input_value() == "de"
    tab.get_by_label("Pause").select_option("end the pause now")
    tab.get_by_role("button", name="Save").click()
    tab.get_by_text("no pause").wait_for(state="attached")
    tab.get_by_role("button", name="Unsubscribe from everything").click()
    tab.get_by_role("heading", name="You are unsubscribed.").wait_for()
    tab.goto(service.link("preferences", person))
    assert heading(tab) == "You are not subscribed."
    with reading(service.parts.database) as session:
        found = session.get_one(Subscriber, person)
        assert (found.language, found.paused_until) == ("de", None)
    context.close()


def test_the_preferences_can_be_changed_by_keyboard_alone(service: Service, tab: Page) -> None:
    person = service.person("keys@example.org")
    tab.goto(service.link("preferences", person))
    tab.keyboard.press("Tab")
    tab.keyboard.press("Space")
    style = "getComputedStyle(document.activeElement)"
    assert tab.evaluate(f"{style}.outlineStyle") == "solid"
    assert tab.evaluate(f"parseFloat({style}.outlineWidth)") >= 2
    for _ in range(3):
        tab.keyboard.press("Tab")
    assert focused(tab).startswith("no pause")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    assert focused(tab) == "Save"
    tab.keyboard.press("Enter")
    tab.get_by_role("status").wait_for()
    with reading(service.parts.database) as session:
        found = preferences.view(session, person, now=datetime.now(UTC))
        assert found is not None
        assert [o.slug for o in found.topics if o.chosen] == ["engineering"]
        assert found.paused_until is not None


@pytest.mark.slow
def test_leaving_is_one_press_and_each_page_on_the_way_is_sound(
    service: Service, tab: Page
) -> None:
    person = service.person("leaver@example.org")
    tab.goto(service.link("unsubscribe", person))
    sound(tab)
    tab.keyboard.press("Tab")
    assert focused(tab) == "Unsubscribe"
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="You are unsubscribed.").wait_for()
    sound(tab)
    tab.goto(service.link("preferences", person))
    sound(tab)
    tab.goto(service.link("unsubscribe", person)[:-2])
    sound(tab)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data", "erase", "address"])
def test_a_wish_goes_by_a_further_mail_and_its_pages_are_sound(
    service: Service, tab: Page, kind: str
) -> None:
    person = service.person(f"{kind}@example.org")
    tab.goto(service.link("preferences", person))
    if kind == "address":
        tab.get_by_label("New email address").fill(f"new{kind}@example.org")
    button = {"data": "Download my data", "erase": "Delete my data", "address": "Change"}[kind]
    tab.get_by_role("button", name=button).click()
    assert heading(tab) == "Check your inbox."
    sound(tab)
    links = links_mailed_for(service, kind)
    for link in links:
        tab.goto(link)
        sound(tab)
    act = tab.locator("main button")
    if kind == "data":
        with tab.expect_download() as download:
            act.click()
        assert download.value.suggested_filename == "my-data.json"
        return
    act.click()
    assert heading(tab) in {"Your data was deleted.", "You keep your address."}
    sound(tab)
    tab.goto(links[-1])
    assert heading(tab) == "This link no longer works."
    sound(tab)


@pytest.mark.slow
def test_signing_up_is_sound_from_the_empty_form_to_the_answer(service: Service, tab: Page) -> None:
    tab.goto(f"{service.url}/subscribe")
    sound(tab)
    tab.get_by_label("Email address").fill("nobody@nowhere")
    tab.locator("form").evaluate("form => { form.noValidate = true; form.submit() }")
    tab.get_by_role("alert").wait_for()
    assert tab.get_by_label("Email address").get_attribute("aria-invalid") == "true"
    sound(tab)
    tab.goto(f"{service.url}/subscribe")
    tab.get_by_label("Email address").fill("new@example.org")
    tab.get_by_label("Engineering").check()
    tab.get_by_role("button", name="Subscribe").click()
    assert heading(tab) == "Check your inbox."
    sound(tab)
    notice = table_of(OutboxEmail)
    with reading(service.parts.database) as session:
        mail = session.scalars(select(notice.c.text).where(notice.c.email == "new@example.org"))
        link = re.findall(r"http\S+/confirm/[\w-]+", mail.one())[0]
    tab.goto(link)
    sound(tab)
    tab.get_by_role("button").click()
    assert heading(tab) == "You are subscribed."
    sound(tab)


def links_mailed_for(service: Service, kind: str) -> list[str]:
    """The links of the mails that wait for this test's person, in order."""
    notice = table_of(OutboxEmail)
    with reading(service.parts.database) as session:
        texts = session.scalars(
            select(notice.c.text).where(notice.c.email.contains(kind)).order_by(notice.c.id)
        )
        return [re.findall(r"http\S+/request/[\w-]+", text)[0] for text in texts]


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS names no folder")
def test_pictures_for_the_documentation_are_made(service: Service, tab: Page) -> None:
    folder = Path(os.environ["SCREENSHOTS"])
    person = service.person("alice@example.org", "engineering", "events")
    for page in ("preferences", "unsubscribe"):
        for width in (375, 1280):
            tab.set_viewport_size({"width": width, "height": 720})
            tab.goto(service.link(page, person))
            tab.screenshot(path=folder / f"{page}-{width}.png", full_page=True)
    for width in (375, 1280):
        tab.set_viewport_size({"width": width, "height": 720})
        tab.goto(f"{service.url}/subscribe")
        tab.screenshot(path=folder / f"subscribe-{width}.png", full_page=True)
