"""A publication below a path: every route, template, script and setting, found from the program."""

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.routing import iter_route_contexts
from httpx2 import Response

import newsletter.web
from newsletter.accounts.models import Role
from newsletter.container import Container
from newsletter.errors import SettingsError
from newsletter.settings.kinds import OWN_PATHS
from newsletter.settings.load import load
from newsletter.web.app import create_app
from newsletter.web.base_path import ATTRIBUTES
from tests.newsletter.web.conftest import HTML, Office
from tests.newsletter.web.hostile.poison import World
from tests.proxies import PATH, Proxy

WEB = Path(newsletter.web.__file__).parent
#: As TestClient calls us.
ORIGIN = "http://testserver"
#: Attributes whose values begin with a slash and are no address: where to go on after signing in.
NO_ADDRESS = {"value"}
#: What a header may begin with to lead somewhere.
LEADS = re.compile(rf"/|{ORIGIN}")

#: What stands in an address does not depend on the database.
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
STRIPS = pytest.mark.parametrize("strips", [True, False], ids=["taken off", "left"])


class _Addresses(HTMLParser):
    """Finds everything in a page that leads to our own site, in whatever attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            own = re.match(r"/(?!/)|.*;\s*url=(?=/)", value or "")
            if own and name not in NO_ADDRESS:
                self.found.append((name, (value or "").removeprefix(own[0][:-1])))


def addresses(page: str) -> list[tuple[str, str]]:
    """Attribute and value of everything in a page that leads to our own site."""
    reader = _Addresses()
    reader.feed(page)
    reader.close()
    return reader.found


def past_the_path(answer: Response) -> Iterator[str]:
    """What in an answer leads past the path: in attributes, in words, in headers, in cookies."""
    text = answer.text
    if re.search("html|event-stream|svg", answer.headers.get("content-type", "")):
        yield from (f"{name}={to}" for name, to in addresses(text) if not is_below(to))
    yield from re.findall(rf"{ORIGIN}(?!{PATH}[/\"'<\s])\S*", text)
    for name, value in answer.headers.multi_items():
        if LEADS.match(value) and not is_below(urlsplit(value).path):
            yield f"{name}: {value}"
        if name == "set-cookie" and f"; Path={PATH};" not in value:
            yield f"{name}: {value}"


def is_below(path: str) -> bool:
    """Whether it is below the path, and not twice."""
    return re.match(rf"{PATH}/(?!{PATH[1:]}/)", path) is not None


@pytest.fixture
def office(
    open_office: Callable[..., Office], environment: dict[str, str], *, strips: bool
) -> Office:
    environment["NEWSLETTER_SITE__BASE_URL"] = f"{ORIGIN}{PATH}"
    environment["NEWSLETTER_INBOUND__KEY"] = "k" * 32
    opened = open_office(require_second_factor="false")
    opened.proxy = Proxy(opened.app, strips=strips)
    return opened


def test_each_address_in_a_template_stands_in_an_attribute_that_is_known() -> None:
    strange = set()
    for page in (WEB / "pages").rglob("*.html"):
        text = page.read_text()
        for name, value in re.findall(r'\s([a-z][a-z-]*)="((?:\{\{.*?\}\}|[^"])*)"', text):
            if value.startswith("/") and name not in {*ATTRIBUTES, *NO_ADDRESS}:
                strange.add((page.name, name, value))
            if name in ATTRIBUTES and re.match(r"\{%|\{#|\{\{(?!.*\}\})", value):
                strange.add((page.name, name, value))
        for found in re.findall(rf"\s(?:{'|'.join(ATTRIBUTES)})=(?!\")\S+", text):
            strange.add((page.name, found))
    assert not strange


def test_scripts_and_styles_know_no_address_from_the_root() -> None:
    own = [*(WEB / "static").glob("*.js"), *(WEB / "static").glob("*.css")]
    assert len(own) > 5
    for file in own:
        assert not re.search(r"[\"'`(]/[a-z]", file.read_text()), file.name


@pytest.mark.slow
@SQLITE
@STRIPS
def test_nothing_in_any_answer_leads_past_the_path(office: Office) -> None:
    world = World(office, "harmless")
    seen, wrong = 0, set()
    for route in world.places.routes:
        for method in sorted((route.methods or set()) & {"GET", "POST"}):
            for path in list(world.places.paths(route))[:2]:
                for who, browser in world.visitors.items():
                    data = {"csrf": browser.csrf} if method == "POST" else None
                    answer = browser.client.request(method, PATH + path, headers=HTML, data=data)
                    found = list(past_the_path(answer))
                    wrong |= {f"{method} {path} as {who}: {one}" for one in found}
                    if "html" in answer.headers.get("content-type", ""):
                        seen += len(addresses(answer.text))
    assert not wrong, "\n".join(sorted(wrong)[:20])
    assert seen > 1000


@pytest.mark.slow
@SQLITE
@STRIPS
def test_each_address_in_a_page_is_answered(office: Office) -> None:
    browser = office.signed_in(Role.OWNER)
    waiting = [f"{PATH}/console/", f"{PATH}/subscribe", f"{PATH}/", PATH]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        answer = browser.get(path)
        assert answer.status_code in {200, 302, 303, 307}, path
        assert not list(past_the_path(answer)), path
        to = answer.headers.get("location")
        kind = answer.headers.get("content-type", "")
        found = [("href", to)] if to else addresses(answer.text) if "html" in kind else []
        for name, value in found:
            plain = value.split("#")[0]
            if name in {"href", "src"} and plain not in known and len(known) < 300:
                known.add(plain)
                waiting.append(plain)
    assert any("/static/vendor/" in one for one in known)
    assert len(known) > 30


@SQLITE
@STRIPS
def test_somebody_who_is_not_signed_in_comes_back_to_the_page(office: Office) -> None:
    office.user("owner@example.org", Role.OWNER)
    browser = office.browser()
    asked = browser.get(f"{PATH}/console/log?kind=x").headers["location"]
    assert asked == f"{PATH}/console/sign-in?next=%2Fconsole%2Flog%3Fkind%3Dx"
    assert browser.get(asked).status_code == 200
    after = browser.post(
        f"{PATH}/console/sign-in",
        headers={"origin": ORIGIN},
        email="owner@example.org",
        password="correct horse battery staple",
        next="/console/log?kind=x",
    )
    assert after.headers["location"] == f"{PATH}/console/log?kind=x"


@SQLITE
@STRIPS
@pytest.mark.parametrize("to", [f"{ORIGIN}/thanks", f"{ORIGIN}{PATH}/archive"])
def test_where_a_signup_asks_to_go_on_is_left_as_it_is(office: Office, to: str) -> None:
    """The host's other pages stand beside the path."""
    after = office.browser().post(f"{PATH}/subscribe", email="ada@example.org", next=to)
    assert after.headers["location"] == to


@SQLITE
@pytest.mark.parametrize("path", ["/console", "/archive/x", "/static", "/healthz", "/subscribe"])
def test_a_path_that_is_one_of_our_own_is_refused(environment: dict[str, str], path: str) -> None:
    environment["NEWSLETTER_SITE__BASE_URL"] = f"https://example.com{path}"
    with pytest.raises(SettingsError, match="a path of the service's own") as refused:
        load(environment)
    assert refused.value.place.endswith("site.base_url")


@SQLITE
def test_no_route_is_missing_among_our_own_paths(environment: dict[str, str]) -> None:
    parts = Container(load(environment))
    routes = iter_route_contexts(create_app(parts, background=False).routes)
    parts.database.dispose()
    assert {(one.path or "/").split("/")[1] for one in routes} - {""} == OWN_PATHS


@SQLITE
@pytest.mark.parametrize(
    "path",
    ["/a;b", '/a"b', "/{{x}}", "/café", "/caf%C3%A9", "/a//b", "/a/../b", "/.", "/a b", "//"],
)
def test_a_path_that_would_not_be_plain_in_pages_and_cookies_is_refused(
    environment: dict[str, str], path: str
) -> None:
    environment["NEWSLETTER_SITE__BASE_URL"] = f"https://example.com{path}/x"
    with pytest.raises(SettingsError) as refused:
        load(environment)
    assert refused.value.place.endswith("site.base_url")


@pytest.mark.slow
@SQLITE
@pytest.mark.parametrize("path", ["/consoles", "/a.b-c_d~e/f"])
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
    assert f"Disallow: {path}/console/\n" in browser.get(f"{prefix}/robots.txt").text


@SQLITE
@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://example.com", r"console=[\w-]{43}; HttpOnly; Path=/; SameSite=lax"),
        (
            "https://example.com",
            r"__Host-console=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure",
        ),
        ("http://example.com/a/b", r"console=[\w-]{43}; HttpOnly; Path=/a/b; SameSite=lax"),
        (
            "https://example.com/a",
            r"__Secure-console=[\w-]{43}; HttpOnly; Path=/a; SameSite=lax; Secure",
        ),
    ],
)
def test_browsers_take_the_cookie_and_send_it_to_us_alone(
    open_office: Callable[..., Office], environment: dict[str, str], base_url: str, expected: str
) -> None:
    """`__Host-` asks for Path=/ (RFC 6265bis): below a path a browser would drop the cookie."""
    environment["NEWSLETTER_SITE__BASE_URL"] = base_url
    given = open_office().browser().get("/console/sign-in").headers["set-cookie"]
    assert re.fullmatch(expected, given)


@SQLITE
def test_the_cookie_of_a_service_above_ours_does_not_hide_ours(
    open_office: Callable[..., Office], environment: dict[str, str]
) -> None:
    """Browsers send both, the one with the longer path first."""
    environment["NEWSLETTER_SITE__BASE_URL"] = f"{ORIGIN}{PATH}"
    office = open_office(require_second_factor="false")
    ours, above = office.signed_in(Role.OWNER).token, "x" * 43
    browser = office.browser()
    for both in ([f"console={ours}; console={above}"], [f"console={ours}", f"console={above}"]):
        headers = [("accept", "text/html"), *(("cookie", one) for one in both)]
        assert browser.client.get("/console/", headers=headers).status_code == 200
