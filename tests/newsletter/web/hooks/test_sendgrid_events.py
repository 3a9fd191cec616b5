"""The door for events: what SendGrid signed comes in, nothing else does, and 2xx means stored."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import func, select
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import reading
from newsletter.db.orm import table_of
from newsletter.settings.load import load
from newsletter.tracking.models import EventRow
from newsletter.web.app import create_app

KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = base64.b64encode(
    KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
).decode()
EVENT = {"event": "delivered", "timestamp": 1774594800, "email": "a@example.org"}
PATH = "/webhooks/sendgrid/events"


@pytest.fixture
def parts(environment: dict[str, str]) -> Iterator[Container]:
    environment["NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS"] = PUBLIC
    made = Container(load(environment))
    yield made
    made.database.dispose()


@pytest.fixture
def client(parts: Container) -> Iterator[TestClient]:
    with TestClient(create_app(parts, background=False)) as client:
        yield client


def signed(body: bytes, stamp: str | None = None) -> dict[str, str]:
    stamp = stamp or str(int(time.time()))
    signature = KEY.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
    }


def stored(parts: Container) -> int:
    with reading(parts.database) as session:
        return session.execute(select(func.count()).select_from(table_of(EventRow))).scalar_one()


def body_of(*entries: Any) -> bytes:
    return json.dumps(entries).encode() + b"\r\n"


def test_signed_events_are_stored_and_repeats_are_told(
    client: TestClient, parts: Container
) -> None:
    body = body_of(EVENT, {**EVENT, "event": "open"})
    answer = client.post(PATH, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (200, {"new": 2, "repeated": 0, "malformed": 0})
    again = client.post(PATH, content=body, headers=signed(body))
    assert again.json() == {"new": 0, "repeated": 2, "malformed": 0}
    assert stored(parts) == 2


def test_an_unsigned_or_bent_post_is_refused_and_leaves_nothing(
    client: TestClient, parts: Container
) -> None:
    body = body_of(EVENT)
    assert client.post(PATH, content=body).status_code == 401
    assert client.post(PATH, content=body + b" ", headers=signed(body)).status_code == 401
    old = signed(body, str(int(time.time()) - 26 * 3600))
    assert client.post(PATH, content=body, headers=old).status_code == 401
    assert stored(parts) == 0


def test_a_malformed_entry_is_named_and_its_neighbours_are_stored(
    client: TestClient, parts: Container
) -> None:
    body = body_of(EVENT, 7, {"event": "open"}, {**EVENT, "event": "open"})
    answer = client.post(PATH, content=body, headers=signed(body))
    assert answer.json() == {"new": 2, "repeated": 0, "malformed": 2}


def test_a_post_writes_one_line_of_log_whatever_it_holds(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    long = {"event": "open", "timestamp": "ada@example.org " * 5000}
    for entries, status in (([long, *[7] * 15_000], 200), ([0] * 1_000_000, 400)):
        caplog.clear()
        body = body_of(*entries)
        answer = client.post(PATH, content=body, headers=signed(body))
        assert answer.status_code == status, answer.text[:200]
        assert len(caplog.records) <= 1
        assert len(caplog.text) < 1000
        assert "ada@example.org" not in caplog.text + answer.text


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", b'"x"', b"\xff\xfe"])
def test_a_signed_body_that_is_no_list_is_a_client_error(client: TestClient, body: bytes) -> None:
    answer = client.post(PATH, content=body, headers=signed(body))
    assert answer.status_code in {400, 401}
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_huge_body_is_refused(client: TestClient) -> None:
    body = b"[" + b" " * 5_000_000 + b"]"
    assert client.post(PATH, content=body, headers=signed(body)).status_code == 413


def test_hostile_values_in_an_event_do_no_harm(client: TestClient, parts: Container) -> None:
    hostile = {
        **EVENT,
        "event": "bounce",
        "reason": "\u0000<script>" + "x" * 5000,
        "nl_send": "9" * 18,
        "nl_issue": "1",
        "nl_batch": "1",
        "nl_subscriber": "2",
        "email": "\u0000@",
    }
    body = body_of(hostile)
    assert client.post(PATH, content=body, headers=signed(body)).json()["new"] == 1
    assert stored(parts) == 1


def test_health_is_told(client: TestClient) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/healthz", "/nowhere", "/unsubscribe/x", "/static/site.css"):
        headers = client.get(path, headers={"accept": "text/html"}).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_an_unknown_page_is_a_page_for_people_and_a_problem_for_programs(
    client: TestClient,
) -> None:
    page = client.get("/nowhere", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert "Page not found." in page.text
    assert client.get("/nowhere").json()["status"] == 404
