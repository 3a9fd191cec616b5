"""A publication below a path: https://example.com/news, behind proxies that take it off, or not."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2 as httpx
import pytest
from httpx2 import Response
from sqlalchemy import select
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

import newsletter.web
from newsletter.accounts import users
from newsletter.accounts.models import Role
from newsletter.assembly import Assembly
from newsletter.database import reading, transaction
from newsletter.errors import SettingsError
from newsletter.links import Purpose
from newsletter.sending.models import Notice
from newsletter.settings import load
from newsletter.web.app import create_app
from newsletter.web.base_path import ATTRIBUTES
from subscribers.models import Subscriber, Suppression
from subscribers.schema import table_of
from tests.fuzz.service import running
from tests.newsletter.web.conftest import PASSWORD, Office
from tests.newsletter.web.poison import World

PATH = "/news/letters"
HTML = {"accept": "text/html"}
PAGES = Path(newsletter.web.__file__).parent / "pages"
#: Every attribute of a tag and its value.
ATTRIBUTE = re.compile(r'\s([a-z][a-z-]*)="([^"]*)"')
#: Values that begin with a slash and are no address of a page: where to go on after signing in.
NO_ADDRESS = {"value", "data-keep"}

#: What stands in an address does not depend on the database.
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Proxy:
    """A reverse proxy as a browser meets it: below PATH we are, and nowhere else."""

    def __init__(self, app: ASGIApp, *, strips: bool) -> None:
        self.app, self.strips = app, strips

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            assert path == PATH or path.startswith(f"{PATH}/"), f"{path} is somebody else's"
            if self.strips:
                rest = path.removeprefix(PATH) or "/"
                scope = {**scope, "path": rest, "raw_path": rest.encode()}
        await self.app(scope, receive, send)


def addresses(page: str) -> Iterator[tuple[str, str]]:
    """Attribute and value of everything in a page that leads to our own site."""
    for tag in re.findall(r"<[a-zA-Z][^>]*>", page):
        for name, value in ATTRIBUTE.findall(tag):
            if value.startswith("/") and not value.startswith("//") and name not in NO_ADDRESS:
                yield name, unescape(value)


def test_no_attribute_of_a_template_leads_past_the_path() -> None:
    """Whatever begins with a slash, or is put in as a whole, stands in an attribute we know."""
    strange = set()
    for page in PAGES.rglob("*.html"):
        for name, value in ATTRIBUTE.findall(page.read_text()):
            if value.startswith("/") and name not in {*ATTRIBUTES, *NO_ADDRESS}:
                strange.add((page.name, name, value))
            if name in ATTRIBUTES and re.match(r"\{%|\{#", value):
                strange.add((page.name, name, value))
    assert not strange
    for script in (PAGES.parent / "static").glob("*.js"):
        assert not re.search(r"[\"'`]/(console|static|subscribe|archive)", script.read_text())
    for sheet in (PAGES.parent / "static").glob("*.css"):
        assert not re.search(r"url\([\"']?/", sheet.read_text())


@SQLITE
@pytest.mark.parametrize("asked", ["", PATH], ids=["taken off", "left"])
def test_every_page_leads_below_the_path(
    open_office: Callable[..., Office], environment: dict[str, str], asked: str
) -> None:
    environment["NEWSLETTER_SITE__BASE_URL"] = f"http://127.0.0.1:8000{PATH}"
    environment["NEWSLETTER_INBOUND__KEY"] = "k" * 32
    world = World(open_office(require_second_factor="false"), "harmless")
    seen, wrong = 0, []
    for route in world.places.routes:
        for method in sorted((route.methods or set()) & {"GET", "POST"}):
            for path in list(world.places.paths(route))[:2]:
                for who, browser in world.visitors.items():
                    where = f"{method} {path} as {who}"
                    data = {"csrf": browser.csrf} if method == "POST" else None
                    answer = browser.client.request(method, asked + path, headers=HTML, data=data)
                    if not re.search("html", answer.headers.get("content-type", "")):
                        found = []
                    elif "style-src 'unsafe-inline'" in answer.headers["content-security-policy"]:
                        found = []  # a mail, whose links are whole
                    else:
                        found = list(addresses(answer.text))
                    seen += len(found)
                    wrong += [f"{where}: {one}" for one in found if not _is_below(one[1])]
                    to = answer.headers.get("location", f"{PATH}/")
                    if not _is_below(urlsplit(to).path):
                        wrong.append(f"{where}: to {to}")
                    for given in answer.headers.get_list("set-cookie"):
                        if f"; Path={PATH};" not in given:
                            wrong.append(f"{where}: {given}")
    assert not wrong, "\n".join(sorted(set(wrong))[:20])
    assert seen > 1000


def _is_below(path: str) -> bool:
    return path.startswith(f"{PATH}/") and not path.startswith(f"{PATH}{PATH}")


@SQLITE
def test_each_address_in_a_page_is_answered(
    open_office: Callable[..., Office], environment: dict[str, str]
) -> None:
    environment["NEWSLETTER_SITE__BASE_URL"] = f"http://127.0.0.1:8000{PATH}"
    office = open_office(require_second_factor="false")
    browser = office.signed_in(Role.OWNER)
    waiting, known = [f"{PATH}/console/", f"{PATH}/subscribe", f"{PATH}/", PATH], set()
    while waiting:
        path = waiting.pop()
        answer = browser.get(path)
        assert answer.status_code in {200, 302, 303, 307}, path
        to = answer.headers.get("location")
        found = [("href", to)] if to else list(addresses(answer.text))
        for name, value in found:
            plain = value.split("#")[0]
            if name in {"href", "src"} and plain not in known and len(known) < 300:
                known.add(plain)
                waiting.append(plain)
    assert any("/static/vendor/" in one for one in known)
    assert len(known) > 30


class Reader:
    """A browser outside: follows what pages and mails say, and keeps cookies by their path."""

    def __init__(self, client: Any, base_url: str) -> None:
        self.client, self.base_url = client, base_url
        self.at = base_url

    def go(self, to: str, method: str = "GET", **more: Any) -> Response:
        headers = HTML | more.pop("headers", {})
        answer = self.client.request(method, urljoin(self.at, to), headers=headers, **more)
        self.at = urljoin(self.at, to)
        while answer.headers.get("location"):
            self.at = urljoin(self.at, answer.headers["location"])
            assert self.at.startswith(self.base_url), self.at
            answer = self.client.get(self.at, headers=HTML)
        return answer

    def submit(self, page: str, action: str, **fields: Any) -> Response:
        """Fill in the form whose action ends so, with what it holds already."""
        form = next(
            one
            for one in re.findall(r"<form.*?</form>", page, re.DOTALL)
            if re.search(rf'action="[^"]*{action}[^"]*"', one)
        )
        to = re.search(r'action="([^"]*)"', form)
        hidden = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form))
        assert to
        return self.go(unescape(to[1]), "POST", data={**hidden, **fields})


def mail(parts: Assembly, kind: str) -> str:
    """The link in the latest mail that holds one of this kind."""
    notice = table_of(Notice)
    with reading(parts.database) as session:
        texts = session.scalars(select(notice.c.text).order_by(notice.c.id.desc())).all()
    return next(
        found[0] for text in texts if (found := re.search(rf"https?://\S+/{kind}/\S+", text))
    )


def walk(reader: Reader, parts: Assembly) -> None:
    """A reader's whole life, and a sign-in with a post in the console."""
    form = reader.go(f"{reader.base_url}/subscribe").text
    assert reader.submit(form, "/subscribe", email="ada@example.org").status_code == 200
    confirm = mail(parts, "confirm")
    assert confirm.startswith(f"{reader.base_url}/confirm/")
    asked = reader.go(confirm).text
    assert "You are subscribed" in reader.submit(asked, "/confirm/").text

    person = table_of(Subscriber)
    with reading(parts.database) as session:
        number = session.scalars(
            select(person.c.id).where(person.c.email == "ada@example.org")
        ).one()
    token = parts.links.token(Purpose.RECIPIENT, 1, number)
    chosen = reader.go(f"{reader.base_url}/preferences/{token}").text
    assert reader.submit(chosen, "/preferences/", pause="2").status_code == 200
    assert reader.go(f"{reader.base_url}/view/{token}").status_code in {200, 404}
    asked = reader.go(f"{reader.base_url}/unsubscribe/{token}").text
    assert reader.submit(asked, "/unsubscribe/").status_code == 200
    one_click = {"List-Unsubscribe": "One-Click"}
    answer = reader.client.post(f"{reader.base_url}/unsubscribe/{token}", data=one_click)
    assert answer.status_code == 200
    with reading(parts.database) as session:
        assert session.scalar(select(table_of(Suppression).c.address_hash)) is not None

    for page in ("/archive", "/archive/feed.xml", "/sitemap.xml", "/healthz", "/static/site.css"):
        assert reader.go(reader.base_url + page).status_code == 200, page
    for feed in ("/archive/feed.xml", "/sitemap.xml"):
        links = re.findall(
            r">(https?://[^<]+)<|href=\"(http[^\"]+)\"", reader.go(reader.base_url + feed).text
        )
        own = [a or b for a, b in links if "w3.org" not in (a or b)]
        assert own
        assert all(link.startswith(reader.base_url) for link in own)

    door = reader.go(f"{reader.base_url}/console/issues").text
    page = reader.submit(door, "/console/sign-in", email="owner@example.org", password=PASSWORD)
    assert reader.at == f"{reader.base_url}/console/issues"
    assert page.status_code == 200
    account = reader.go(f"{reader.base_url}/console/account").text
    assert reader.submit(account, "/console/account", name="Ada L.").status_code == 200
    assert "Ada L." in reader.go(f"{reader.base_url}/console/").text
    assert (
        reader.client.get(f"{reader.base_url}/webhooks/sendgrid/events", headers=HTML).status_code
        == 405
    )


@SQLITE
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
        walk(Reader(client, base_url), office.parts)
        names = {one.name: one.path for one in client.cookies.jar}
    assert names == {("__Secure-console" if scheme == "https" else "console"): PATH}


@SQLITE
@pytest.mark.parametrize("path", ["/console", "/archive/x", "/static", "/healthz", "/subscribe"])
def test_a_path_that_is_one_of_our_own_is_refused(environment: dict[str, str], path: str) -> None:
    environment["NEWSLETTER_SITE__BASE_URL"] = f"https://example.com{path}"
    parts = Assembly(load(environment))
    with pytest.raises(SettingsError) as refused:
        create_app(parts, background=False)
    assert refused.value.place == "site.base_url"
    parts.database.dispose()


@SQLITE
@pytest.mark.parametrize("path", ["/caf%C3%A9", "/consoles", "/a.b-c_d~e/f"])
@pytest.mark.parametrize("below", [True, False])
def test_other_paths_are_told_apart(
    open_office: Callable[..., Office], environment: dict[str, str], path: str, *, below: bool
) -> None:
    environment["NEWSLETTER_SITE__BASE_URL"] = f"http://example.com{path}/"
    browser = open_office().browser()
    prefix = path if below else ""
    assert browser.get(f"{prefix}/console/sign-in").status_code == 200
    assert browser.get(f"{prefix}/console").headers["location"] == f"{path}/console/"
    assert browser.get(f"{prefix}x/console/sign-in").status_code == 404
    assert browser.get(f"{prefix}/").headers["location"] == f"{path}/subscribe"


NGINX = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
    uwsgi_temp_path t4; scgi_temp_path t5;
    server {{
        listen 127.0.0.1:{port};
        location {path}/ {{
            proxy_pass http://127.0.0.1:{service}{slash};
            proxy_set_header Host $host:$server_port;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    {directive} {path}/* {{
        reverse_proxy 127.0.0.1:{service}
    }}
}}
"""


@contextmanager
def proxy(kind: str, folder: Path, *, port: int, service: int, strips: bool) -> Iterator[None]:
    """nginx or Caddy as docs/proxy.md has them."""
    words = {"port": port, "service": service, "path": PATH}
    if kind == "nginx":
        text = NGINX.format(**words, slash="/" if strips else "")
        command = ["nginx", "-p", str(folder), "-c", str(folder / "proxy.conf")]
    else:
        text = CADDY.format(**words, directive="handle_path" if strips else "handle")
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "proxy.conf")]
    (folder / "proxy.conf").write_text(text)
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin", "HOME": str(folder)}
        )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "proxy.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("strips", [True, False], ids=["taken off", "left"])
@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_a_readers_life_goes_through_real_proxies(
    tmp_path: Path, kind: str, *, strips: bool
) -> None:
    if shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip(f"{kind} is not on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base_url = f"http://127.0.0.1:{port}{PATH}"
    more = {"NEWSLETTER_SITE__BASE_URL": base_url, "NEWSLETTER_SIGNUP__FILL_TIME": "0s"}
    with running(tmp_path, **more) as service:
        with transaction(service.parts.database) as session:
            hashed = service.parts.passwords.hashed(PASSWORD)
            users.set_password(session, service.owner, hashed)
        below = proxy(kind, tmp_path, port=port, service=service.address[1], strips=strips)
        with below, httpx.Client(timeout=60) as client:
            walk(Reader(client, base_url), service.parts)
