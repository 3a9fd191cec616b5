"""A reader's whole life below a path, and a look into the console: through proxies of all kinds.

The proxies of docs/guides/reverse-proxy.md are real ones (nginx, Caddy) before a real process.
Where they are not on the machine, and for https, a small one stands before the service.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2 as httpx
import pytest
from httpx2 import Response
from sqlalchemy import select
from starlette.testclient import TestClient

from newsletter.accounts import users
from newsletter.accounts.audit import Actor
from newsletter.accounts.models import Role
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.issues.parsing.issue_file import parse_issue
from newsletter.issues.store import COMMAND_LINE
from newsletter.rendering.render import render
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sandbox.store import SandboxEmail
from newsletter.sending.models import OutboxEmail
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.tracking.models import EventRow
from subscribers.models import Suppression
from subscribers.segments import store as segment_store
from tests.fuzz.service import running, until
from tests.newsletter.web.conftest import HTML, PASSWORD, Office
from tests.proxies import PATH, Proxy, free_port, real_proxy

ISSUE = "---\nsubject: {slug}\nslug: {slug}\narchive: true\n---\n\nHello {{{{ name }}}}.\n"


class Reader:
    """A browser outside: follows what pages and mails say, and keeps cookies by their path."""

    def __init__(self, client: Any, base_url: str) -> None:
        self.client, self.base_url = client, base_url
        self.at = base_url

    def go(self, to: str, method: str = "GET", **more: Any) -> Response:
        headers = dict(HTML)
        if method == "POST":
            ours = urlsplit(self.base_url)
            headers |= {"origin": f"{ours.scheme}://{ours.netloc}", "sec-fetch-site": "same-origin"}
        answer = self.client.request(method, urljoin(self.at, to), headers=headers, **more)
        self.at = urljoin(self.at, to)
        while answer.headers.get("location"):
            self.at = urljoin(self.at, answer.headers["location"])
            assert f"{self.at}/".startswith(f"{self.base_url}/"), self.at
            answer = self.client.get(self.at, headers=HTML)
        return answer

    def submit(self, page: str, action: str, **fields: Any) -> Response:
        """Fill in the form whose action ends so, with what it holds already."""
        forms = re.findall(r"<form.*?</form>", page, re.DOTALL)
        found = [one for one in forms if re.search(rf'action="[^"]*{action}[^"]*"', one)]
        assert found, f"{self.at} has no form for {action}: {page}"
        to = re.search(r'action="([^"]*)"', found[0])
        hidden = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', found[0]))
        assert to
        return self.go(unescape(to[1]), "POST", data={**hidden, **fields})


def noticed(parts: Container, kind: str) -> str:
    """The link in the latest mail that holds one of this kind."""
    notice = table_of(OutboxEmail)
    with reading(parts.database) as session:
        texts = session.scalars(select(notice.c.text).order_by(notice.c.id.desc())).all()
    found = [one[0] for text in texts if (one := re.search(rf"https?://\S+/{kind}/\S+", text))]
    assert found, f"no mail of {len(texts)} links to /{kind}/"
    return found[0]


def create(parts: Container, slug: str, *, at: datetime) -> int:
    """A send of an issue to everybody; its number."""
    draft = parse_issue(ISSUE.format(slug=slug), name=f"{slug}.md")
    rendered = render(draft, parts.publication, templates=parts.settings.templates_directory)
    now = datetime.now(UTC)
    with transaction(parts.database) as session:
        segment_store.save(session, f"of-{slug}", "", now=now)
        made = send_lifecycle.create(
            session,
            draft,
            rendered,
            [f"of-{slug}"],
            by=Actor(None, "operator"),
            at=at,
            now=now,
            approved_by=COMMAND_LINE,
        )
        return made.id


def sign_up(reader: Reader, parts: Container, email: str) -> None:
    """By the form and the mail's link, as people do."""
    form = reader.go(f"{reader.base_url}/subscribe").text
    answer = reader.submit(form, "/subscribe", email=email)
    assert answer.status_code == 200, answer.text
    confirm = noticed(parts, "confirm")
    assert confirm.startswith(f"{reader.base_url}/confirm/")
    answer = reader.submit(reader.go(confirm).text, "/confirm/")
    assert "You are subscribed" in answer.text


def read(reader: Reader) -> None:
    """What everybody may read, by way of feed and sitemap."""
    for page in ("/archive", "/archive/feed.xml", "/sitemap.xml", "/robots.txt", "/healthz"):
        assert reader.go(reader.base_url + page).status_code == 200, page
    for feed in ("/archive/feed.xml", "/sitemap.xml", "/robots.txt"):
        text = reader.go(reader.base_url + feed).text
        own = [one for one in re.findall(r"https?://[^<\"\s]+", text) if ".org/" not in one]
        assert own
        for link in own:
            assert f"{link}/".startswith(f"{reader.base_url}/"), link
            assert reader.go(link).status_code == 200, link
    assert reader.go(f"{reader.base_url}/webhooks/sendgrid/events").status_code == 405


def choose_and_leave(reader: Reader, parts: Container, links: dict[str, str]) -> None:
    """By the links that stand in a mail."""
    page = reader.go(links["preferences"]).text
    assert reader.submit(page, "/preferences/", pause="2").status_code == 200
    assert reader.go(links["view"]).status_code == 200
    page = reader.go(links["unsubscribe"]).text
    assert reader.submit(page, "/unsubscribe/").status_code == 200
    with reading(parts.database) as session:
        assert session.scalar(select(table_of(Suppression).c.address_hash)) is not None


def look_around(reader: Reader, parts: Container) -> int:
    """Sign in, change something, and pause a send; its number."""
    door = reader.go(f"{reader.base_url}/console/issues").text
    page = reader.submit(door, "/console/sign-in", email="owner@example.org", password=PASSWORD)
    assert reader.at == f"{reader.base_url}/console/issues"
    assert page.status_code == 200
    account = reader.go(f"{reader.base_url}/console/account").text
    assert reader.submit(account, "/console/account", name="Ada L.").status_code == 200
    assert "Ada L." in reader.go(f"{reader.base_url}/console/").text
    send = create(parts, "later", at=datetime.now(UTC) + timedelta(days=1))
    page = reader.go(f"{reader.base_url}/console/sends/{send}").text
    assert "/resume" in reader.submit(page, "/pause").text
    assert reader.at == f"{reader.base_url}/console/sends/{send}?done=paused"
    return send


def sign_out(reader: Reader) -> None:
    """Leave the console."""
    home = reader.go(f"{reader.base_url}/console/").text
    assert reader.submit(home, "/console/sign-out").status_code == 200
    assert reader.at == f"{reader.base_url}/console/sign-in"


def live(reader: Reader, send: int) -> str:
    """The first figures that the page of a paused send gets by itself."""
    url = f"{reader.base_url}/console/sends/{send}/live?state=paused"
    with reader.client.stream("GET", url, headers={"accept": "text/event-stream"}) as answer:
        assert answer.status_code == 200
        lines = iter(answer.iter_lines())
        return f"{next(lines)} {next(lines)}"


def arrived(sandbox: RunningSandbox, subject: str, email: str) -> SandboxEmail:
    """A mail, once the provider has taken it."""

    def found() -> list[SandboxEmail]:
        mails = sandbox.store.mails(search=email, before=None, limit=9)
        return [one for one in mails if subject in str(one.part) + str(one.body.get("subject"))]

    until(lambda: bool(found()))
    return found()[0]


def links_of(mail: SandboxEmail, base_url: str) -> dict[str, str]:
    """The personal links of a mail, as its reader sees them, by what they lead to."""
    texts = [one["value"] for one in mail.body["content"]]
    for mark, value in mail.part["substitutions"].items():
        texts = [text.replace(mark, value) for text in texts]
    found = {}
    for text in texts:
        for link in re.findall(r"https?://127\.0\.0\.1[^\s\"'<>)]*", text):
            assert f"{link}/".startswith(f"{base_url}/"), link
            found[link.removeprefix(f"{base_url}/").split("/")[0]] = link
    return found


def is_delivered(parts: Container) -> bool:
    """Whether the provider's events have come back to the address below the path."""
    event = table_of(EventRow)
    with reading(parts.database) as session:
        return session.scalar(select(event.c.kind).where(event.c.kind == "delivered")) is not None


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("strips", [True, False], ids=["taken off", "left"])
def test_a_readers_life_goes_below_a_path(
    open_office: Callable[..., Office], environment: dict[str, str], *, strips: bool, scheme: str
) -> None:
    base_url = f"{scheme}://example.com{PATH}"
    environment["NEWSLETTER_SITE__BASE_URL"] = base_url
    environment["NEWSLETTER_SIGNUP__FILL_TIME"] = "0s"
    office = open_office(require_second_factor="false")
    office.user("owner@example.org", Role.OWNER)
    proxy = Proxy(office.app, strips=strips)
    with TestClient(proxy, base_url=f"{scheme}://example.com", follow_redirects=False) as client:
        reader = Reader(client, base_url)
        sign_up(reader, office.parts, "ada@example.org")
        read(reader)
        look_around(reader, office.parts)
        sign_out(reader)
        names = {one.name: one.path for one in client.cookies.jar}
    assert names == {("__Secure-console" if scheme == "https" else "console"): PATH}


@pytest.mark.slow
@pytest.mark.parametrize("strips", [True, False], ids=["taken off", "left"])
@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_a_readers_life_goes_through_real_proxies(
    tmp_path: Path, kind: str, *, strips: bool
) -> None:
    port = free_port()
    base_url = f"http://127.0.0.1:{port}{PATH}"
    config = SandboxConfig(api_keys=frozenset({"SG.test"}), event_rates={}, event_delay=0.01)
    with start_sandbox(config) as sandbox:
        sandbox.set_webhook_url(f"{base_url}/webhooks/sendgrid/events")
        settings = {
            "NEWSLETTER_SITE__BASE_URL": base_url,
            "NEWSLETTER_SIGNUP__FILL_TIME": "0s",
            "NEWSLETTER_SENDGRID__HOST": sandbox.url,
            "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": sandbox.public_key,
        }
        with running(tmp_path, **settings) as service:
            parts, listens = service.parts, service.address[1]
            with transaction(parts.database) as session:
                hashed = parts.passwords.hashed(PASSWORD)
                users.set_password(session, service.owner, hashed)
            below = real_proxy(kind, tmp_path, service=listens, strips=strips, port=port)
            with below, httpx.Client(timeout=60) as client:
                reader = Reader(client, base_url)
                sign_up(reader, parts, "ada@example.org")
                create(parts, "first", at=datetime.now(UTC))
                mail = arrived(sandbox, "first", "ada@example.org")
                links = links_of(mail, base_url)
                until(lambda: is_delivered(parts))
                read(reader)
                assert live(reader, look_around(reader, parts)).startswith("event: progress data:")
                sign_out(reader)
                other = arrived(sandbox, "first", "reader@example.org")
                assert sandbox.one_click(other.id) == 200
                choose_and_leave(reader, parts, links)
