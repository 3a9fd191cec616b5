"""A reader's whole life with us, in a real browser: sign up elsewhere, confirm, choose, leave."""

import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from newsletter.accounts.audit import Actor
from newsletter.cli.processes.serve import listen, server_of
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.rendering.render import render
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.settings.load import load
from subscribers.consent import topics
from subscribers.models import Subscriber, Subscription, Suppression, Topic
from subscribers.segments import store as segment_store

pytestmark = pytest.mark.browser

ISSUE = """---
subject: First issue
slug: first
topics: [engineering, product]
---

Hello {{ name }}.
"""


@contextmanager
def service(parts_of: dict[str, str], sandbox: RunningSandbox) -> Iterator[tuple[Container, str]]:
    """The service with its workers, on a port of its own; events come back to it."""
    with listen("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        sandbox.set_webhook_url(f"{url}/webhooks/sendgrid/events")
        parts = Container(
            load(
                {
                    **parts_of,
                    "NEWSLETTER_SITE__BASE_URL": url,
                    "NEWSLETTER_SITE__NAME": "Paper",
                    "NEWSLETTER_SENDGRID__HOST": sandbox.url,
                    "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": sandbox.public_key,
                    "NEWSLETTER_SIGNUP__FILL_TIME": "0s",
                }
            )
        )
        server = server_of(parts)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.02)
        try:
            yield parts, url
        finally:
            server.should_exit = True
            thread.join()
            parts.database.dispose()


@contextmanager
def elsewhere(folder: Path, snippet: str) -> Iterator[str]:
    """A page of another origin with the documented snippet on it."""
    folder.mkdir()
    (folder / "index.html").write_text(f"<!DOCTYPE html><title>A blog</title>{snippet}")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def open_mail(page: Page, sandbox: RunningSandbox, subject: str) -> Page:
    """Open the newest mail with this subject in the mailbox."""
    for _ in range(100):
        page.goto(f"{sandbox.url}/?q=ada")
        link = page.get_by_role("link", name=re.compile(subject))
        if link.count():
            link.first.click()
            return page
        page.wait_for_timeout(100)
    raise AssertionError(f"no mail about {subject}")


def follow(page: Page, words: str) -> Page:
    """Follow a link of the open mail, which a mail client opens in a new window."""
    # A click into a frame that is still loading may be lost.
    page.wait_for_load_state("load")
    frame = page.frame_locator("iframe[title='The email on a desktop']")
    with page.expect_popup() as popup:
        frame.get_by_role("link", name=re.compile(words)).first.click()
    return popup.value


def snippet(url: str) -> str:
    """The snippet of docs/guides/sign-up-form.md, pointed at this service."""
    page = (Path(__file__).parents[2] / "docs" / "guides" / "sign-up-form.md").read_text()
    html = re.search(r"```html\n(<form.*?)```", page, re.DOTALL)
    assert html, "docs/guides/sign-up-form.md shows a form to copy"
    return re.sub(r'action="[^"]*/subscribe"', f'action="{url}/subscribe"', html[1])


def chosen(parts: Container) -> set[str]:
    subscription, topic = table_of(Subscription), table_of(Topic)
    with reading(parts.database) as session:
        return set(session.scalars(select(topic.c.slug).join(subscription)))


@pytest.mark.quick
def test_a_reader_signs_up_elsewhere_confirms_chooses_and_leaves(
    browser: Browser, environment: dict[str, str], tmp_path: Path
) -> None:
    config = SandboxConfig(api_keys=frozenset({"SG.test"}), event_rates={}, event_delay=0.01)
    with start_sandbox(config) as sandbox, service(environment, sandbox) as (parts, url):
        with transaction(parts.database) as session:
            topics.save(session, "engineering", name="Engineering")
            topics.save(session, "product", name="Product")
            segment_store.save(session, "all", "", now=datetime.now(UTC))
        with elsewhere(tmp_path / "blog", snippet(url)) as blog:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(blog)
            page.get_by_label(re.compile("mail", re.IGNORECASE)).fill("Ada@example.org")
            page.get_by_role("button").click()
            expect(page.get_by_role("heading", level=1)).to_contain_text("inbox")

        ask = follow(open_mail(page, sandbox, "onfirm"), "Confirm|Subscribe|subscription")
        with reading(parts.database) as session:
            assert session.scalars(select(Subscriber)).all() == []
        ask.get_by_role("button").click()
        expect(ask.get_by_role("heading", level=1)).to_have_text("You are subscribed.")

        ask.get_by_role("link", name=re.compile("Choose topics")).click()
        ask.get_by_label("Engineering").check()
        ask.get_by_label("Product").check()
        ask.get_by_role("button", name="Save").click()
        expect(ask.get_by_role("status")).to_contain_text("Saved")
        assert chosen(parts) == {"engineering", "product"}

        draft = parse_issue(ISSUE, name="first.md")
        rendered = render(draft, parts.publication, templates=parts.settings.templates_directory)
        with transaction(parts.database) as session:
            now = datetime.now(UTC)
            send_lifecycle.create(
                session,
                draft,
                rendered,
                ["all"],
                by=Actor(None, "operator"),
                at=now,
                now=now,
                approved_by=COMMAND_LINE,
            )
        preferences = follow(open_mail(page, sandbox, "First issue"), "references")
        preferences.get_by_label("Product").uncheck()
        preferences.get_by_role("button", name="Save").click()
        expect(preferences.get_by_role("status")).to_contain_text("Saved")
        assert chosen(parts) == {"engineering"}

        leave = follow(open_mail(page, sandbox, "First issue"), "nsubscribe")
        with reading(parts.database) as session:
            assert session.scalars(select(Suppression)).all() == []
        leave.get_by_role("button").click()
        expect(leave.get_by_role("heading", level=1)).to_have_text("You are unsubscribed.")
        with reading(parts.database) as session:
            assert [s.reason for s in session.scalars(select(Suppression))] == ["unsubscribed"]
