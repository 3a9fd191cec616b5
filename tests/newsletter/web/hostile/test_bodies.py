"""No route takes more of a body than it declares: whoever asks, and however the body comes."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.types import Message

from newsletter.accounts.models import Role
from newsletter.web.app import SMALL_BODY
from tests.newsletter.web.conftest import Office
from tests.newsletter.web.hostile.faults import is_fault

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
#: What the server hands over at a time.
CHUNK = 64 * 1024
#: Takes files of many megabytes, and reads none of it before it knows whose they are.
UPLOAD = "/console/subscribers/import"

#: What is read of a body does not depend on the database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass
class Answer:
    """What a request came to, and how many bytes of its body were read for that."""

    status: int
    headers: dict[str, str]
    body: bytes
    read: int


def ask(
    app: FastAPI,
    method: str,
    path: str,
    headers: dict[str, str],
    body: Iterator[bytes],
    *,
    ends: bool = True,
) -> Answer:
    """One request as a server hands it on: its body in pieces, each when it is asked for.

    Where it does not end, the client is gone after its last piece.
    """
    answer = Answer(0, {}, b"", 0)

    async def pieces() -> AsyncIterator[Message]:
        for piece in body:
            answer.read += len(piece)
            yield {"type": "http.request", "body": piece, "more_body": True}
        if ends:
            yield {"type": "http.request", "body": b"", "more_body": False}
        while True:
            yield {"type": "http.disconnect"}

    incoming = pieces()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "client": ("192.0.2.9", 5000),
        "server": ("testserver", 80),
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "state": {},
    }
    asyncio.run(app(scope, incoming.__anext__, send))
    return answer


def zeros(size: int) -> Iterator[bytes]:
    """A form's field without an end."""
    yield b"a="
    for _ in range(size // CHUNK + 1):
        yield b"0" * CHUNK


def parts(size: int) -> Iterator[bytes]:
    """A file of a form, without an end."""
    yield b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    yield from zeros(size)


@pytest.fixture
def office(open_office: Callable[..., Office], environment: dict[str, str]) -> Office:
    environment["NEWSLETTER_INBOUND__KEY"] = "k" * 32
    return open_office(require_second_factor="false")


def routes(office: Office) -> list[tuple[str, str, int]]:
    """Method, path and limit of everything that can be sent something."""
    found = []
    for context in iter_route_contexts(office.app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            path = re.sub(r"\{\w+:int\}", "1", route.path).replace("{key}", "k" * 32)
            path = re.sub(r"\{\w+(:path)?\}", "x", path)
            limit = SMALL_BODY if route.max_body_size is None else route.max_body_size
            found += [(method, path, limit) for method in route.methods - {"GET", "HEAD"}]
    return found


@pytest.mark.slow
def test_every_route_says_how_much_it_takes_and_reads_no_more(office: Office) -> None:
    """Before anybody is signed in; with a length that is told, and without."""
    seen = routes(office)
    assert len(seen) > 60
    for method, path, limit in seen:
        if path == UPLOAD:
            continue
        for kind, body in ((FORM, zeros), (MULTIPART, parts)):
            told = {"content-type": kind, "content-length": str(limit + 1)}
            answer = ask(office.app, method, path, told, body(limit + 1))
            assert answer.status == 413, f"{method} {path} {kind}, told"
            assert answer.read == 0, f"{method} {path} {kind}, told"
            answer = ask(office.app, method, path, {"content-type": kind}, body(3 * limit))
            # Or it is refused for another reason, before any of it is read.
            refused = answer.status >= 400 and answer.read == 0
            assert answer.status == 413 or refused, f"{method} {path} {kind}, in chunks"
            assert answer.read <= limit + 2 * CHUNK, f"{method} {path} {kind}, in chunks"


def test_few_routes_take_more_than_a_form_has(office: Office) -> None:
    more = {path: limit for _, path, limit in routes(office) if limit > SMALL_BODY}
    assert more == {
        "/webhooks/sendgrid/events": 4 * 1024 * 1024,
        f"/webhooks/sendgrid/inbound/{'k' * 32}": 32 * 1024 * 1024,
        UPLOAD: 2**40,
        "/console/issues/_new": 1024 * 1024,
        "/console/issues/_edit": 1024 * 1024,
        "/console/issues/_check": 1024 * 1024,
        "/console/issues/_mail": 1024 * 1024,
        "/console/issues/x/edit": 1024 * 1024,
    }


def test_of_a_file_from_a_stranger_nothing_is_read(office: Office) -> None:
    for told in ({"content-length": str(2**30)}, {}):
        answer = ask(office.app, "POST", UPLOAD, {"content-type": MULTIPART, **told}, parts(2**30))
        assert (answer.status, answer.headers["location"]) == (303, "/console/sign-in")
        assert answer.read == 0


def test_a_path_that_does_not_exist_reads_nothing_either(office: Office) -> None:
    for method, path in (("POST", "/nothing"), ("POST", "/static/site.css"), ("PUT", "/subscribe")):
        answer = ask(office.app, method, path, {"content-type": FORM}, zeros(2**30))
        assert answer.status in {404, 405}
        assert answer.read == 0


def test_who_is_refused_is_told_so_in_their_own_way(office: Office) -> None:
    told = {"content-type": FORM, "content-length": str(2**30)}
    page = ask(office.app, "POST", "/console/sign-in", {**told, "accept": "text/html"}, zeros(9))
    assert b"The request is too large for this page." in page.body
    assert page.headers["content-type"].startswith("text/html")
    program = ask(office.app, "POST", "/subscribe", told, zeros(9))
    assert program.headers["content-type"] == "application/problem+json"
    for answer in (page, program):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        (FORM, b"a&"),
        (MULTIPART, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'),
        (MULTIPART, b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n\r\n'),
    ],
)
def test_a_form_of_many_small_fields_is_refused(office: Office, kind: str, piece: bytes) -> None:
    body = (piece * 5000)[: SMALL_BODY - 10]
    headers = {"content-type": kind, "content-length": str(len(body))}
    answer = ask(office.app, "POST", "/console/sign-in", headers, iter([body]))
    assert answer.status == 400


@pytest.mark.parametrize(
    "head", [b"X: " + b"a" * 6000, b"\r\n".join(b"X-%d: a" % n for n in range(100))]
)
def test_the_headers_of_a_part_are_bounded(office: Office, head: bytes) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n' + head + b"\r\n\r\nb\r\n--x--"
    headers = {"content-type": MULTIPART, "content-length": str(len(body))}
    answer = ask(office.app, "POST", "/console/sign-in", headers, iter([body]))
    assert answer.status == 400


def test_an_issue_of_the_largest_size_can_be_posted_in_any_script(office: Office) -> None:
    browser = office.signed_in("editor")  # type: ignore[arg-type]
    text = "---\nsubject: Д\n---\n\n" + "Д " * 66_000
    answer = browser.post("/console/issues/_check", text=text)
    assert answer.status_code == 200
    answer = browser.post("/console/issues/_check", text=text + "Д" * 60_000)
    assert "at most 200,000 bytes" in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FORM, MULTIPART, "application/json", ""])
def test_a_client_that_is_gone_in_the_middle_of_a_body_is_no_fault(
    office: Office, kind: str
) -> None:
    """Nothing is raised, which would be a traceback in the log: anybody can do it."""
    cookie = f"console={office.signed_in(Role.OWNER).token}"
    for method, path, _ in routes(office):
        for who in ({}, {"cookie": cookie}):
            head = {"content-type": kind, "content-length": "9000", **who}
            for body in (iter(()), parts(9)):
                answer = ask(office.app, method, path, head, body, ends=False)
                assert not is_fault(path, answer.status), f"{method} {path}"
