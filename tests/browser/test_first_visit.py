"""The first visit in a browser without JavaScript: a mistake, then from the link to the list."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

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
    tab.get_by_label("Password", exact=True).fill("short")
    tab.get_by_label("Repeat password").fill("shorter")
    # This service has the publication's name from the environment.
    expect(tab.get_by_label("Name", exact=True)).to_be_disabled()
    expect(tab.get_by_label("Sender name")).to_have_value("My newsletter")
    tab.get_by_label("Sender name").fill("The Paper")
    tab.get_by_label("Sender email").fill("desk@paper.org")
    tab.get_by_role("button", name="Create account").click()
    assert "Nothing was saved" in tab.get_by_role("alert").inner_text()
    tab.get_by_role("alert").get_by_role("link", name="Repeat password").click()
    expect(tab.get_by_label("Repeat password")).to_have_accessible_description(
        "The two passwords differ."
    )
    expect(tab.get_by_label("Sender name")).to_have_value("The Paper")
    expect(tab.get_by_label("Email address")).to_have_value("me@example.org")
    tab.get_by_label("Password", exact=True).fill(PASSWORD)
    tab.get_by_label("Repeat password").fill(PASSWORD)
    tab.get_by_role("button", name="Create account").click()
    assert tab.url == f"{service.url}/console/"
    assert "no email leaves this machine" in tab.get_by_role("banner").inner_text()
    steps = tab.get_by_role("region", name="First steps")
    assert "We sent an email to me@example.org" in steps.get_by_role("status").inner_text()
    tab.goto(f"{service.url}/console/settings")
    expect(tab.get_by_label("Sender email")).to_have_value("desk@paper.org")
    tab.goto(f"{service.url}/console/")
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
