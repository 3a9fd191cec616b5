"""Every page of the route table in a real browser: axe-core, width, policy, light and dark.

A new page is in it by itself; the database is that of tests/newsletter/web/hostile/poison.py, with
harmless words in it, long ones too.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import update

from newsletter.accounts.models import Role
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.web.app import create_app
from subscribers.models import Subscriber
from tests.browser.chromium import TOO_WIDE, complaints, wear
from tests.browser.console import RunningService, running_service
from tests.newsletter.web.hostile.poison import Places, fill
from tests.newsletter.web.hostile.test_security import SHOWS_A_MAIL

pytestmark = pytest.mark.browser

#: Fits nowhere without being broken.
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
#: Mails as they are, which test_issue_pages.py looks at.
MAILS = SHOWS_A_MAIL - {"/archive/{slug}"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[RunningService]:
    one_factor = {"NEWSLETTER_CONSOLE__REQUIRE_SECOND_FACTOR": "false"}
    with running_service(tmp_path_factory.mktemp("service"), browser, **one_factor) as opened:
        opened.signed_in(Role.OWNER).context.close()
        with transaction(opened.parts.database) as session:
            fill(session, opened.parts, LONG)
            # Whoever reads aloud has to know the language.
            session.execute(update(table_of(Subscriber)).values(language="de"))
        yield opened


@pytest.fixture
def unboxed(service: RunningService) -> Iterator[Page]:
    """Looks at mails, in whose sandbox not even axe-core runs."""
    page = service.browser.new_page(bypass_csp=True)
    yield page
    page.context.close()


def pages(service: RunningService, tab: Page) -> Iterator[tuple[str, str]]:
    """Route and address of every page that there is, each once."""
    places = Places(service.parts, create_app(service.parts, background=False), LONG)
    for route in places.routes:
        if "GET" not in (route.methods or ()):
            continue
        for path in places.paths(route):
            head = {"accept": "text/html"}
            answer = tab.request.get(service.url + path, max_redirects=0, headers=head)
            kind = answer.headers.get("content-type", "")
            # What is put into a page that is open already is no page.
            whole = kind.startswith("text/html") and "<html" in answer.text()
            if answer.status == 200 and whole:
                yield route.path, path
                break


# Contrast is another in the dark, sizes are on a phone: no page needs all four.
@pytest.mark.parametrize(
    ("scheme", "width"), [pytest.param("light", 375, marks=pytest.mark.slow), ("dark", 1440)]
)
def test_every_page_is_sound(
    service: RunningService, tab: Page, unboxed: Page, scheme: str, width: int
) -> None:
    faults: list[str] = []
    seen = list(pages(service, tab))
    assert len(seen) > 15
    for route, path in seen:
        if route in MAILS:
            continue
        page = unboxed if route in SHOWS_A_MAIL else tab
        wear(page, scheme)
        page.set_viewport_size({"width": width, "height": 900})
        where = f"{route} ({path}) {width} {scheme}"
        page.goto(service.url + path)
        faults += [f"{where}: {one}" for one in complaints(page)]
        if wide := page.evaluate(TOO_WIDE):
            faults.append(f"{where}: wider than the screen: {wide[:300]}")
        if "SCREENSHOTS" in os.environ:
            name = re.sub(r"\W+", "-", route.replace(":int", "")).strip("-")
            picture = f"page-{name}-{width}-{scheme}.png"
            page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / picture)
    assert faults == []


@pytest.mark.slow
def test_no_page_asks_for_what_its_policy_refuses(service: RunningService, tab: Page) -> None:
    said: list[str] = []
    tab.on("console", lambda one: said.append(f"{one.type} {one.location['url']}: {one.text}"))
    for _, path in pages(service, tab):
        tab.goto(service.url + path)
    # The picture in the mail is nowhere.
    errors = [one for one in said if one.startswith("error")]
    assert [one for one in errors if "ERR_NAME_NOT_RESOLVED" not in one] == []
