"""The first visit in a browser without JavaScript: from the printed link to the checklist."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from newsletter.db.engine import reading
from newsletter.operations import first_owner
from tests.browser.console import RunningService, running_service, sound
from tests.newsletter.web.conftest import PASSWORD

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[RunningService]:
    one_factor = {"NEWSLETTER_CONSOLE__REQUIRE_SECOND_FACTOR": "false"}
    folder: Path = tmp_path_factory.mktemp("service")
    with running_service(folder, browser, **one_factor) as opened:
        yield opened


def test_the_link_leads_to_the_checklist(service: RunningService) -> None:
    with reading(service.parts.database) as session:
        link = first_owner.link(session, service.parts, now=datetime.now(UTC))
    assert link is not None
    scripted = service.browser.new_page()
    scripted.goto(link)
    sound(scripted, "setup")
    scripted.context.close()
    tab = service.browser.new_page(java_script_enabled=False)
    tab.goto(link)
    tab.get_by_label("Email address").fill("me@example.org")
    tab.get_by_label("Your name").fill("Me")
    tab.get_by_label("Password", exact=True).fill(PASSWORD)
    tab.get_by_label("Repeat password").fill(PASSWORD)
    tab.get_by_role("button", name="Create account").click()
    assert tab.url == f"{service.url}/console/"
    steps = tab.get_by_role("region", name="First steps")
    assert "0 of 5 done" in steps.inner_text()
    assert steps.get_by_role("listitem").count() == 5
    token = tab.context.cookies()
    tab.context.close()
    scripted = service.browser.new_page()
    scripted.context.add_cookies(token)  # type: ignore[arg-type]
    scripted.goto(f"{service.url}/console/")
    sound(scripted, "first-steps")
    scripted.goto(link)
    assert "This link no longer works" in scripted.inner_text("h1")
    scripted.context.close()
