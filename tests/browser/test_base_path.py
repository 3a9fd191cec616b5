"""A publication below a path in a real browser: scripts, frames and streams stay below it, too."""

import re
from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser, Page, Request, expect
from sqlalchemy import select

from newsletter.accounts.models import Role
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sending.models import Send
from newsletter.sending.states import SendState
from tests.browser.console import RunningService, running_service
from tests.browser.test_every_page import pages
from tests.newsletter.web.hostile.poison import fill
from tests.proxies import PATH, Proxy

pytestmark = pytest.mark.browser

WORDS = "Below a path"
FRAME = "#pane iframe >> nth=-1"


@pytest.fixture(scope="module", params=[True, False], ids=["taken off", "left"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> Iterator[RunningService]:
    settings = {
        "NEWSLETTER_CONSOLE__REQUIRE_SECOND_FACTOR": "false",
        "NEWSLETTER_SIGNUP__FILL_TIME": "0s",
        "NEWSLETTER_SIGNUP__CHALLENGE": "altcha",
    }
    folder = tmp_path_factory.mktemp("service")
    behind = partial(Proxy, strips=request.param)
    with running_service(folder, browser, path=PATH, behind=behind, **settings) as opened:
        opened.signed_in(Role.OWNER).context.close()
        with transaction(opened.parts.database) as session:
            fill(session, opened.parts, WORDS)
        yield opened


@pytest.fixture
def asked(service: RunningService, tab: Page) -> Iterator[list[str]]:
    """Every address on our host that the browser asks for; none of them is past the path."""
    found: list[str] = []
    host = service.url.removesuffix(PATH)

    def note(request: Request) -> None:
        if request.url.startswith(host):
            found.append(request.url)

    tab.context.on("request", note)
    yield found
    assert found
    assert [one for one in found if not one.startswith(f"{service.url}/")] == []


@pytest.mark.slow
def test_every_page_asks_for_nothing_past_the_path(
    service: RunningService, tab: Page, asked: list[str]
) -> None:
    refused: list[str] = []
    tab.on("response", lambda one: refused.append(one.url) if one.status >= 400 else None)
    seen = list(pages(service, tab))
    assert len(seen) > 15
    for _, path in seen:
        tab.goto(service.url + path)
    own = [one for one in refused if one.startswith(service.url)]
    assert own == []


def test_a_signup_solves_its_challenge(
    service: RunningService, tab: Page, asked: list[str]
) -> None:
    tab.goto(f"{service.url}/subscribe")
    tab.get_by_label(re.compile("mail", re.IGNORECASE)).first.fill("ada@example.org")
    expect(tab.get_by_label("Verified")).to_be_attached(timeout=60_000)
    tab.get_by_role("button", name=re.compile("ubscribe")).click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text("inbox")
    assert f"{service.url}/subscribe/challenge" in asked
    assert any("pbkdf2.js" in one for one in asked)


def test_an_issue_is_written_looked_at_and_stored(
    service: RunningService, tab: Page, asked: list[str]
) -> None:
    tab.goto(f"{service.url}/console/issues/_edit?template=letter")
    text = tab.locator("#text")
    expect(text).to_have_value(re.compile("slug: letter-"))
    text.fill("---\nsubject: Typed\nslug: typed\n---\n\nHello, world.\n")
    expect(tab.frame_locator(FRAME).get_by_text("Hello, world.")).to_be_visible()
    tab.keyboard.press("Control+s")
    expect(tab.get_by_text("Saved as revision 1.")).to_be_visible()
    assert tab.url.startswith(f"{service.url}/console/issues/typed")


def test_figures_come_live(service: RunningService, tab: Page, asked: list[str]) -> None:
    send = table_of(Send)
    with reading(service.parts.database) as session:
        number = session.scalar(select(send.c.id).where(send.c.state == SendState.SENDING))
    with tab.expect_response(re.compile("/live")) as live:
        tab.goto(f"{service.url}/console/sends/{number}")
    assert live.value.status == 200
    assert live.value.headers["content-type"].startswith("text/event-stream")


def test_the_console_is_entered_and_left(
    service: RunningService, tab: Page, asked: list[str]
) -> None:
    tab.goto(f"{service.url}/console/")
    tab.keyboard.type("gs")
    tab.wait_for_url(f"{service.url}/console/sends")
    tab.get_by_role("button", name="Sign out").first.click()
    tab.wait_for_url(f"{service.url}/console/sign-in")
    (cookie,) = [one for one in tab.context.cookies() if one["path"] == PATH]
    assert cookie["name"] == "console"
    tab.goto(f"{service.url}/console/sends")
    expect(tab).to_have_url(re.compile("/console/sign-in"))
