"""The quick start in a browser: its four commands, then what the page says to click."""

import json
import re
from pathlib import Path

import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.newsletter.web.conftest import PASSWORD
from tests.walks.test_readme import INSTALL, ROOT, free_ports, read, shell

pytestmark = pytest.mark.browser


def create_account(tab: Page, link: str) -> None:
    tab.goto(link)
    tab.get_by_label("Email address").fill("me@example.org")
    tab.get_by_label("Password", exact=True).fill(PASSWORD)
    tab.get_by_label("Repeat password").fill(PASSWORD)
    tab.get_by_role("button", name="Create account").click()
    secret = tab.locator("code").inner_text().replace(" ", "")
    tab.get_by_label("Six-digit code from the app").fill(pyotp.TOTP(secret).now())
    tab.get_by_role("button", name="Turn on").click()
    tab.get_by_role("link", name="I saved the codes").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Overview")


def add_subscribers(tab: Page) -> None:
    for email in ("ada@example.org", "open@example.org", "bounce@example.org"):
        tab.get_by_role("navigation").get_by_role("link", name="Subscribers").click()
        tab.get_by_role("link", name="Add subscriber").click()
        tab.get_by_label("Email address").fill(email)
        tab.get_by_label("What did they agree to, and how?").fill("Asked me in person")
        tab.get_by_role("button", name="Add subscriber").click()
    tab.get_by_role("navigation").get_by_role("link", name="Segments").click()
    tab.get_by_role("link", name="New segment").click()
    tab.get_by_label("Name", exact=True).fill("everybody")
    tab.get_by_role("button", name="Save").click()


def write_and_approve(tab: Page) -> None:
    tab.get_by_role("navigation").get_by_role("link", name="Issues").click()
    tab.get_by_role("link", name="New issue").click()
    tab.get_by_role("link", name="Write a letter").click()
    tab.get_by_role("button", name=re.compile("^Save")).click()
    expect(tab.get_by_role("status").filter(has_text="Saved as revision 1")).to_be_visible()
    tab.get_by_role("link", name="Review").click()
    tab.get_by_role("button", name="Request review").click()
    tab.get_by_role("button", name="Approve revision 1").click()


def send(tab: Page) -> None:
    tab.get_by_role("link", name="Send…").click()
    tab.get_by_role("checkbox", name="everybody").check()
    tab.get_by_role("button", name="Preview recipients").click()
    tab.get_by_role("button", name="Send to 3 recipients").click()
    expect(tab.locator(".badge", has_text=re.compile("^Sent$"))).to_be_visible(timeout=60_000)


def test_the_page_leads_to_the_first_issue(browser: Browser, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quick-start.md").read_text()
    first, _ = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    ports = free_ports()
    with shell(first.replace(INSTALL, ""), tmp_path, **ports) as service:
        link = service.wait_for(r"http://\S+/console/setup/\S+")[0]
        service.wait_for("mailbox: ")
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        create_account(tab, link)
        add_subscribers(tab)
        write_and_approve(tab)
        send(tab)
        # The checklist ends itself once the events have come.
        for _ in range(60):
            tab.goto(f"{ports['NEWSLETTER_SITE__BASE_URL']}/console/")
            if not (found := tab.get_by_role("region", name="First steps").count()):
                break
            tab.wait_for_timeout(500)
        assert not found, tab.get_by_role("main").inner_text()
        tab.context.close()
        lines = read(f"{ports['NEWSLETTER_SENDGRID__HOST']}/sandbox/accepted").splitlines()
    assert "Traceback" not in service.said
    to = [json.loads(line)["email"] for line in lines]
    # The owner got the email that greets, and one about the authenticator app.
    assert sorted(set(to)) == [
        "ada@example.org",
        "bounce@example.org",
        "me@example.org",
        "open@example.org",
    ]
