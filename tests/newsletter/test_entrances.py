"""What outsiders write is read in linear time, or refused because it is too long.

Steps of Python are counted, and may grow no faster than the text. What runs within C (patterns
above all) has no steps to count: it gets a text so long that quadratic work would take minutes
of the processor, and a thousandth of that as its limit.
"""

import gc
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from types import FrameType
from typing import Any

import orjson
import pytest
from email_validator import EmailNotValidError
from fastapi import HTTPException
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.testclient import TestClient

from newsletter.accounts import passwords
from newsletter.container import Container
from newsletter.errors import UserError
from newsletter.links import Links, Purpose
from newsletter.provider import events
from newsletter.scheduling import recurrence
from newsletter.sending.pacing import sending_windows
from newsletter.settings.load import Settings, load, load_with_origins
from newsletter.web import challenge, proxies
from newsletter.web.app import create_app
from newsletter.web.console.base import session_cookie
from newsletter.web.hooks import unsubscribe_email
from newsletter.web.public import signup_body
from subscribers import rate_limit
from subscribers.email_address import parse, without_addresses
from subscribers.list_files.file_reader import SubscriberFile
from subscribers.segments import parser as segment_parser
from subscribers.signup import form as signup_form
from subscribers.signup.form import SignupRules
from tests.conftest import LINK_KEY
from tests.newsletter.web.conftest import HTML

Entrance = Callable[[str], object]

#: What each entrance may answer with; anything else is a fault.
REFUSALS = (UserError, HTTPException, ValueError, EmailNotValidError)


def _people(text: str) -> None:
    for _ in SubscriberFile(BytesIO(text.encode(errors="replace")), "people.csv"):
        pass


def _rows(text: str) -> None:
    _people(f"email,name\n{text}\n")


def _names_of_columns(text: str) -> None:
    _people(f"email,{text}\na@example.org,1\n")


def _json_lines(text: str) -> None:
    _people('{"email": "a@example.org"}\n' + orjson.dumps({"email": text}).decode() + "\n" + text)


def _signup(text: str) -> None:
    fields = dict.fromkeys(("email", "name", "language", "timezone", "form"), text)
    rules = SignupRules(topics=["engineering"], fields=["company"])
    signup_form.parse_signup(
        {**fields, "topics": [text, text], "attributes": {"company": text, text: text}}, rules
    )


def _event(text: str) -> None:
    fields = dict.fromkeys(
        ("email", "reason", "response", "type", "status", "url", "useragent", "event"), text
    )
    events.parse(orjson.dumps([{**fields, "timestamp": 1}, {"event": "click", "url": text}]))


def _mail(text: str) -> None:
    fields = dict.fromkeys(("from", "to", "dkim", "SPF", "subject", "text", "headers"), text)
    fields["envelope"] = orjson.dumps({"to": [text], "from": text}).decode()
    unsubscribe_email._verified_sender(fields)
    unsubscribe_email._asks_to_unsubscribe(
        "leave@in.example.com", {**fields, "to": "leave@in.example.com"}, text
    )
    list(unsubscribe_email._tokens(fields))


async def _nothing(*_given: Any) -> Any:
    raise AssertionError("nothing is read or sent")


def _cookies(text: str) -> None:
    async def read(scope: Any, _receive: Any, _send: Any) -> None:
        session_cookie.token_in(Request(scope), "http://x.example")

    header = f'a="{text}"; console={text}'.encode(errors="replace")
    scope = {"type": "http", "headers": [(b"cookie", header)]}
    called = session_cookie.OwnCookieOnly(read, base_url="http://x.example")(
        scope, _nothing, _nothing
    )
    with suppress(StopIteration):
        called.send(None)


def _post(kind: str) -> Entrance:
    async def body(text: str) -> None:
        headers = [(b"content-type", kind.encode())]
        sent = iter([text.encode(errors="replace"), b""])

        async def receive() -> dict[str, Any]:
            chunk = next(sent)
            return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

        await signup_body.read_post(Request({"type": "http", "headers": headers}, receive))

    def post(text: str) -> None:
        waiting = body(text)
        with suppress(StopIteration):
            waiting.send(None)

    return post


def _links(text: str) -> None:
    Links([LINK_KEY]).read(text, Purpose.RECIPIENT)


def _password(text: str) -> None:
    passwords.check(text, email=f"{text[:300]}@example.org")


ENTRANCES: dict[str, Entrance] = {
    "a file": _people,
    "rows of CSV": _rows,
    "names of columns": _names_of_columns,
    "JSON Lines": _json_lines,
    "a signup": _signup,
    "a form's body": _post("application/x-www-form-urlencoded"),
    "a multipart body": _post("multipart/form-data; boundary=x"),
    "a JSON body": _post("application/json"),
    "an address": parse,
    "a server's words": without_addresses,
    "a window": lambda text: sending_windows.parse_window(text, place="x"),
    "hours": lambda text: sending_windows.parse_hours(text, place="x"),
    "a time": lambda text: sending_windows.parse_time(text, place="x"),
    "days": lambda text: sending_windows.parse_days(text, place="x"),
    "a schedule's rule": recurrence.parse,
    "dates": recurrence.parse_dates,
    "a segment": segment_parser.names,
    "an event": _event,
    "a mail": _mail,
    "cookies": _cookies,
    "a link's token": _links,
    "a form's stamp": lambda text: challenge.opened_at([b"k" * 32], text),
    "Forwarded": proxies.forwarded,
    "X-Forwarded-For": proxies.address_of,
    "a network address": rate_limit.network_of,
    "a password": _password,
}

#: What one piece is, what it begins and what it ends with: a pattern that can split a run in
#: more than one way is quadratic where the end does not fit.
UNITS = [
    *"a0 @.,-\\\"'()[]{}<>\n\t:;=&%/+*_#!|\r\0ü",
    *('z","\n', 'ok\nz","\n', '"a\n', "plan,", "a.", "@a", "a@", "a b ", "mon,", "mon-", " \t"),
    *('\\"', "a=b;", "for=a,", "--x\r\n", "%41", "a[", "f(", "not ", "a or ", "08:00-", "1,"),
    *("unsubscribe ", "auto-submitted: ", "message-id:", "@a:pass", "a@b.", "b. ", "\u0301a"),
]
ENDS = [("", ""), ("a", "!"), ("mon ", "x"), ("@", "@")]


def texts(length: int, ends: Sequence[tuple[str, str]] = ENDS) -> Iterator[str]:
    """Each unit over and over, ``length`` characters of it."""
    for unit in UNITS:
        for before, after in ends:
            yield before + (unit * (length // len(unit) + 1))[:length] + after


def steps(work: Callable[[], object]) -> int:
    """How many lines and calls of Python it takes, and calls of C from there."""
    count = 0

    def note(_frame: FrameType, _event: str, _value: object) -> Any:
        nonlocal count
        count += 1
        return note

    before = sys.gettrace()
    gc.disable()  # what earlier tests have left is not cleared away at this one's expense
    sys.settrace(note)
    try:
        with suppress(*REFUSALS):
            work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


class SlowError(Exception):
    """Somebody's text takes the processor for longer than any linear work could."""


@contextmanager
def at_most(seconds: float, what: str) -> Iterator[None]:
    """SlowError after so many seconds of this process on the processor: load does not count."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SlowError(what)

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# Addresses of a mail are read by the standard library, which is quadratic: 2,000 characters are.
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ENTRANCES.keys() - {"a mail"}))
def test_four_times_the_text_takes_no_more_than_some_four_times_the_steps(name: str) -> None:
    enter = ENTRANCES[name]
    for short, long in zip(texts(150), texts(600), strict=True):
        enter_short, enter_long = (lambda s=short: enter(s)), (lambda s=long: enter(s))
        steps(enter_short)  # what is read once and kept costs only the first time
        few, many = steps(enter_short), steps(enter_long)
        assert many <= 6 * few + 500, f"{name}: {few} steps, then {many}, with {short[:20]!r}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRANCES)
def test_a_long_text_does_not_hold_the_processor(name: str) -> None:
    # Quadratic work on 50,000 characters: 2,500,000,000 steps, by the fastest pattern 10 s.
    for text in texts(50_000, ENDS[1:2]):
        with at_most(4, f"{name}: {text[:20]!r}"), suppress(*REFUSALS):
            ENTRANCES[name](text)


@pytest.mark.slow
def test_no_setting_takes_long_to_be_refused() -> None:
    keys = [origin.key for origin in load_with_origins({})[1]]
    assert len(keys) > 50
    assert Settings.model_fields
    for key in keys:
        for text in ("9" * 20_000, "a " * 10_000, "@a" * 10_000, "[" * 20_000, "1," * 10_000):
            name = f"NEWSLETTER_{key.replace('.', '__').upper()}"
            with at_most(3, f"{key}: {text[:20]!r}"), suppress(UserError):
                load({name: text})


@pytest.mark.slow
def test_no_request_before_sign_in_holds_the_processor(environment: dict[str, str]) -> None:
    """Every route, by what a stranger can write into it: path, query, cookies, forms."""
    parts = Container(load(environment))
    app = create_app(parts, background=False)
    routes = (each.original_route for each in iter_route_contexts(app.routes))
    paths = sorted({route.path for route in routes if isinstance(route, APIRoute)})
    assert len(paths) > 60
    hostile = ['\\"', "a ", "@a", "=;&"]
    with TestClient(app, follow_redirects=False) as client:
        for path in paths:
            for unit in hostile:
                text = unit * (60_000 // len(unit))
                place = path
                for part in path.split("/"):
                    if part.startswith("{"):
                        place = place.replace(part, "1" if ":int" in part else "x" * 200)
                headers = {**HTML, "cookie": f'x="{text}"', "accept-language": text}
                form = {"q": text, "email": text, "password": text, "csrf": text}
                with at_most(5, f"{path}: {unit!r}"):
                    client.get(place, headers=headers, params={"q": text[:4000], "page": text[:99]})
                    answer = client.post(place, headers=headers, data=form)
                assert answer.status_code < 500, path
    parts.database.dispose()
