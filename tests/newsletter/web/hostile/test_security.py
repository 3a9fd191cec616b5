"""What every answer of the service holds to, asked of every route that there is."""

import asyncio
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute
from httpx2 import Response
from sqlalchemy import select

from newsletter.accounts.models import Role
from newsletter.db.engine import reading
from newsletter.db.orm import table_of
from newsletter.sending.models import OutboxEmail
from newsletter.web.console.base import session_cookie
from tests.newsletter.web.conftest import PASSWORD, Office
from tests.newsletter.web.hostile.poison import World

HTML = {"accept": "text/html"}
#: The same for everybody, so that others may keep it.
FOR_EVERYBODY = re.compile(r"/archive(/.*)?|/sitemap\.xml|/robots\.txt|/static/.*")
#: A mail is shown as its readers get it, in a sandbox: the only pages with styles within.
SHOWS_A_MAIL = {
    "/shared/{token}",
    "/archive/{slug}",
    "/console/issues/{slug}/mail",
    "/console/issues/_mail",
}
#: Go on for as long as somebody looks, which HEAD has no use for.
STREAMS = {"/console/sends/{send_id:int}/live"}
#: Addresses that are no route.
OTHERS = ("/nothing", "/console/nothing", "/static/site.css", "/static/nothing", "/", "/%ff")
#: Programs ask from other sites here, without a cookie.
FOR_OTHER_SITES = {"/subscribe", "/subscribe/challenge"}


@dataclass(frozen=True)
class Seen:
    """One answer, and how it was come by."""

    route: str
    path: str
    who: str
    answer: Response


#: Headers do not depend on the database, and there are many pages.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def world(open_office: Callable[..., Office], environment: dict[str, str]) -> World:
    environment["NEWSLETTER_INBOUND__KEY"] = "k" * 32
    return World(open_office(require_second_factor="false"), "harmless")


@pytest.fixture
def seen(world: World) -> list[Seen]:
    """What everybody gets of every page, of what is not there, and of what is no page."""
    found = []
    for route in world.places.routes:
        # In each of its states a page is looked at by test_poison.py.
        for path in list(world.places.paths(route))[:2]:
            for who, browser in world.visitors.items():
                for method in sorted((route.methods or set()) & {"GET", "POST"}):
                    if method == "POST" and who == "owner":
                        continue  # it would change what the next one is to see
                    answer = browser.client.request(method, path, headers=HTML)
                    found.append(Seen(route.path, path, who, answer))
    nobody = world.visitors["nobody"]
    found += [Seen(path, path, "nobody", nobody.get(path)) for path in OTHERS]
    return found


def routes(world: World, method: str) -> Iterator[APIRoute]:
    yield from (one for one in world.places.routes if method in (one.methods or ()))


@pytest.mark.slow
def test_every_answer_carries_the_headers_that_keep_it_in_its_place(seen: list[Seen]) -> None:
    assert len(seen) > 150
    for one in seen:
        head, where = one.answer.headers, f"{one.path} as {one.who}"
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in head["content-security-policy"].split(";")
            if part.strip()
        )
        assert policy["default-src"] == "'none'", where
        assert policy["base-uri"] == "'none'", where
        assert policy["frame-ancestors"] in {"'none'", "'self'"}, where
        for directive in ("script-src", "connect-src", "frame-src", "worker-src", "form-action"):
            assert set(policy.get(directive, "").split()) <= {"'self'", "'none'"}, where
        styles = "'self' 'unsafe-inline'".split()
        if one.route in SHOWS_A_MAIL and one.answer.status_code == 200:
            assert set(policy["style-src"].split()) <= set(styles), where
            assert "sandbox" in policy, where
            assert not {"allow-scripts", "allow-same-origin"} & set(policy["sandbox"].split())
        else:
            assert set(policy.get("style-src", "").split()) <= {"'self'"}, where
        assert head["x-content-type-options"] == "nosniff", where
        assert head["x-frame-options"] in {"DENY", "SAMEORIGIN"}, where
        assert (head["x-frame-options"] == "DENY") == (policy["frame-ancestors"] == "'none'"), where
        assert head["referrer-policy"] in {"no-referrer", "same-origin"}, where
        assert head["cross-origin-opener-policy"] == "same-origin", where
        assert "server" not in head, where
        assert "x-powered-by" not in head, where


@pytest.mark.slow
def test_no_page_has_scripts_or_styles_within(seen: list[Seen]) -> None:
    for one in seen:
        if "html" not in one.answer.headers.get("content-type", ""):
            continue
        where, text = f"{one.path} as {one.who}", one.answer.text
        for script in re.findall(r"<script[^>]*>[^<]*", text):
            assert re.match(r'<script [^>]*src="/static/[^"]*"[^>]*>\s*$', script), where
        assert not re.search(r"\son\w+\s*=", re.sub(r'"[^"]*"', '""', text)), where
        if one.route not in SHOWS_A_MAIL:
            assert "<style" not in text, where
            assert not re.search(r"<[^>]*\sstyle\s*=", text), where


@pytest.mark.slow
def test_what_is_for_one_person_is_kept_by_nobody_else(seen: list[Seen]) -> None:
    for one in seen:
        head, where = one.answer.headers, f"{one.path} as {one.who}"
        if FOR_EVERYBODY.fullmatch(one.path) and one.answer.status_code == 200:
            assert "set-cookie" not in head, where
        elif one.answer.status_code in {200, 303}:
            assert head.get("cache-control") == "no-store", where
        if one.route.startswith("/console") and "html" in head.get("content-type", ""):
            assert head["x-robots-tag"] == "noindex", where


@pytest.mark.slow
def test_every_cookie_is_for_us_alone(
    seen: list[Seen], open_office: Callable[..., Office], environment: dict[str, str]
) -> None:
    cookies = [cookie for one in seen for cookie in one.answer.headers.get_list("set-cookie")]
    assert cookies
    for one in cookies:
        assert re.fullmatch(r"console=[\w-]{43}; HttpOnly; Path=/; SameSite=lax", one)
    environment["NEWSLETTER_SITE__BASE_URL"] = "https://news.example.com"
    browser = open_office().browser()
    for path in ("/console/sign-in", "/console/forgot"):
        (one,) = browser.get(path).headers.get_list("set-cookie")
        assert re.fullmatch(
            r"__Host-console=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", one
        )


@pytest.mark.slow
def test_only_the_signup_talks_to_other_sites(world: World) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for route in world.places.routes:
        path = next(world.places.paths(route))
        for browser in (world.visitors["nobody"], world.visitors["owner"]):
            answer = browser.client.options(path, headers=asked)
            if route.path in FOR_OTHER_SITES:
                assert answer.headers.get("access-control-allow-credentials") is None
                continue
            assert answer.status_code == 405, route.path
            assert "access-control-allow-origin" not in answer.headers, route.path
            allowed = {one.strip() for one in answer.headers["allow"].split(",")}
            assert allowed <= {"GET", "HEAD", "POST"}, route.path


@pytest.mark.slow
def test_head_answers_as_get_does_and_without_a_body(world: World) -> None:
    for route in routes(world, "GET"):
        if route.path in STREAMS:
            continue
        for who, browser in world.visitors.items():
            path = next(world.places.paths(route))
            got = browser.client.get(path, headers=HTML)
            head = browser.client.head(path, headers=HTML)
            assert head.status_code == got.status_code, f"{path} as {who}"
            assert head.content == b"", path


@pytest.mark.slow
def test_a_forged_host_leads_nobody_away(world: World) -> None:
    forged = {"host": "evil.example", "x-forwarded-host": "evil.example", "accept": "text/html"}
    for route in routes(world, "GET"):
        for path in list(world.places.paths(route))[:3]:
            for browser in world.visitors.values():
                for address in (path, path + "/", path.rstrip("/") or "/"):
                    answer = browser.client.get(address, headers=forged)
                    assert "evil.example" not in answer.headers.get("location", ""), address
                    assert "evil.example" not in answer.text, address


def test_a_mail_to_an_operator_names_our_own_address(world: World) -> None:
    office, nobody = world.office, world.visitors["nobody"]
    office.user("alice@example.org")
    nobody.get("/console/forgot")
    nobody.post("/console/forgot", headers={"host": "evil.example"}, email="alice@example.org")
    with reading(office.parts.database) as session:
        notice = table_of(OutboxEmail)
        to_alice = select(notice).where(notice.c.email == "alice@example.org")
        mails = session.execute(to_alice).all()
    assert len(mails) == 1
    assert "http://127.0.0.1:8000/console/password/" in mails[0].html
    assert "evil.example" not in mails[0].html + mails[0].text


LINES = ["x\r\nX-Injected: 1", "x\nX-Injected: 1", "x\u2028X-Injected: 1", "%0d%0aX-Injected:%201"]


@pytest.mark.slow
def test_no_value_brings_a_header_with_it(world: World) -> None:
    owner = world.visitors["owner"]
    for route, value in itertools.product(world.places.routes, LINES):
        path = next(world.places.paths(route))
        for method in (route.methods or set()) & {"GET", "POST"}:
            query = dict.fromkeys(("next", "done", "q", "before", "page", "series"), value)
            answer = owner.client.request(
                method,
                path,
                params=query,
                headers=HTML | {"x-csrf-token": owner.csrf},
                data={**query, "email": value, "name": value} if method == "POST" else None,
            )
            assert "x-injected" not in answer.headers, f"{method} {path}"
            for name, text in answer.headers.multi_items():
                assert not re.search(r"[\r\n\u2028]", text), f"{method} {path}: {name}"


async def _raw(app: Any, path: str) -> tuple[int, bytes]:
    """Ask with a path that no client has tidied up."""
    answer: dict[str, Any] = {"body": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        answer["status"] = message.get("status", answer.get("status"))
        answer["body"] += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "client": ("192.0.2.9", 50000),
        "server": ("testserver", 80),
    }
    await app(scope, receive, send)
    return answer["status"], answer["body"]


STARTS = ["/static/", "/archive/", "/console/password/", "/view/", "/"]
CLIMBS = [
    "../app.py",
    "vendor/../../app.py",
    "....//app.py",
    "..\\app.py",
    "./../app.py",
    "//etc/passwd",
    "/etc/passwd",
    "../../../../../../../../etc/passwd",
    "site.css/../../app.py",
    "site.css\0.txt",
    "~root/.profile",
    "%2e%2e/app.py",
]


def test_no_path_leads_out_of_what_is_public(office: Office) -> None:
    for start, climb in itertools.product(STARTS, CLIMBS):
        status, body = asyncio.run(_raw(office.app, start + climb))
        assert status in {303, 307, 404, 405, 410}, start + climb
        assert b"create_app" not in body
        assert b"root:" not in body


def test_static_folders_are_not_listed(office: Office) -> None:
    browser = office.browser()
    for path in ("/static/", "/static/vendor", "/static/vendor/"):
        assert browser.get(path).status_code == 404


def test_each_step_of_signing_in_makes_a_token_that_nobody_knew(office: Office) -> None:
    """Session fixation: whoever planted a token, or saw one, is not in afterwards."""
    office.user("alice@example.org", Role.VIEWER)
    browser, spy = office.browser(), office.browser()
    planted = "p" * 43
    browser.token = planted
    spy.token = planted
    csrf = session_cookie.form_token(office.parts.form_keys, planted)
    answer = browser.post("/console/sign-in", email="alice@example.org", password=PASSWORD)
    assert answer.status_code == 303
    assert browser.token not in {planted, ""}
    assert spy.get("/console/").status_code == 303
    assert browser.get("/console/").status_code == 200
    # What the planter knows of forms is worth nothing either.
    forged = browser.client.post("/console/account/name", data={"csrf": csrf, "name": "x"})
    assert forged.status_code == 403
    seen = [planted, browser.token]
    form = {"current": PASSWORD, "password": PASSWORD + " new", "again": PASSWORD + " new"}
    assert browser.post("/console/account/password", **form).status_code == 303
    seen.append(browser.token)
    assert browser.post("/console/sign-out").status_code == 303
    seen.append(browser.token)
    assert browser.sign_in("alice@example.org", PASSWORD + " new").status_code == 303
    seen.append(browser.token)
    assert len(set(seen)) == 5
    for old in seen[:-1]:
        spy.token = old
        assert spy.get("/console/").status_code == 303
