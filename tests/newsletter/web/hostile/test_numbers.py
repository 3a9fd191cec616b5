"""A number that a client writes is small enough for a column, or it is no number of ours.

Over every route of the service: each number in a path, each field of a query or a form, each
header that holds a number or a time.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from newsletter.accounts.models import Role
from newsletter.numbers import MOST, whole_number
from newsletter.provider.events import BATCH, ISSUE, MADE, SEND, SUBSCRIBER
from tests.newsletter.web.conftest import Office
from tests.newsletter.web.hooks.test_sendgrid_events import PATH, PUBLIC, signed
from tests.newsletter.web.hostile.faults import is_fault

#: Numbers that a parser, a float, a column or a date stumbles over.
NUMBERS = [
    "0",
    "-1",
    "+1",
    "00000000000000000000000000001",
    str(2**31 - 1),
    str(2**31),
    str(2**63 - 1),
    str(2**63),
    str(2**64),
    "9" * 400,
    "9" * 4301,
    "1e5",
    "1e400",
    "1_000",
    "0x10",
    "1.5",
    "NaN",
    "-Infinity",
    "٣",
    "²",
    "１２",
    "१" * 19,
    " 1 ",
    "1\u00a0",
    "",
]
HEADERS = [
    "if-none-match",
    "if-modified-since",
    "if-range",
    "range",
    "last-event-id",
    "accept-language",
    "content-type",
    "cookie",
    "x-csrf-token",
    "authorization",
    "x-twilio-email-event-webhook-timestamp",
    "x-twilio-email-event-webhook-signature",
    "origin",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-port",
    "max-forwards",
    "upgrade-insecure-requests",
    "expect",
]


#: Thousands of requests: on the database that takes fewer numbers.
STRICTER = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.mark.parametrize("text", [one for one in NUMBERS if whole_number(one) is None])
def test_what_is_no_plain_number_is_none(text: str) -> None:
    assert not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MOST


def test_the_bounds_of_a_number() -> None:
    assert whole_number(str(MOST)) == MOST
    assert whole_number(str(MOST + 1)) is None
    assert whole_number("0") == 0
    assert whole_number("1000", most=999) is None


@pytest.fixture
def asked(
    open_office: Callable[..., Office], environment: dict[str, str]
) -> Iterator[Callable[..., int]]:
    """Asks as an owner; at the end nothing has been a fault of ours."""
    environment["NEWSLETTER_INBOUND__KEY"] = "k" * 32
    environment["NEWSLETTER_SIGNUP__PER_IP"] = "1000000"
    environment["NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS"] = PUBLIC
    office = open_office(
        require_second_factor="false", per_account="1000000", per_network="1000000"
    )
    browser = office.signed_in(Role.OWNER)
    faults: list[str] = []

    def ask(method: str, path: str, **more: Any) -> int:
        if method == "POST" and "content" not in more:
            more["data"] = {"csrf": browser.csrf, **more.get("data", {})}
        try:
            answer = browser.client.request(method, path, **more)
        except Exception as error:  # noqa: BLE001 (the client hands on what the service raised)
            faults.append(f"{method} {path[:100]} {str(more)[:200]}: {error!r}"[:500])
            return 599
        if is_fault(path, answer.status_code):
            faults.append(f"{method} {path[:100]} {str(more)[:200]}: {answer.status_code}")
        if "/console/sign-in" in answer.headers.get("location", ""):
            browser.token = office.signed_in(Role.OWNER).token  # it ended its own session
        return answer.status_code

    ask.routes = [  # type: ignore[attr-defined]
        one.original_route
        for one in iter_route_contexts(office.app.routes)
        if isinstance(one.original_route, APIRoute)
    ]
    yield ask
    assert not faults, "\n".join(sorted(set(faults)))


def filled(route: APIRoute, number: str = "1", word: str = "x") -> str:
    path = re.sub(r"\{\w+:int\}", number, route.path).replace("{key}", "k" * 32)
    return re.sub(r"\{\w+(:path)?\}", word, path)


def names(route: APIRoute) -> tuple[list[str], list[str]]:
    """What a route reads of a query and of a form, its dependencies' included."""
    query, form = [], []
    waiting: list[Dependant] = [route.dependant]
    while waiting:
        one = waiting.pop()
        query += [each.alias for each in one.query_params]
        form += [each.alias for each in one.body_params]
        waiting += one.dependencies
    return query, [name for name in form if name != "csrf"]


@STRICTER
def test_no_number_in_a_path_is_a_fault_of_ours(asked: Any) -> None:
    tried = 0
    for route in asked.routes:
        for method in sorted(route.methods & {"GET", "POST"}):
            for number in NUMBERS:
                if "{" in route.path and number:
                    status = asked(method, filled(route, number, number))
                    tried += 1
                    if ":int}" in route.path and len(number) > 18:
                        assert status in {404, 405}, f"{method} {route.path} {number[:30]}"
    assert tried > 500


@STRICTER
def test_no_number_in_a_query_is_a_fault_of_ours(asked: Any) -> None:
    for route in asked.routes:
        if "GET" in route.methods:
            query, _ = names(route)
            for number in NUMBERS:
                for name in query:
                    asked("GET", filled(route), params={name: number})


@STRICTER
def test_no_number_in_a_form_is_a_fault_of_ours(asked: Any) -> None:
    for route in asked.routes:
        if "POST" in route.methods:
            _, form = names(route)
            for number in NUMBERS:
                asked("POST", filled(route), data=dict.fromkeys(form, number))
                asked("POST", filled(route), data=dict.fromkeys(form, f'{{"a": {number or 0}}}'))


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_number_in_a_header_is_a_fault_of_ours(asked: Any) -> None:
    dates = [f"Sun, 29 Nov {'9' * 30} 07:00:00 GMT", "Sun, 31 Feb 2026 25:61:61 GMT", "0"]
    for route in asked.routes:
        for method in sorted(route.methods & {"GET", "POST"}):
            for number in NUMBERS:
                value = number.encode()
                headers = dict.fromkeys(HEADERS, value)
                headers["range"] = b"bytes=" + value + b"-" + value
                headers["cookie"] = b"console=" + value
                headers["content-type"] = b"application/x-www-form-urlencoded; charset=" + value
                asked(method, filled(route), headers=headers)
            for date in dates:
                names = "if-modified-since", "if-range", "if-unmodified-since", "date"
                asked(method, filled(route), headers=dict.fromkeys(names, date))


@pytest.mark.slow
@pytest.mark.parametrize("number", [one for one in NUMBERS if one.strip()])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_time_that_nobody_signed_with_is_refused(asked: Any, number: str) -> None:
    body = b"[]"
    headers = {**signed(body), "X-Twilio-Email-Event-Webhook-Timestamp": number.encode()}
    assert asked("POST", PATH, content=body, headers=headers) == 401


#: What an event says of itself, each with numbers in it that are none.
SAID = ("timestamp", ISSUE, SEND, BATCH, SUBSCRIBER, MADE, "attempt", "asm_group_id")


def test_no_number_of_a_signed_event_is_a_fault_of_ours(asked: Any) -> None:
    plain = {"event": "bounce", "email": "a@example.org", "timestamp": int(time.time())}
    rows = [{**plain, name: number} for name in SAID for number in NUMBERS]
    rows += [
        {**plain, name: number}
        for name in SAID
        for number in (-1, 1e300, 2**63, 10**30, 253402300799, -62135596800, None, True, [1], {})
    ]
    for begin in range(0, len(rows), 40):
        body = json.dumps(rows[begin : begin + 40]).encode()
        assert asked("POST", PATH, content=body, headers=signed(body)) == 200
    # Numbers that JSON may hold and Python may not.
    body = b'[{"event": "open", "timestamp": ' + b"9" * 5000 + b"}]"
    assert asked("POST", PATH, content=body, headers=signed(body)) in {200, 400}
