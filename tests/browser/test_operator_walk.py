"""An operator's day, in a real browser and by keyboard alone: from the password to the charts.

Erin writes, mends and schedules; Ada reads and approves; the service, its workers and the
sandbox are the real ones. Nothing here clicks: keys are all that is pressed.

With SCREENSHOTS=DIR in the environment, pictures are written to DIR.
"""

import os
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pyotp
import pytest
import time_machine
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import select

from newsletter.accounts import users
from newsletter.accounts.models import Role
from newsletter.cli.processes.serve import listen, server_of
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sending.models import Send
from newsletter.sending.queries import send_status
from newsletter.settings.load import load
from subscribers.segments import store as segment_store
from tests.browser.chromium import complaints, wear
from tests.conftest import ADDRESS_KEY, LINK_KEY, add_person

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery staple"
PEOPLE, A_SECOND = 240, 16
ISSUE = """---
subject: What broke in March
title: What broke in March
preheader: Three outages, and the one cause that they had in common
slug: march
---

Dear {{ name | default("reader") }},

three things broke in March, and all of them for want of a limit.

Yours, {{ nme | default("Erin") }}
"""


@dataclass
class Operator:
    """Somebody at a keyboard."""

    tab: Page
    url: str
    email: str
    secret: str = ""
    #: The step of the last code: each works once.
    used: int = 0

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def leave(self, *keys: str) -> None:
        """Press what leads to another page, and wait until that one listens to keys."""
        with self.tab.expect_navigation(wait_until="load"):
            self.press(*keys)

    def reach(self, target: Locator) -> None:
        """Go from control to control until that one has the focus."""
        expect(target).to_be_visible()
        for _ in range(150):
            if target.evaluate("one => one === document.activeElement"):
                return
            self.press("Tab")
        raise AssertionError(f"no way by keyboard to {target}")

    def fill(self, label: str, words: str) -> None:
        self.reach(self.tab.get_by_label(label, exact=True))
        self.tab.keyboard.type(words)

    def do(self, words: str, *more: str) -> None:
        """By the command palette; ``more`` keys for what it only brings to the fingers."""
        self.press("Control+k")
        self.tab.keyboard.type(words)
        expect(self.tab.locator("#palette").get_by_role("option", selected=True)).to_contain_text(
            re.compile(re.escape(words), re.IGNORECASE)
        )
        self.leave("Enter", *more)

    def sound(self, picture: str = "") -> None:
        """Nothing for axe-core to complain of, light and dark; and pictures under that name."""
        for scheme in ("dark", "light"):
            wear(self.tab, scheme)
            found = complaints(self.tab)
            assert not found, (scheme, *found)
            if picture and "SCREENSHOTS" in os.environ:
                for width, height in ((375, 812), (768, 1024), (1440, 900)):
                    self.tab.set_viewport_size({"width": width, "height": height})
                    # Charts and the editor's mail follow the width.
                    self.tab.wait_for_timeout(400)
                    name = f"console-{picture}-{width}-{scheme}.png"
                    self.tab.screenshot(path=Path(os.environ["SCREENSHOTS"]) / name)
                self.tab.set_viewport_size({"width": 1440, "height": 900})

    def sign_in(self) -> None:
        self.tab.goto(f"{self.url}/console/")
        self.fill("Email address", self.email)
        self.fill("Password", PASSWORD)
        self.leave("Enter")

    def enrol(self) -> None:
        """Sign in for the first time, which asks for an authenticator app."""
        self.sign_in()
        expect(self.tab.get_by_role("heading", level=1)).to_contain_text("authenticator app")
        shown = self.tab.locator("code").inner_text()
        self.secret = shown.replace(" ", "")
        self.fill("Six-digit code from the app", self.code())
        self.leave("Enter")
        expect(self.tab.get_by_role("heading", level=1)).to_contain_text("recovery codes")
        self.reach(self.tab.get_by_role("link", name="I saved the codes"))
        self.leave("Enter")
        expect(self.tab).to_have_url(f"{self.url}/console/")

    def code(self) -> str:
        """One that was not used yet: a phone may be a step ahead."""
        now = int(time.time()) // 30
        while self.used > now:
            time.sleep(0.5)
            now = int(time.time()) // 30
        self.used = max(now, self.used + 1)
        return pyotp.TOTP(self.secret).generate_otp(self.used)


@contextmanager
def service(folder: Path) -> Iterator[tuple[Container, RunningSandbox, str]]:
    """Everything that `newsletter serve` runs, and a provider on this machine."""
    config = SandboxConfig(database=folder / "mailbox.db", event_delay=0.05)
    with start_sandbox(config) as sandbox, listen("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        sandbox.set_webhook_url(f"{url}/webhooks/sendgrid/events")
        settings = {
            "NEWSLETTER_DATABASE_URL": f"sqlite:///{folder}/newsletter.db",
            "NEWSLETTER_LINKS__KEYS": LINK_KEY,
            "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": ADDRESS_KEY,
            "NEWSLETTER_SENDGRID__API_KEY": "SG.sandbox",
            "NEWSLETTER_SENDGRID__HOST": sandbox.url,
            "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": sandbox.public_key,
            "NEWSLETTER_SENDING__DEPARTURE_LOG": str(folder / "departures"),
            "NEWSLETTER_SENDING__BATCH_SIZE": "10",
            "NEWSLETTER_IMPORTS__FOLDER": str(folder / "imports"),
            "NEWSLETTER_SITE__NAME": "Engineering @ Scale",
            "NEWSLETTER_SITE__BASE_URL": url,
            "NEWSLETTER_REVIEW__REQUIRED": "true",
            "NEWSLETTER_REVIEW__SECOND_PERSON": "true",
            "NEWSLETTER_CONSOLE__HASH_MEMORY": "8",
            "NEWSLETTER_CONSOLE__HASH_ROUNDS": "1",
        }
        parts = Container(load(settings))
        now = datetime.now(UTC)
        with transaction(parts.database) as session:
            for number in range(PEOPLE):
                name = f"Reader {number}" if number % 3 else ""
                add_person(session, f"reader{number}@example.org", name=name)
            segment_store.save(session, "everybody", "", now=now)
            for email in ("erin@example.org", "ada@example.org"):
                users.add(
                    session,
                    email,
                    name=email.partition("@")[0].capitalize(),
                    role=Role.APPROVER,
                    max_owners=3,
                    now=now,
                    hashed=parts.passwords.hashed(PASSWORD),
                )
        server = server_of(parts)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        try:
            yield parts, sandbox, url
        finally:
            server.should_exit = True
            thread.join()
            parts.database.dispose()


def operator(browser: Browser, url: str, email: str) -> Operator:
    """A browser of their own."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    return Operator(context.new_page(), url, email)


def write_and_mend(erin: Operator) -> None:
    tab = erin.tab
    erin.leave("g", "i")
    expect(tab).to_have_url(f"{erin.url}/console/issues")
    erin.do("New issue")
    erin.do("Write a letter")
    text = tab.get_by_label("Issue file")
    erin.reach(text)
    erin.press("Control+a")
    tab.keyboard.insert_text(ISSUE)
    findings = tab.locator("#findings")
    expect(findings).to_contain_text("there is no placeholder nme", ignore_case=True)
    erin.sound("editor")
    erin.reach(findings.get_by_role("button", name=re.compile("Line ")).first)
    erin.press("Enter")
    expect(text).to_be_focused()
    # The line is selected, so what is typed replaces it.
    tab.keyboard.insert_text('Yours, {{ attributes.editor | default("Erin") }}')
    expect(findings).not_to_contain_text("nme")
    expect(findings.locator(".finding-block")).to_have_count(0)
    expect(tab.frame_locator("#pane iframe").last.locator("body")).to_contain_text(
        "all of them for want of a limit"
    )
    erin.leave("Control+s")
    expect(tab.get_by_role("status").filter(has_text="Saved as revision 1")).to_be_visible()
    erin.do("Review")
    erin.do("Request review")
    expect(tab.get_by_text("Another user has to approve this revision.")).to_be_visible()
    expect(tab.get_by_role("button", name=re.compile("Approve"))).to_have_count(0)
    erin.sound("review")


def approve(ada: Operator) -> None:
    tab = ada.tab
    ada.leave("g", "i")
    ada.press("j")
    expect(tab.get_by_role("link", name="What broke in March")).to_be_focused()
    ada.leave("Enter")
    ada.do("Read")
    expect(tab.get_by_role("heading", level=1)).to_be_visible()
    ada.sound("reading")
    tab.go_back()
    ada.do("Approve revision 1")
    expect(tab.get_by_text("Revision 1 is approved and can be sent.")).to_be_visible()


def schedule(erin: Operator) -> datetime:
    """When it is to go out."""
    tab = erin.tab
    erin.leave("g", "s")
    erin.do("New send")
    erin.reach(tab.get_by_role("checkbox", name="everybody"))
    erin.press("Space")
    erin.reach(tab.get_by_role("radio", name=re.compile("^Now")))
    erin.press("ArrowDown")
    expect(tab.get_by_role("radio", name=re.compile("^At a time"))).to_be_checked()
    erin.reach(tab.get_by_label("Day and time"))
    # The next full minute that is not over before the form is.
    at = (datetime.now(UTC) + timedelta(seconds=75)).replace(second=0)
    # In the order of this browser's language.
    for day, clock in (("%m%d%Y", "%I%M%p"), ("%d%m%Y", "%H%M")):
        erin.press(*["ArrowLeft"] * 6)
        tab.keyboard.type(f"{at:{day}}")
        erin.press("ArrowRight")
        tab.keyboard.type(f"{at:{clock}}")
        if tab.get_by_label("Day and time").input_value() == f"{at:%Y-%m-%dT%H:%M}":
            break
    else:
        raise AssertionError("no way to type a day and a time")
    erin.reach(tab.get_by_text("Pace, quiet hours and sending windows"))
    erin.press("Enter")
    erin.fill("Recipients per second", str(A_SECOND))
    erin.leave("Enter")
    expect(tab.get_by_role("heading", name=f"{PEOPLE} recipients")).to_be_visible()
    erin.sound("send-check")
    erin.do("Schedule for")
    expect(tab.get_by_text("Send created.")).to_be_visible()
    expect(tab.locator(".badge", has_text="Scheduled")).to_be_visible()
    return at


def watch_pause_and_resume(erin: Operator) -> None:
    tab = erin.tab
    settled = tab.locator(".progress-head")
    # The page follows by itself: nobody loads it again.
    expect(tab.locator(".badge", has_text="Sending")).to_be_visible(timeout=30_000)
    expect(settled).to_contain_text(re.compile(rf"[1-9]\d* of {PEOPLE} recipients"))
    before = settled.inner_text()
    expect(settled).not_to_have_text(before, use_inner_text=True)
    erin.do("Pause", "Enter")
    expect(tab.get_by_text("Sending paused. No further batch is sent.")).to_be_visible()
    expect(tab.get_by_text(re.compile("^Paused since"))).to_be_visible()
    erin.sound("send-paused")
    erin.do("Resume")
    expect(tab.get_by_text("Sending resumed.", exact=True)).to_be_visible()
    expect(tab.locator(".badge", has_text=re.compile("^Sent$"))).to_be_visible(timeout=60_000)
    expect(settled).to_contain_text(f"{PEOPLE} of {PEOPLE} recipients")
    erin.sound("send")


def read_the_charts(erin: Operator) -> None:
    tab = erin.tab
    erin.leave("g", "d")
    expect(tab.get_by_role("heading", level=1)).to_contain_text("Deliverability")
    expect(tab.get_by_role("img", name=re.compile("^Delivered, opened"))).to_be_visible()
    expect(tab.locator(".chart canvas").first).to_be_visible()
    erin.reach(tab.get_by_text("Show as table"))
    erin.press("Enter")
    row = tab.get_by_role("row").filter(has_text="What broke in March")
    expect(row).to_contain_text(re.compile(r"\d %"))
    erin.sound("deliverability")
    erin.leave("g", "o")
    expect(tab.get_by_role("main")).to_contain_text("What broke in March")
    erin.sound("overview")


@pytest.mark.slow
def test_an_operators_day_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    with service(tmp_path) as (parts, sandbox, url):
        erin = operator(browser, url, "erin@example.org")
        ada = operator(browser, url, "ada@example.org")
        erin.enrol()
        erin.do("Sign out")
        erin.sign_in()
        expect(erin.tab.get_by_role("heading", level=1)).to_have_text("Two-factor code")
        erin.fill("Code", erin.code())
        erin.leave("Enter")
        expect(erin.tab).to_have_url(f"{url}/console/")
        write_and_mend(erin)
        ada.enrol()
        approve(ada)
        # Nobody waits for a minute to be over.
        with time_machine.travel(schedule(erin) - timedelta(seconds=1)):
            watch_pause_and_resume(erin)
            read_the_charts(erin)
        ada.tab.context.close()
        erin.tab.context.close()

        with reading(parts.database) as session:
            number = session.scalars(select(table_of(Send).c.id)).one()
            stand = send_status.get_status(session, number)
        assert stand.adds_up
        assert stand.send.planned == PEOPLE
        with urllib.request.urlopen(f"{sandbox.url}/sandbox/accepted", timeout=30) as lines:
            mails = [orjson.loads(line) for line in lines]
        # Also two mails went to Erin and Ada, about their new authenticator apps.
        of_issue = [one["custom_args"] for one in mails if "nl_subscriber" in one["custom_args"]]
        copies = Counter(one["nl_subscriber"] for one in of_issue)
        assert len(copies) == PEOPLE
        assert set(copies.values()) == {1}
