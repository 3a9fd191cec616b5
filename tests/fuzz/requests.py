"""Raw requests: a good one for every route, and what becomes of it in hostile hands."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlencode

import h11
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from newsletter.web.app import create_app
from tests.fuzz.service import INBOUND_KEY, Service

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Good:
    """A request that its route understands; ``csrf`` and the cookie are put in when it is sent."""

    method: str
    path: str
    query: tuple[str, ...] = ()
    form: tuple[str, ...] = ()


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
    found += [Good("GET", f"/static/{name}") for name in ("site.css", "console.js", "nothing")]
    return found


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
class Raw:
    """A request as bytes, still in parts."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    version: bytes = b"HTTP/1.1"
    end: bytes = b"\r\n"

    def __bytes__(self) -> bytes:
        lines = [b" ".join((self.method, self.target, self.version))]
        lines += [name + b": " + value for name, value in self.headers]
        return self.end.join([*lines, b"", self.body])


TEXTS = (
    *("", "0", "-1", "1", "9" * 19, "9" * 400, "9" * 5000, "1e400", "NaN", "٣", "x" * 300),
    *("\0", "a\0b", "ä" * 500, "\u202e\ufeff\u2028", "' OR 1=1 --", "%", "{{7*7}}", "../../etc"),
    *("a@example.org", "2026-12-01", "2026-13-45T99:99", "a\r\nSet-Cookie: b=c", "[" * 3000),
    *('{"a": 1}', '{"a": ' * 500, "\\" * 3000, "* " * 500, "[a](" * 500, "<" * 2000, "on", "yes"),
)
HEADERS = tuple(
    name.encode()
    for name in (
        *("accept", "accept-encoding", "accept-language", "authorization", "connection", "cookie"),
        *("content-encoding", "content-length", "content-type", "expect", "forwarded", "host"),
        *("if-match", "if-modified-since", "if-none-match", "if-range", "keep-alive", "origin"),
        *("hx-request", "last-event-id", "range", "referer", "sec-fetch-site", "te", "trailer"),
        *("transfer-encoding", "upgrade", "user-agent", "via", "x-csrf-token", "x-forwarded-for"),
        *("x-forwarded-host", "x-forwarded-proto", "x-twilio-email-event-webhook-signature"),
        *("x-twilio-email-event-webhook-timestamp", "x-http-method-override", "x", ""),
    )
)
METHODS = b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PRI get G\xc3\xa9T".split()
BODIES = (
    (b"application/json", b"{"),
    (b"application/json", b"[" * 30_000),
    (b"application/json", b'{"a": 1e999, "b": "\\u0000", "c": "\\ud800"}'),
    (b"application/json", b"\xff\xfe"),
    (b"application/x-www-form-urlencoded", b"a=%ff%00&a&&=&csrf=%ff"),
    (b"application/x-www-form-urlencoded; charset=utf-7", b"email=+AGE-"),
    (b"application/x-www-form-urlencoded", b"&".join(b"a%d=b" % n for n in range(3000))),
    (b"application/x-www-form-urlencoded", b"a=" + b"b" * 70_000),
    (b"multipart/form-data", b"--x\r\n"),
    (
        b"multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n\0\r\n--x--",
    ),
    (b"multipart/form-data; boundary=" + b"x" * 300, b"--" + b"x" * 300),
    (b"multipart/form-data; boundary=x", b"--x\r\nA" * 1000),
    (b"multipart/form-data; boundary=\xff", b"--\xff--"),
    (b"text/xml", b"<a/>"),
    (b"", b"\0" * 1000),
)


def begun(good: Good, session: tuple[str, str] | None, dice: random.Random) -> Raw:
    """The good request, with values that somebody may have chosen."""
    query = urlencode(
        {name: dice.choice(TEXTS)[:300] for name in good.query if dice.random() < 0.5}
    )
    target = quote(good.path, safe="/") + (f"?{query}" if query else "")
    headers = [(b"Host", b"127.0.0.1"), (b"Connection", b"close"), (b"Accept", b"text/html")]
    body = b""
    cookie, csrf = session or ("", "")
    if session is not None:
        headers.append((b"Cookie", b"console=" + cookie.encode()))
    if good.method == "POST":
        fields = {name: dice.choice(TEXTS) for name in good.form}
        body = urlencode({**fields, "csrf": csrf}).encode()[:60_000]
        headers.append((b"Content-Type", FORM.encode()))
        headers.append((b"Content-Length", b"%d" % len(body)))
    return Raw(good.method.encode(), target.encode(), headers, body)


def _as_it_is(raw: Raw, _dice: random.Random) -> bytes:
    return bytes(raw)


def _method(raw: Raw, dice: random.Random) -> bytes:
    return bytes(replace(raw, method=dice.choice(METHODS)))


def _target(raw: Raw, dice: random.Random) -> bytes:
    odd = dice.choice(
        [
            raw.target.replace(b"/", b"//"),
            raw.target + b"/",
            raw.target + b"/%2e%2e/%00/%ff",
            b"http://evil.example" + raw.target,
            b"//evil.example" + raw.target,
            b"*",
            b"evil.example:443",
            raw.target + b"#" + bytes(dice.randrange(33, 255) for _ in range(9)),
            raw.target + b"?" + b"a=b&" * 3000,
            raw.target.replace(b"1", dice.choice([b"0", b"9" * 18, b"9" * 19, b"9" * 5000, b"-1"])),
            raw.target.replace(b"x", quote(dice.choice(TEXTS)[:2000], safe="").encode()),
            b"",
            b"/" + b"a" * 70_000,
        ]
    )
    return bytes(replace(raw, target=odd))


def _header(raw: Raw, dice: random.Random) -> bytes:
    more = [
        (dice.choice(HEADERS), dice.choice(TEXTS)[:4000].encode("utf-8", "replace"))
        for _ in range(dice.randint(1, 5))
    ]
    if dice.random() < 0.2:
        more = [(dice.choice(HEADERS), b"a")] * dice.choice([50, 500, 3000])
    return bytes(replace(raw, headers=dice.sample(raw.headers, len(raw.headers)) + more))


def _without(raw: Raw, dice: random.Random) -> bytes:
    return bytes(replace(raw, headers=dice.sample(raw.headers, dice.randint(0, len(raw.headers)))))


def _body(raw: Raw, dice: random.Random) -> bytes:
    kind, body = dice.choice(BODIES)
    kept = [one for one in raw.headers if not one[0].startswith(b"Content-")]
    length = (b"Content-Length", b"%d" % len(body))
    return bytes(replace(raw, headers=[*kept, (b"Content-Type", kind), length], body=body))


def _chunks(raw: Raw, dice: random.Random) -> bytes:
    kept = [one for one in raw.headers if one[0] != b"Content-Length"]
    size = dice.choice(
        [b"%x" % len(raw.body), b"-1", b"zz", b"f" * 20, b"0x5", b"5;a=" + b"b" * 5000]
    )
    body = size + b"\r\n" + raw.body + b"\r\n0\r\n" + dice.choice([b"\r\n", b"A: b\r\n\r\n", b""])
    coding = dice.choice(
        [b"chunked", b"chunked, chunked", b"gzip, chunked", b"identity", b"\x0bchunked"]
    )
    return bytes(replace(raw, headers=[*kept, (b"Transfer-Encoding", coding)], body=body))


def _lengths(raw: Raw, dice: random.Random) -> bytes:
    odd = dice.choice([b"-1", b"+5", b"5, 5", b"5, 6", b"0x5", b"9" * 30, b"", b"1e3", b"\xc2\xb2"])
    more = [(b"Content-Length", odd)]
    if dice.random() < 0.5:
        more.append((b"Transfer-Encoding", b"chunked"))
    return bytes(replace(raw, headers=[*raw.headers, *more]))


def _version(raw: Raw, dice: random.Random) -> bytes:
    odd = [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.9", b"http/1.1", b"HTTP/1.1 x", b""]
    return bytes(replace(raw, version=dice.choice(odd)))


def _lines(raw: Raw, dice: random.Random) -> bytes:
    return bytes(replace(raw, end=dice.choice([b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\0\r\n"])))


def _flipped(raw: Raw, dice: random.Random) -> bytes:
    data = bytearray(bytes(raw))
    for _ in range(dice.choice([1, 2, 5, 30])):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


def _cut(raw: Raw, dice: random.Random) -> bytes:
    data = bytes(raw)
    return data[: dice.randrange(len(data))]


def _spliced(raw: Raw, dice: random.Random) -> bytes:
    data = bytes(raw)
    a, b = sorted(dice.randrange(len(data)) for _ in range(2))
    noise = dice.randbytes(dice.choice([0, 1, 10, 1000]))
    return data[:a] + noise + data[a:b] * dice.choice([0, 2, 20]) + data[b:]


def _noise(_raw: Raw, dice: random.Random) -> bytes:
    return dice.choice([dice.randbytes(2000), b"\x16\x03\x01\x02\x00\x01", b"\r\n" * 500, b"\0"])


def _pipelined(raw: Raw, dice: random.Random) -> bytes:
    kept = replace(raw, headers=[one for one in raw.headers if one[0] != b"Connection"])
    return bytes(kept) * dice.choice([2, 5]) + bytes(raw)


MUTATIONS: tuple[Callable[[Raw, random.Random], bytes], ...] = (
    *(_as_it_is, _as_it_is, _as_it_is),
    *(_method, _target, _header, _without, _body, _chunks, _lengths, _version, _lines),
    *(_flipped, _cut, _spliced, _noise, _pipelined),
)


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
    except (h11.RemoteProtocolError, RuntimeError):
        return True
    return False


def stream(
    service: Service, count: int, seed: int, session: Callable[[], tuple[str, str]]
) -> Iterator[tuple[str, bytes]]:
    """So many requests, and what was done to each; half of them with a session."""
    dice = random.Random(seed)
    every = good_requests(service)
    for number in range(count):
        good = every[number % len(every)] if number < 2 * len(every) else dice.choice(every)
        mutation = dice.choice(MUTATIONS)
        raw = begun(good, session() if dice.random() < 0.5 else None, dice)
        yield f"{good.method} {good.path} {mutation.__name__.strip('_')}", mutation(raw, dice)
