"""Nothing that a client can send is answered with a 5xx: not by a schema's rules, nor against all.

Schemathesis reads the service's own OpenAPI. What it cannot know stands in the second half:
the console's routes, which the OpenAPI leaves out, and values against every rule of HTTP.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import newsletter.web
from newsletter.accounts.models import Role
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.links import Purpose
from newsletter.provider.events import BATCH, ISSUE, SEND, SUBSCRIBER, EventKind
from newsletter.settings.load import load
from newsletter.web.app import create_app
from tests.conftest import add_person
from tests.newsletter.web.conftest import Office
from tests.newsletter.web.hooks.test_sendgrid_events import PATH, PUBLIC, signed
from tests.newsletter.web.hostile.faults import is_fault

#: Values that somebody's parser, database or template may stumble over.
HOSTILE = [
    "",
    "0",
    "-1",
    "9" * 40,
    "1e400",
    "NaN",
    "\0",
    "a\0b",
    "ä" * 5000,
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "\u202e\ufeff\u2028",
    "' OR 1=1 --",
    "%",
    "{{7*7}}<script>",
    "../../etc/passwd",
    "x@example.org",
    "2026-13-45T99:99",
    "a\r\nSet-Cookie: b=c",
]
#: As they stand in a path or a query: what no decoder gives back as text, too.
ENCODED = ["%00", "%ff%fe", "%ED%A0%80", "9" * 40, "-1", "%0d%0a", "%2e%2e%2f", "%25", "x" * 900]
BODIES: list[tuple[str, bytes]] = [
    ("application/json", b"{"),
    ("application/json", b"[" * 50_000),
    ("application/json", b'{"a": 1e999, "b": "\\u0000", "c": "\\ud800"}'),
    ("application/json", b"\xff\xfe"),
    ("application/json", b"null"),
    ("application/x-www-form-urlencoded", b"a=%ff%00&a&&=&csrf=%ff"),
    ("application/x-www-form-urlencoded; charset=nonsense", b"email=%e4"),
    ("application/x-www-form-urlencoded", b"&".join(b"a%d=b" % n for n in range(3000))),
    ("multipart/form-data", b"--x\r\n"),
    (
        "multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n\0\r\n--x--",
    ),
    ("multipart/form-data; boundary=\xff", b"--\xff--"),
    ("text/xml; charset=utf-7", b"<a/>"),
    ("", b"\0" * 1000),
]


#: Thousands of requests: on the database that takes fewer values. Forms go to both.
STRICTER = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

INBOUND_KEY = "k" * 32


@pytest.fixture(autouse=True)
def _wide_open(environment: dict[str, str]) -> None:
    """No limit keeps a value from what it is for."""
    environment |= {
        "NEWSLETTER_INBOUND__KEY": INBOUND_KEY,
        "NEWSLETTER_SIGNUP__PER_IP": "1000000",
        "NEWSLETTER_SIGNUP__PER_ADDRESS": "1000000",
    }


@pytest.fixture
def parts(environment: dict[str, str]) -> Iterator[Container]:
    made = Container(load(environment))
    yield made
    made.database.dispose()


@pytest.mark.slow
def test_no_request_by_the_schema_is_a_fault_of_ours(parts: Container) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(parts, background=False))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=15,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            answer = case.call()
            fault = is_fault(case.path, answer.status_code)
            assert not fault, f"{case.method} {case.path}: {answer.text}"

        check()


#: Every field that a page of ours has, and what stands in queries.
FIELDS = sorted(
    {
        name
        for page in (Path(newsletter.web.__file__).parent / "pages").rglob("*.html")
        for name in re.findall(r'\bname="(\w+)"', page.read_text())
    }
    - {"csrf"}
    | {"page", "before", "after", "q", "next"}
)


def routes(office: Office) -> Iterator[tuple[str, str]]:
    """Method and path of everything that answers, the console included."""
    for context in iter_route_contexts(office.app.routes):
        if isinstance(context.original_route, APIRoute):
            for method in sorted(context.original_route.methods or ()):
                yield method, context.original_route.path


@pytest.fixture
def hostile(open_office: Callable[..., Office]) -> Iterator[Callable[..., None]]:
    """Asks as an owner who has just signed in; at the end nothing has been a fault of ours."""
    office = open_office(
        require_second_factor="false", per_account="1000000", per_network="1000000"
    )
    browser, viewer = office.signed_in(Role.OWNER), office.user("viewer@example.org")
    with transaction(office.parts.database) as session:
        reader = add_person(session, "reader@example.org")
    token = office.parts.links.token(Purpose.RECIPIENT, 1, reader)
    faults: list[str] = []
    answers: dict[str, set[int]] = {}

    def ask(method: str, path: str, value: str = "", **more: Any) -> None:
        # Of a number in a path only numbers reach us: an account that is there, and none.
        number = str(viewer) if not value else value if value.isdigit() else "0"
        address = re.sub(r"\{\w+:int\}", number, path)
        address = address.replace("{key}", INBOUND_KEY)
        address = re.sub(r"\{\w+(:path)?\}", value or token, address)
        said = f"{method} {address} {str(more)[:300]}"
        for _ in range(2):
            if "data" in more:
                more["data"] = {**more["data"], "csrf": browser.csrf}
            try:
                answer = browser.client.request(method, address, **more)
            except Exception as error:  # noqa: BLE001 (the client hands on what the service raised)
                faults.append(f"{said}: {error!r}"[:1000])
                return
            answers.setdefault(f"{method} {path}", set()).add(answer.status_code)
            if is_fault(address, answer.status_code):
                faults.append(f"{said}: {answer.status_code}")
            if "/console/sign-in" not in answer.headers.get("location", ""):
                return
            browser.token = office.signed_in(Role.OWNER).token  # it ended its own session

    ask.answers = answers  # type: ignore[attr-defined]
    ask.routes = list(routes(office))  # type: ignore[attr-defined]
    yield ask
    assert not faults, "\n".join(sorted(set(faults)))


@STRICTER
def test_no_path_and_no_query_is_a_fault_of_ours(hostile: Any) -> None:
    for method, path in hostile.routes:
        for value in ["", *ENCODED]:
            hostile(method, path, value)
            # The client itself refuses an address of more than 64 kB.
            most = min(50_000 // (len(value) + 20), len(FIELDS))
            for begin in range(0, len(FIELDS), most):
                query = "&".join(f"{name}={value}" for name in FIELDS[begin : begin + most])
                hostile(method, f"{path}?{query}&=&{value}")


@pytest.mark.slow
def test_no_form_is_a_fault_of_ours(hostile: Any) -> None:
    for method, path in hostile.routes:
        if method == "POST":
            for value in HOSTILE:
                form = dict.fromkeys(FIELDS, value)
                hostile(method, path, data=form, headers={"accept": "text/html"})
    # Else nothing was tried but the guard at the door.
    assert [path for path, got in hostile.answers.items() if got == {403}] == []


@STRICTER
def test_no_body_of_any_kind_is_a_fault_of_ours(hostile: Any) -> None:
    for method, path in hostile.routes:
        if method == "POST":
            for kind, body in BODIES:
                kinds = {"content-type": kind.encode("latin-1")}
                hostile(method, path, content=body, headers=kinds)


@STRICTER
def test_no_header_is_a_fault_of_ours(hostile: Any) -> None:
    values = [b"\xff\xfe", b"x" * 5000, b'"', b"a=b; console=%00; console=\xff", b"bytes=9-1,-"]
    names = ["accept", "accept-language", "user-agent", "authorization", "origin"]
    names += ["referer", "range", "if-none-match", "if-modified-since", "x-forwarded-for", "host"]
    for method, path in hostile.routes:
        for value in values:
            hostile(method, path, headers=dict.fromkeys(names, value))


_TEXTS = st.sampled_from(HOSTILE) | st.text(max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=3,
)
_NUMBERS = st.integers(0, 3).map(str) | _VALUES
_EVENTS = st.fixed_dictionaries(
    {
        "event": st.sampled_from(list(EventKind)) | _VALUES,
        "timestamp": st.integers(1774594800, 1774594830) | _VALUES,
        "email": st.sampled_from(["reader@example.org", "x@\0.com"]) | _VALUES,
    },
    optional={
        **dict.fromkeys((ISSUE, SEND, BATCH, SUBSCRIBER), _NUMBERS),
        **dict.fromkeys(("type", "reason", "status", "bounce_classification", "url"), _VALUES),
        **dict.fromkeys(("useragent", "sg_machine_open", "sg_message_id", "anything"), _VALUES),
    },
)


@pytest.mark.slow
def test_no_signed_event_is_a_fault_of_ours(environment: dict[str, str]) -> None:
    environment["NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS"] = PUBLIC
    parts = Container(load(environment))
    with TestClient(create_app(parts, background=False)) as client:

        @given(st.lists(_EVENTS, max_size=8))
        @settings(max_examples=100, derandomize=True, database=None, deadline=None)
        def check(entries: list[Any]) -> None:
            body = json.dumps(entries).encode()
            answer = client.post(PATH, content=body, headers=signed(body))
            assert answer.status_code == 200, answer.text
            assert sum(answer.json().values()) == len(entries)

        check()
    parts.database.dispose()
