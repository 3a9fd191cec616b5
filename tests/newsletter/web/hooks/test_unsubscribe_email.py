"""Leaving by a mail: SendGrid's Inbound Parse posts it, and only what proves itself counts."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Links, Purpose
from newsletter.sending.delivery.personalize import VariantCache, personalize
from newsletter.sending.ledger.batch_store import BatchStore
from newsletter.sending.ledger.recipients import recipients
from newsletter.settings.load import load
from newsletter.tracking.models import EventRow
from newsletter.web.app import create_app
from subscribers.consent import suppression
from subscribers.models import Suppression
from tests.newsletter.sending.conftest import make_plan, make_send

KEY = "a-tests-inbound-key-of-32-characters-and-more"
PATH = f"/webhooks/sendgrid/inbound/{KEY}"
MAILBOX = "unsubscribe@in.example.com"


@pytest.fixture
def parts(environment: dict[str, str]) -> Iterator[Container]:
    environment["NEWSLETTER_INBOUND__KEY"] = KEY
    environment["NEWSLETTER_INBOUND__ADDRESS"] = MAILBOX
    made = Container(load(environment))
    yield made
    made.database.dispose()


@pytest.fixture
def client(parts: Container) -> Iterator[TestClient]:
    with TestClient(create_app(parts, background=False)) as client:
        yield client


def mail(**fields: str | None) -> dict[str, Any]:
    """A mail as Inbound Parse posts it, from Alice's own server, asking for nothing."""
    sent = {
        "headers": "Message-ID: <1@mail.example.org>\nReceived: by mx\nSubject: x",
        "dkim": "{@example.org : pass}",
        "to": MAILBOX,
        "from": "Alice <alice@example.org>",
        "sender_ip": "192.0.2.1",
        "envelope": json.dumps({"to": [MAILBOX], "from": "alice@example.org"}),
        "subject": "hello",
        "text": "",
        "charsets": json.dumps({"to": "UTF-8", "subject": "UTF-8"}),
        "SPF": "pass",
        "spam_score": "0.1",
        **fields,
    }
    # A tuple without a file name makes a plain field of a multipart form.
    return {name: (None, value) for name, value in sent.items() if value is not None}


def post(client: TestClient, **fields: str | None) -> str:
    answer = client.post(PATH, files=mail(**fields))
    assert answer.status_code == 200
    done: str = answer.json()["done"]
    return done


def left(parts: Container) -> set[bytes | None]:
    with reading(parts.database) as session:
        return set(session.scalars(select(table_of(Suppression).c.address_hash)))


def token(parts: Container, person: int) -> str:
    return parts.links.token(Purpose.RECIPIENT, 7, person)


def test_every_mail_names_both_ways_and_its_mailto_unsubscribes_its_reader(
    client: TestClient, parts: Container, cast: dict[str, int]
) -> None:
    make_plan(parts.database, make_send(parts.database), batch_size=5)
    with transaction(parts.database) as session:
        now = datetime.now(UTC)
        batch = BatchStore("test", lease=timedelta(minutes=1)).claim(session, now=now)
        assert batch is not None
        people, _ = recipients(session, batch, now=now)
        variant = VariantCache().get(session, batch.variant_id)
        request = personalize(
            batch, variant, people, links=parts.links, base_url="https://n.example", mailbox=MAILBOX
        )
    (header,) = (
        r.headers["List-Unsubscribe"] for r in request.recipients if r.email == "bob@example.org"
    )
    found = re.fullmatch(r"<https://n.example/unsubscribe/([\w-]+)>, <(mailto:[^<>\s]+)>", header)
    assert found
    url = urlsplit(found[2])
    assert url.path == MAILBOX
    (subject,) = parse_qs(url.query)["subject"]
    assert subject == f"unsubscribe {found[1]}"
    assert post(client, subject=subject, **STRANGER) == "unsubscribed"
    assert left(parts) == {parts.hash_of("bob@example.org")}


STRANGER = {"from": "Mallory <m@evil.example>", "dkim": "none", "SPF": "fail"}


@pytest.mark.parametrize("subject", ["unsubscribe {}", "Re: UNSUBSCRIBE {}", "[EXT] {}", "{}"])
def test_a_token_in_the_subject_unsubscribes_whoever_wrote_the_mail(
    client: TestClient, parts: Container, cast: dict[str, int], subject: str
) -> None:
    subject = subject.format(token(parts, cast["bob"]))
    assert post(client, subject=subject, **STRANGER) == "unsubscribed"
    assert left(parts) == {parts.hash_of("bob@example.org")}


def test_a_token_behind_a_plus_counts_where_its_letters_kept_their_case(
    client: TestClient, parts: Container, cast: dict[str, int]
) -> None:
    tagged = f"unsubscribe+{token(parts, cast['bob'])}@in.example.com"
    small = {"to": tagged.lower(), "envelope": json.dumps({"to": [tagged.lower()]})}
    assert post(client, **small, **STRANGER) == "nothing"
    assert post(client, to=f"Us <{tagged}>", envelope="{}", **STRANGER) == "unsubscribed"
    assert left(parts) == {parts.hash_of("bob@example.org")}


def test_forged_and_foreign_tokens_unsubscribe_nobody(
    client: TestClient, parts: Container, cast: dict[str, int]
) -> None:
    good = token(parts, cast["bob"])
    foreign = Links(["another link key of 32 characters and more"])
    for bad in (
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.lower(),
        foreign.token(Purpose.RECIPIENT, 7, cast["bob"]),
        parts.links.token(Purpose.CONFIRM, cast["bob"]),
    ):
        assert post(client, subject=f"unsubscribe {bad}", **STRANGER) == "nothing"
    assert left(parts) == set()


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "Unsubscribe"},
        {"subject": "please unsubscribe me"},
        {"text": "\r\n  Unsubscribe me, please!\r\n\r\nAlice\r\n"},
        {"subject": "unsubscribe", "SPF": "fail"},
        {"subject": "unsubscribe", "dkim": "none"},
        {"subject": "unsubscribe", "dkim": "{@other.example : pass, @example.org : pass}"},
        {"subject": "unsubscribe", "from": "ALICE@Example.ORG"},
        {"subject": "unsubscribe", "to": "Unsubscribe+tag@IN.example.com", "envelope": "{}"},
    ],
)
def test_a_sender_whose_domain_vouches_for_them_is_unsubscribed(
    client: TestClient, parts: Container, cast: dict[str, int], fields: dict[str, str]
) -> None:
    assert post(client, **fields) == "unsubscribed"
    assert left(parts) == {parts.hash_of("alice@example.org")}


ENVELOPE_OF_MALLORY = json.dumps({"to": [MAILBOX], "from": "m@evil.example"})


@pytest.mark.parametrize(
    "fields",
    [
        {"dkim": "none", "SPF": "fail"},
        {"dkim": "none", "SPF": "softfail"},
        {"dkim": "none", "SPF": None},
        {"dkim": "{@example.org : fail}", "SPF": "none"},
        {"dkim": "{@evil.example : pass}", "envelope": ENVELOPE_OF_MALLORY},
        {"dkim": "{@ample.org : pass}", "SPF": "fail"},
        {"dkim": "{@mail.example.org : pass}", "SPF": "fail"},
        {"dkim": "{@ : pass}", "SPF": "pass", "envelope": json.dumps({"to": [MAILBOX]})},
        {"from": "alice@example.org, bob@example.org"},
        {"from": "alice@example.org <m@evil.example>"},
        {"from": ""},
        {"from": "zoe@example.org"},
        {"to": "news@in.example.com", "envelope": json.dumps({"from": "alice@example.org"})},
        {"headers": "Auto-Submitted: auto-replied\nMessage-ID: <1@x>"},
        {"subject": "hello", "text": "I like it.\n> Unsubscribe"},
        {"subject": "hello", "text": "How do I unsubscribe my dog?"},
    ],
)
def test_a_mail_that_proves_nothing_or_asks_for_nothing_changes_nothing(
    client: TestClient, parts: Container, cast: dict[str, int], fields: dict[str, str | None]
) -> None:
    assert post(client, **{"subject": "unsubscribe", **fields}) == "nothing"
    assert left(parts) == set()


def test_the_same_mail_posted_again_is_the_same_happening(
    client: TestClient, parts: Container, cast: dict[str, int]
) -> None:
    subject = f"unsubscribe {token(parts, cast['bob'])}"
    for _ in range(2):
        assert post(client, subject=subject) == "unsubscribed"
        # Bob has opted in again by the time SendGrid repeats itself.
        with transaction(parts.database) as session:
            hashed = parts.hash_of("bob@example.org")
            assert hashed
            suppression.lift(session, [hashed])
    assert left(parts) == set()
    with reading(parts.database) as session:
        events = session.execute(select(table_of(EventRow))).all()
    assert [(e.kind, e.issue_id, e.subscriber_id) for e in events] == [
        ("unsubscribe", 7, cast["bob"])
    ]
    post(client, subject=subject, headers="Message-ID: <2@mail.example.org>")
    assert left(parts) == {parts.hash_of("bob@example.org")}


@pytest.mark.parametrize("key", ["wrong", KEY[:-1], KEY + "x", "%00", "ä", KEY.upper()])
def test_a_wrong_key_takes_nothing(
    client: TestClient, parts: Container, cast: dict[str, int], key: str
) -> None:
    fields = mail(subject=f"unsubscribe {token(parts, cast['bob'])}")
    answer = client.post(f"/webhooks/sendgrid/inbound/{key}", files=fields)
    assert answer.status_code == 404
    assert left(parts) == set()


def test_without_a_key_in_the_settings_nothing_is_taken(container: Container) -> None:
    with TestClient(create_app(container, background=False)) as client:
        for key in ("", "x", "********"):
            answer = client.post(f"/webhooks/sendgrid/inbound/{key}", files=mail())
            assert answer.status_code == 404


HOSTILE = "\0\ud7ff<script>" + "A" * 5000


@pytest.mark.parametrize(
    "fields",
    [
        dict.fromkeys(mail(), HOSTILE),
        {"envelope": "[1,2]", "subject": "unsubscribe", "dkim": "none"},
        {"envelope": '{"to": 7, "from": {"a": 1}}', "subject": "unsubscribe", "dkim": "none"},
        {"envelope": "{" * 10_000},
        {"from": "<" * 10_000, "subject": "unsubscribe"},
        {"from": '"a@b" <\0@example.org>', "subject": "unsubscribe"},
        {"to": "@,;<>" * 5000},
        dict.fromkeys(mail()),
    ],
)
def test_hostile_fields_are_taken_and_change_nothing(
    client: TestClient, parts: Container, cast: dict[str, int], fields: dict[str, str | None]
) -> None:
    sent = mail(**fields) or {"x": (None, "y")}
    answer = client.post(PATH, files=sent)
    assert (answer.status_code, left(parts)) == (200, set())


def test_attachments_are_let_go(client: TestClient, parts: Container, cast: dict[str, int]) -> None:
    fields = mail(subject=f"unsubscribe {token(parts, cast['bob'])}")
    fields["attachment1"] = ("logo.png", b"\x89PNG" * 500_000, "image/png")
    assert client.post(PATH, files=fields).json() == {"done": "unsubscribed"}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=", 400),
        (b"x", "multipart/form-data; boundary=b; charset=\0", 400),
        (b"--b\r\nnonsense\r\n\r\n", "multipart/form-data; boundary=b", 400),
        (
            b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--",
            "multipart/form-data; boundary=b",
            400,
        ),
    ],
)
def test_what_is_no_form_is_a_client_error(
    client: TestClient, body: bytes, kind: str, status: int
) -> None:
    answer = client.post(PATH, content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == status


def test_a_body_larger_than_any_mail_is_refused(client: TestClient) -> None:
    start = b'--b\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield start
        for _ in range(33):
            yield b"x" * 1024 * 1024

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert client.post(PATH, content=body(), headers=kind).status_code == 413
