"""Nothing that a client can send is answered with a 5xx: not by a schema's rules, nor against all.

Schemathesis reads the service's own OpenAPI. What it cannot know stands in the second half:
the console's routes, which the OpenAPI leaves out, and values against every rule of HTTP.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import pytest
import schemathesis
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import HealthCheck, Phase, settings
from starlette.convertors import Convertor
from starlette.testclient import TestClient

from newsletter.accounts.models import Role
from newsletter.assembly import Assembly
from newsletter.links import Purpose
from newsletter.settings import load
from newsletter.web.app import create_app
from tests.newsletter.web.conftest import Office

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
ENCODED = ["%00", "%ff%fe", "%ED%A0%80", "9" * 40, "-1", "%0d%0a", "%2e%2e%2f", "%25", "x" * 4000]
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
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n\0\r\n--x--"),
    ("multipart/form-data; boundary=\xff".encode("latin-1").decode("latin-1"), b"--\xff--"),
    ("text/xml; charset=utf-7", b"<a/>"),
    ("", b"\0" * 1000),
]


@pytest.fixture
def parts(environment: dict[str, str]) -> Iterator[Assembly]:
    environment["NEWSLETTER_INBOUND__KEY"] = "k" * 32
    made = Assembly(load(environment))
    yield made
    made.database.dispose()


@pytest.fixture
def openapi(parts: Assembly) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(parts, background=False))


schema = schemathesis.pytest.from_fixture("openapi")


@schema.parametrize()
@settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_by_the_schema_is_a_fault_of_ours(case: Any) -> None:
    answer = case.call()
    assert answer.status_code < 500, f"{case.method} {case.formatted_path}: {answer.text}"
