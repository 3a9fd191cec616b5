"""Raw requests: a good one for every route, found from the program, and hostile ones made of it."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

import h11
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

import newsletter.web
from newsletter.web.app import create_app
from newsletter.web.base_path import base_path
from tests.fuzz.service import INBOUND_KEY, Service

_WEB = Path(newsletter.web.__file__).parent
_FORM = b"application/x-www-form-urlencoded"
#: The longest form that is sent: just below what a page takes.
_MOST = 60_000

#: Values that somebody may write into a field, a query or an address.
TEXTS = (
    *("", "0", "-1", "1", "9" * 19, "9" * 400, "9" * 5000, "1e400", "NaN", "٣", "x" * 300),
    *("\0", "a\0b", "ä" * 500, "\u202e\ufeff\u2028", "' OR 1=1 --", "%", "{{7*7}}", "../../etc"),
    *("a@example.org", "2026-12-01", "2026-13-45T99:99", "a\r\nSet-Cookie: b=c", "[" * 3000),
    *('{"a": 1}', '{"a": ' * 500, "\\" * 3000, "* " * 500, "[a](" * 500, "<" * 2000, "on", "yes"),
    *("0001-01-01T00:00", "9999-12-31T23:59", "daily 99:99", "Mars/Base", "everybody", "letter"),
)


@dataclass(frozen=True)
class Good:
    """A request that its route understands; ``csrf`` and the cookie are put in when it is sent."""

    method: str
    path: str
    query: tuple[str, ...] = ()
    form: tuple[str, ...] = ()


@dataclass
class Raw:
    """A request as bytes, still in parts."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    #: The form's fields that the body was made of.
    fields: dict[str, str] = field(default_factory=dict)
    version: bytes = b"HTTP/1.1"
    end: bytes = b"\r\n"

    def __bytes__(self) -> bytes:
        lines = [b" ".join((self.method, self.target, self.version))]
        lines += [name + b": " + value for name, value in self.headers]
        return self.end.join([*lines, b"", self.body])


@dataclass(frozen=True)
class Sent:
    """A request as it is sent: of which route, and what was done to it."""

    what: str
    data: bytes
    #: Whether a server has something to answer, without another byte.
    whole: bool


Hostile = Callable[[Raw, random.Random], bytes]


def good_requests(service: Service) -> list[Good]:
    """One for each route and method, with what the route reads of queries and forms."""
    found = []
    app = create_app(service.parts, background=False)
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            path = re.sub(r"\{\w+:int\}", "1", route.path).replace("{key}", INBOUND_KEY)
            path = re.sub(r"\{token\}", service.token, path)
            path = re.sub(r"\{\w+(:path)?\}", "x", path)
            query, form = _read_by(route)
            found += [Good(method, path, query, form) for method in sorted(route.methods)]
    files = [one for one in (_WEB / "static").rglob("*") if one.is_file()]
    names = sorted(str(one.relative_to(_WEB / "static")) for one in files)
    return found + [Good("GET", f"/static/{name}") for name in (*names, "nothing")]


def names_in_forms() -> list[str]:
    """The names of all fields of our pages: what a route may read without declaring it."""
    pages = [page.read_text() for page in sorted((_WEB / "pages").rglob("*.html"))]
    return sorted({name for page in pages for name in re.findall(r'\sname="([\w.-]+)"', page)})


def _read_by(route: APIRoute) -> tuple[tuple[str, ...], tuple[str, ...]]:
    query: list[str] = []
    form: list[str] = []
    waiting: list[Dependant] = [route.dependant]
    while waiting:
        one = waiting.pop()
        query += [each.alias for each in one.query_params]
        form += [each.alias for each in one.body_params]
        waiting += one.dependencies
    return tuple(query), tuple(form)


@dataclass
class Maker:
    """Makes good requests with values that somebody may have chosen."""

    service: Service
    #: Begins a session, or goes on with one: its cookie, and the token of its forms.
    session: Callable[[], tuple[str, str]]
    dice: random.Random

    def __post_init__(self) -> None:
        self._below = base_path(self.service.parts.settings.site.base_url)
        self._names = names_in_forms()

    def raw(self, good: Good) -> Raw:
        """The request; half of them with a session, half of them below the path of base_url."""
        dice = self.dice
        asked = [name for name in good.query if dice.random() < 0.5]
        query = urlencode({name: dice.choice(TEXTS)[:300] for name in asked})
        below = dice.choice(("", self._below))
        target = below + quote(good.path, safe="/") + (f"?{query}" if query else "")
        headers = [(b"Host", b"127.0.0.1"), (b"Connection", b"close"), (b"Accept", b"text/html")]
        made = Raw(good.method.encode(), target.encode(), headers)
        cookie, csrf = self.session() if dice.random() < 0.5 else ("", "")
        if cookie:
            headers.append((b"Cookie", b"console=" + cookie.encode()))
        if good.method == "POST":
            names = {*good.form, *dice.sample(self._names, 4)}
            made.fields = {name: dice.choice(TEXTS) for name in sorted(names)} | {"csrf": csrf}
            # The token first: what is too long is cut.
            made.body = urlencode(dict(reversed(made.fields.items()))).encode()[:_MOST]
            headers.append((b"Content-Type", _FORM))
            headers.append((b"Content-Length", b"%d" % len(made.body)))
        return made


def stream(
    service: Service,
    hostile: tuple[Hostile, ...],
    *,
    count: int,
    seed: int,
    session: Callable[[], tuple[str, str]],
) -> Iterator[Sent]:
    """So many requests. Each route comes twice before chance decides."""
    dice = random.Random(seed)
    every = good_requests(service)
    maker = Maker(service, session, dice)
    for number in range(count):
        good = every[number % len(every)] if number < 2 * len(every) else dice.choice(every)
        change = dice.choice(hostile)
        data = change(maker.raw(good), dice)
        what = f"{good.method} {good.path} {change.__name__}"
        yield Sent(what, data, is_whole(data))


def is_whole(data: bytes) -> bool:
    """Whether a server has something to answer, without another byte."""
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.EndOfMessage):
                return True
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return False
    except h11.RemoteProtocolError:
        return True
    return False
