"""The mailbox as a person sees it, in a real browser, wide and narrow."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sendgrid
from playwright.sync_api import Browser, expect

from newsletter.issues.parsing.issue_file import read_issue
from newsletter.rendering.render import render
from newsletter.rendering.rendered import Publication
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.settings.load import resource

pytestmark = pytest.mark.browser

PUBLICATION = Publication(
    name="Engineering @ Scale",
    base_url="http://127.0.0.1:8000",
    postal_address="Example Street 1, 12345 Example Town",
    from_email="digest@example.com",
    from_name="Engineering @ Scale",
    reply_to=None,
    language="en",
    logo_url=None,
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """A sandbox with the sample digest to a few readers, whose events have all come."""
    with start_sandbox(SandboxConfig(event_delay=0.01)) as running:
        path = resource("issues") / "engineering-at-scale-2026-03-27.md"
        mail = render(read_issue(path), PUBLICATION, templates=resource("templates/email"))
        client = sendgrid.SendGridAPIClient("SG.sandbox", host=running.url)
        client.client.timeout = 10
        people = ["click+ada", "spam+bob", "bounce+carl", "ok+dana", "defer+edsger", "oneclick+f"]
        client.send(
            {
                "from": {"email": "digest@example.com", "name": "Engineering @ Scale"},
                "subject": mail.subject,
                "content": [
                    {"type": "text/plain", "value": mail.text},
                    {"type": "text/html", "value": mail.html},
                ],
                "personalizations": [
                    {
                        "to": [{"email": f"{name}@example.org"}],
                        "substitutions": mail.placeholders.substitutions(
                            {"name": name.partition("+")[2].capitalize()}, "token"
                        ),
                    }
                    for name in people
                ],
            }
        )
        while running.store.summary()["pending_events"]:
            pass
        yield running


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("path", ["/", "/mail/1", "/mail/1?view=text", "/mail/1?view=source"])
def test_no_page_is_wider_than_its_screen(
    browser: Browser, sandbox: RunningSandbox, path: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(sandbox.url + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("SCREENSHOTS"):
        name = {"/mail/1": f"mailbox-{width}.png", "/": f"mailbox-list-{width}.png"}.get(path)
        if name:
            page.wait_for_timeout(300)
            page.screenshot(path=Path(folder) / name)
    page.close()


def test_a_mail_is_found_read_and_left_with_the_keyboard_alone(
    browser: Browser, sandbox: RunningSandbox
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(sandbox.url)
    page.get_by_label("Address contains").press_sequentially("ada")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="click+ada@example.org").focus()
    page.keyboard.press("Enter")
    frame = page.frame_locator("iframe[title='The email on a desktop']")
    expect(frame.get_by_role("heading", name="Signal of the Day")).to_be_visible()
    # Processed, delivered, opened: this digest links to our own pages only, which are not measured.
    expect(page.locator("ol.events li")).to_have_count(3)
    page.close()


def test_the_dark_client_shows_the_mails_own_dark_styles(
    browser: Browser, sandbox: RunningSandbox
) -> None:
    def background(scheme: str) -> str:
        page = browser.new_page()
        page.goto(f"{sandbox.url}/mail/1/html?scheme={scheme}")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()
        return str(colour)

    assert background("dark") != background("light")
