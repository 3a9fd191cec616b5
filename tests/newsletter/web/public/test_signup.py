"""Signing up over HTTP: forms and programs of any site, and those who would abuse it."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import altcha
import pytest
import time_machine
from httpx2 import Response
from sqlalchemy import event, func, select
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SettingsError
from newsletter.sending.models import OutboxEmail
from newsletter.settings.load import load
from newsletter.web import challenge
from newsletter.web.app import create_app
from subscribers.consent import suppression
from subscribers.models import Confirmation, Subscriber, SuppressionReason, Topic
from tests.conftest import add_person

ORIGIN = "https://www.example.com"
HTML = {"accept": "text/html"}

Open = Callable[..., TestClient]


@pytest.fixture
def open_service(environment: dict[str, str]) -> Iterator[Open]:
    """Starts a service with other signup settings, as one network address sees it."""
    parts: list[Container] = []

    def start(host: str = "192.0.2.1", **settings: str) -> TestClient:
        signup = {"ORIGINS": f"{ORIGIN},http://localhost:8080", "PER_IP": "1000"}
        signup |= {"fields": "company", **settings}
        changed = {f"NEWSLETTER_SIGNUP__{name.upper()}": value for name, value in signup.items()}
        parts.append(Container(load(environment | changed)))
        app = create_app(parts[-1], background=False)
        return TestClient(app, follow_redirects=False, client=(host, 50000))

    yield start
    for one in parts:
        one.database.dispose()


@pytest.fixture
def client(open_service: Open) -> TestClient:
    return open_service()


def parts_of(client: TestClient) -> Container:
    return client.app.state.container  # type: ignore[attr-defined,no-any-return]


def mails(client: TestClient) -> list[tuple[str, str]]:
    notice = table_of(OutboxEmail)
    with reading(parts_of(client).database) as session:
        rows = session.execute(select(notice.c.kind, notice.c.email).order_by(notice.c.id))
        return [(row.kind, row.email) for row in rows]


def asked(client: TestClient) -> dict[str, Any]:
    """What the newest signup asked for."""
    table = table_of(Confirmation)
    with reading(parts_of(client).database) as session:
        found = session.scalar(select(table.c.asked).order_by(table.c.id.desc()).limit(1))
    assert found is not None
    return dict(found)


def rows(client: TestClient, model: type) -> int:
    with reading(parts_of(client).database) as session:
        return session.scalar(select(func.count()).select_from(table_of(model))) or 0


def offer_topics(client: TestClient) -> None:
    with transaction(parts_of(client).database) as session:
        session.add(Topic(slug="engineering", name="Engineering & <more>", description="How"))
        session.add(Topic(slug="product", name="Product"))


def hidden(page: str) -> dict[str, str]:
    """A form's hidden fields."""
    return dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page))


# What people meet


def test_the_hosted_form_needs_no_script_and_is_kept_in_no_cache(client: TestClient) -> None:
    offer_topics(client)
    answer = client.get("/subscribe", headers=HTML)
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]
    assert f"form-action 'self' {ORIGIN}" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert "x-robots-tag" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert "Engineering &amp; &lt;more&gt;" in answer.text
    assert "I want to get this newsletter by email." in answer.text
    assert client.head("/subscribe").status_code == 200


def test_who_fills_in_the_hosted_form_is_mailed_a_link(client: TestClient) -> None:
    offer_topics(client)
    opened = datetime.now(UTC)
    with time_machine.travel(opened, tick=False):
        form = hidden(client.get("/subscribe", headers=HTML).text)
    form |= {"email": "ada@example.org", "name": "Ada", "topics": "engineering", "homepage": ""}
    with time_machine.travel(opened + timedelta(seconds=10)):
        answer = client.post("/subscribe", data=form, headers=HTML)
    assert answer.status_code == 200
    assert "ada@example.org" in answer.text
    assert mails(client) == [("confirm", "ada@example.org")]
    wish = asked(client)
    assert (wish["form"], wish["topics"], wish["ip"]) == ("hosted", ["engineering"], "192.0.2.1")
    assert wish["wording"].startswith("I want to get this newsletter")
    assert rows(client, Subscriber) == 0


def test_a_snippet_on_another_site_needs_an_address_only(client: TestClient) -> None:
    answer = client.post("/subscribe", data={"email": "ada@example.org"}, headers=HTML)
    assert answer.status_code == 200
    assert mails(client) == [("confirm", "ada@example.org")]


def test_a_multipart_form_is_as_good(client: TestClient) -> None:
    offer_topics(client)
    form = [
        ("email", (None, "ada@example.org")),
        ("name", (None, "Ædä 🎈")),
        ("topics", (None, "engineering")),
        ("topics", (None, "product")),
        ("attributes.company", (None, "R&D <b>{{name}}</b>\r\nVienna")),
        ("language", (None, "de-AT")),
        ("timezone", (None, "Europe/Vienna")),
    ]
    assert client.post("/subscribe", files=form).status_code == 200
    wish = asked(client)
    assert wish["name"] == "Ædä 🎈"
    assert wish["topics"] == ["engineering", "product"]
    assert wish["attributes"] == {"company": "R&D <b>{{name}}</b>\r\nVienna"}
    assert (wish["language"], wish["timezone"]) == ("de-AT", "Europe/Vienna")


def test_what_has_to_be_mended_is_shown_in_the_form_filled_in_again(client: TestClient) -> None:
    offer_topics(client)
    form = {
        "email": 'x"><script>',
        "name": "Ada",
        "topics": "product",
        "attributes.company": "R&D",
        "next": f"{ORIGIN}/thanks",
    }
    answer = client.post("/subscribe", data=form, headers=HTML)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert 'aria-invalid="true" aria-describedby="email-mistake"' in answer.text
    assert "This is not an email address." in answer.text
    assert "<script" not in answer.text
    assert 'value="Ada"' in answer.text
    assert 'value="product" checked' in answer.text
    kept = hidden(answer.text)
    assert (kept["attributes.company"], kept["next"]) == ("R&amp;D", f"{ORIGIN}/thanks")
    assert rows(client, Confirmation) == 0


@pytest.mark.parametrize(
    "url",
    [f"{ORIGIN}/thanks?a=1#b", "http://localhost:8080/", "http://127.0.0.1:8000/", f"{ORIGIN}:443"],
)
def test_a_form_may_lead_back_to_a_known_site(client: TestClient, url: str) -> None:
    answer = client.post("/subscribe", data={"email": "ada@example.org", "next": url})
    assert (answer.status_code, answer.headers["location"]) == (303, url)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "https://www.example.com.evil.example/",
        "https://www.example.com@evil.example/",
        "https://evil.example\\@www.example.com/",
        "http://www.example.com/",
        "https://www.example.com:444/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "https://www.example.com/\r\nSet-Cookie: a=b",
        "https://www.example.com:x/",
        "https://[::1",
        "https:///www.example.com",
        "thanks.html",
    ],
)
def test_a_form_leads_to_no_other_place(client: TestClient, url: str) -> None:
    form = {"email": "ada@example.org", "next": url}
    answer = client.post("/subscribe", data=form, headers=HTML)
    assert answer.status_code == 200
    assert "location" not in answer.headers


# What programs meet


def test_json_is_answered_in_json(client: TestClient) -> None:
    offer_topics(client)
    wish = {
        "email": "ada@example.org",
        "name": "Ada",
        "topics": ["engineering"],
        "attributes": {"company": "R&D"},
        "form": "footer",
    }
    answer = client.post("/subscribe", json=wish)
    assert (answer.status_code, answer.json()) == (202, {"status": "check your mail"})
    assert asked(client)["form"] == "footer"


def test_json_problems_are_told_by_field(client: TestClient) -> None:
    answer = client.post("/subscribe", json={"email": "x", "timezone": "Mars", "topics": ["x"]})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert list(answer.json()["errors"]) == ["email", "topics", "timezone"]


def _as_form(client: TestClient, name: str, value: str) -> Response:
    form = {"email": "ada@example.org", name: value, f"attributes.{name}": value}
    return client.post("/subscribe", data=form)


def _as_multipart(client: TestClient, name: str, value: str) -> Response:
    form = [("email", (None, "ada@example.org")), (f"attributes.{name}", (None, value))]
    return client.post("/subscribe", files=form)


def _as_json(client: TestClient, name: str, value: str) -> Response:
    wish = {"email": "ada@example.org", "attributes": {name: value}}
    return client.post("/subscribe", json=wish)


def test_one_mailbox_gets_no_more_mails_by_other_spellings_from_other_networks(
    open_service: Open,
) -> None:
    spellings = [
        "a.da@gmail.com",
        "ada@googlemail.com",
        "ADA@gmail.com",
        "ada+1@gmail.com",
        "a.d.a+x.y@googlemail.com",
        *(f"ada+{n}@gmail.com" for n in range(20)),
        "adaada@gmail.com",
    ]
    for n, email in enumerate(spellings):
        client = open_service(host=f"198.51.100.{n}")
        assert client.post("/subscribe", data={"email": email}).status_code == 200
    # Three to Ada, and one to somebody else.
    assert [email for _, email in mails(client)] == [
        *spellings[:2],
        "ADA@gmail.com",
        "adaada@gmail.com",
    ]


def test_one_domain_gets_so_many_mails_an_hour_unless_strangers_share_it(
    open_service: Open,
) -> None:
    client = open_service(per_domain="3")
    hosts = ["victim.example", "a.victim.example", "b.c.victim.example", "victim.example"]
    for n, host in enumerate(hosts):
        answer = client.post("/subscribe", data={"email": f"x{n}@{host}"}, headers=HTML)
        assert answer.status_code == (200 if n < 3 else 429)
    assert "for addresses at victim.example" in answer.text
    assert answer.headers["retry-after"]
    assert client.post("/subscribe", json={"email": "y@victim.example"}).status_code == 429
    for n in range(5):
        assert client.post("/subscribe", data={"email": f"p{n}@gmail.com"}).status_code == 200
    assert client.post("/subscribe", data={"email": "z@other.example"}).status_code == 200


#: What segments, imports and exports know somebody by, and what operators invent.
UNDECLARED = ["plan", "tags", "status", "source", "confirmed_at", "vip", "email", "signed_up"]


@pytest.mark.parametrize("double_opt_in", ["true", "false"])
@pytest.mark.parametrize("post", [_as_form, _as_multipart, _as_json])
def test_a_signup_sets_only_what_a_form_declares_also_of_who_comes_back(
    open_service: Open, post: Callable[..., Response], double_opt_in: str
) -> None:
    client = open_service(per_address="100", double_opt_in=double_opt_in)
    parts = parts_of(client)
    with transaction(parts.database) as session:
        ada = add_person(session, "ada@example.org", attributes={"plan": "free", "tags": ["new"]})
        left = datetime.now(UTC)
        suppression.add(session, [ada], SuppressionReason.UNSUBSCRIBED, at=left, evidence="")
    for name in UNDECLARED:
        answer = post(client, name, "pro")
        assert answer.status_code == 400, name
        assert f"“{name}”" in answer.text
        assert "signup.fields" in answer.text
    assert post(client, "company", "R&D").status_code in {200, 202}
    notice = table_of(OutboxEmail)
    with reading(parts.database) as session:
        html = session.scalars(select(notice.c.html).order_by(notice.c.id.desc())).first()
    confirm = re.search(r"/confirm/[^\"]+", html or "")
    assert confirm is not None
    assert client.post(confirm[0]).status_code == 200
    table = table_of(Subscriber)
    with reading(parts.database) as session:
        found = session.execute(select(table).where(table.c.id == ada)).one()
    assert found.attributes == {"plan": "free", "tags": ["new"], "company": "R&D"}


def test_by_default_a_form_sets_no_attribute_and_the_next_try_of_our_form_passes(
    open_service: Open,
) -> None:
    client = open_service(fields="")
    form = {"email": "ada@example.org", "attributes.company": "R&D"}
    answer = client.post("/subscribe", data=form, headers=HTML)
    assert (answer.status_code, rows(client, Confirmation)) == (400, 0)
    assert "attributes.company" not in hidden(answer.text)


@pytest.mark.parametrize("name", ["tags", "status", "Plan", "a b", "x" * 41, "email", "1st"])
def test_a_name_that_no_form_may_set_is_refused_in_the_settings(name: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"NEWSLETTER_SIGNUP__FIELDS": name})
    assert "signup.fields" in str(refused.value.place)


def test_a_script_that_posts_a_form_may_ask_for_json(client: TestClient) -> None:
    wants = {"accept": "application/json"}
    answer = client.post("/subscribe", data={"email": "ada@example.org"}, headers=wants)
    assert answer.json() == {"status": "check your mail"}


def test_scripts_of_configured_sites_may_post_and_read_the_answer(client: TestClient) -> None:
    asks = {"origin": ORIGIN, "access-control-request-method": "POST"}
    answer = client.options("/subscribe", headers=asks)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "content-type" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    for wish in ({"email": "ada@example.org"}, {"email": "x"}, [], {"nonsense": 1}):
        answer = client.post("/subscribe", json=wish, headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "https://www.example.com.evil.example", "http://["],
)
def test_scripts_of_other_sites_may_not(client: TestClient, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}
    answer = client.options("/subscribe", headers=asks)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    answer = client.post("/subscribe", json={"email": "a@example.org"}, headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"


def part(name: bytes, value: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n'
    return head + value + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"email=a@example.org", 415),
        ("", b"email=a@example.org", 415),
        ("application/xml", b"<a/>", 415),
        ("application/json; charset=utf-16", "{}".encode("utf-16"), 415),
        ("application/json", b"", 400),
        ("application/json", b"{", 400),
        ("application/json", b"[]", 400),
        ("application/json", b'"a@example.org"', 400),
        ("application/json", b"[" * 30_000, 400),
        ("application/json", b'{"email": "a@example.org", "email": "b@example.org"}', 400),
        ("application/json", b'{"email": "a@example.org", "admin": true}', 400),
        ("application/json", b'{"email": "a@example.org", "name": "\\ud800"}', 400),
        ("application/json", b'{"email": "a@example.org", "name": "\xff"}', 400),
        ("application/json", b'{"email": "a@example.org", "name": NaN}', 400),
        ("application/json", b'{"email": "a@example.org", "name": 1e999}', 400),
        ("application/json", b'{"email": ' + b"9" * 10_000 + b"}", 400),
        ("application/json", b'{"email": null}', 400),
        ("application/json", b'{"email": {"a": []}, "attributes": 1, "topics": {}}', 400),
        ("application/json", b'{"email": "a@example.org", "attributes": {"a": {}}}', 400),
        ("application/json", b'{"email": "a@example.org", "next": 5}', 202),
        (FORM, b"", 400),
        (FORM, b"email=a@example.org&email=b@example.org", 400),
        (FORM, b"email=a@example.org&attributes.a=1&attributes.a=2", 400),
        (FORM, b"email=a@example.org&name=%ff", 400),
        (FORM, b"email=a@example.org&name=\xff", 400),
        (FORM, b"email=a@example.org&name=%00", 400),
        (FORM, b"email=a%0abcc:b@example.org", 400),
        (FORM, b"&".join(b"a%d=1" % n for n in range(300)), 400),
        (FORM, b"email=a@example.org&submit=Go&submit=Again", 200),
        (MULTIPART, part(b"email", b"a@example.org"), 200),
        (MULTIPART, part(b"email", b"\xff@example.org"), 400),
        (MULTIPART, part(b"\xff", b"x"), 400),
        (MULTIPART, b"nonsense", 400),
        (MULTIPART, part(b'email"; filename="x', b"a@example.org"), 400),
        ("multipart/form-data", part(b"email", b"a@example.org"), 400),
        (FORM, b"email=a@example.org&name=" + b"x" * 70_000, 413),
        ("application/json", b" " * 70_000, 413),
        (MULTIPART, part(b"email", b"x" * 70_000), 413),
    ],
)
def test_whatever_is_sent_gets_a_clear_answer(
    client: TestClient, kind: str, body: bytes, status: int
) -> None:
    for accept in ("text/html", "*/*"):
        headers = {"content-type": kind, "accept": accept}
        answer = client.post("/subscribe", content=body, headers=headers)
        assert answer.status_code == status, answer.text
    assert rows(client, Confirmation) == (2 if status < 300 else 0)


def test_a_body_without_end_is_cut_off(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 200:
            sent += 1
            yield b"x" * 4096

    answer = client.post("/subscribe", content=endless(), headers={"content-type": FORM})
    assert answer.status_code == 413


# Who is known cannot be told


@contextmanager
def statements(parts: Container) -> Iterator[list[str]]:
    said: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(parts.database, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(parts.database, "before_cursor_execute", note)


@pytest.mark.parametrize("double_opt_in", ["true", "false"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_every_address_gets_the_same_answer_for_the_same_work(
    open_service: Open, double_opt_in: str, accept: str
) -> None:
    client = open_service(double_opt_in=double_opt_in, per_address="1")
    parts = parts_of(client)
    with transaction(parts.database) as session:
        add_person(session, "known@example.org")
        add_person(session, "quiet@example.org", confirmed_at=None)
        for name, reason in (
            ("leftt", SuppressionReason.UNSUBSCRIBED),
            ("noway", SuppressionReason.MANUAL),
            ("eased", SuppressionReason.ERASED),
        ):
            hashed = parts.hash_of(f"{name}@example.org")
            assert hashed
            add_person(session, f"{name}@example.org")
            suppression.add_addresses(
                session, [hashed], reason, at=datetime.now(UTC), evidence="test"
            )
    headers = {"accept": accept}
    client.post("/subscribe", data={"email": "often@example.org"})
    answers: dict[str, tuple[int, str, dict[str, str]]] = {}
    work: dict[str, int] = {}
    for name in ("fresh", "known", "quiet", "leftt", "noway", "eased", "often"):
        with statements(parts) as said:
            answer = client.post(
                "/subscribe", data={"email": f"{name}@example.org"}, headers=headers
            )
        body = answer.text.replace(f"{name}@", "someone@")
        answers[name] = (answer.status_code, body, dict(answer.headers))
        work[name] = len(said)
    assert all(answer == answers["fresh"] for answer in answers.values())
    assert len(set(work.values())) == 1, work
    kind = "confirm" if double_opt_in == "true" else "welcome"
    sent = {email.partition("@")[0]: kind for kind, email in mails(client)}
    assert sent == {
        "often": kind,
        "fresh": kind,
        "known": "known",
        "quiet": kind,
        "leftt": "confirm",
        "eased": "confirm",
    }


def test_no_mail_repeats_what_a_stranger_typed(client: TestClient) -> None:
    form = {"email": "ada@example.org", "name": "Buy cheap pills at evil.example"}
    client.post("/subscribe", data=form | {"attributes.company": "evil.example"})
    notice = table_of(OutboxEmail)
    with reading(parts_of(client).database) as session:
        row = session.execute(select(notice)).one()
    assert "evil.example" not in row.subject + row.html + row.text


def test_without_double_opt_in_the_page_says_that_it_is_done(open_service: Open) -> None:
    client = open_service(double_opt_in="false")
    answer = client.post("/subscribe", data={"email": "ada@example.org"}, headers=HTML)
    assert "Thank you." in answer.text
    assert mails(client) == [("welcome", "ada@example.org")]
    assert rows(client, Subscriber) == 1
    assert client.post("/subscribe", json={"email": "b@example.org"}).json() == {
        "status": "subscribed"
    }


# Abuse


def test_a_flood_to_one_victim_is_a_few_mails_and_looks_like_success(client: TestClient) -> None:
    answers = [
        client.post("/subscribe", json={"email": f"{'v' if n % 2 else 'V'}ictim@example.org"})
        for n in range(30)
    ]
    assert {answer.status_code for answer in answers} == {202}
    assert len(mails(client)) == 3


def test_one_network_signs_up_so_many_an_hour_on_all_processes_together(
    open_service: Open,
) -> None:
    one, two = (open_service(per_ip="5"), open_service(per_ip="5"))
    statuses = [
        (one, two)[n % 2].post("/subscribe", json={"email": f"a{n}@example.org"}).status_code
        for n in range(8)
    ]
    assert statuses == [202] * 5 + [429] * 3
    refused = one.post("/subscribe", json={"email": "b@example.org"}, headers={"origin": ORIGIN})
    assert refused.headers["retry-after"] == "900"
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    page = one.post("/subscribe", data={"email": "b@example.org", "name": "Bo"}, headers=HTML)
    assert page.status_code == 429
    assert "Too many sign-ups from your network." in page.text
    assert 'value="Bo"' in page.text
    assert len(mails(one)) == 5


def test_the_neighbours_in_an_ipv6_network_count_as_one_and_others_do_not(
    open_service: Open,
) -> None:
    hosts = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    statuses = [
        open_service(host, per_ip="1").post("/subscribe", json={"email": "a@example.org"})
        for host in hosts
    ]
    assert [answer.status_code for answer in statuses] == [202, 429, 202]


def test_a_slip_costs_nothing_of_the_limit(open_service: Open) -> None:
    client = open_service(per_ip="1")
    for _ in range(3):
        assert client.post("/subscribe", json={"email": "x"}).status_code == 400
    assert client.post("/subscribe", json={"email": "a@example.org"}).status_code == 202


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_whoever_fills_in_the_trap_is_thanked_and_nothing_happens(
    client: TestClient, accept: str
) -> None:
    headers = {"accept": accept}
    form = {"email": "ada@example.org"}
    honest = client.post("/subscribe", data=form, headers=headers)
    trapped = client.post("/subscribe", data=form | {"homepage": "http://x"}, headers=headers)
    assert (honest.status_code, honest.text) == (trapped.status_code, trapped.text)
    assert len(mails(client)) == 1


def test_a_form_sent_faster_than_a_person_can_is_to_be_sent_again(client: TestClient) -> None:
    form = hidden(client.get("/subscribe").text) | {"email": "ada@example.org"}
    answer = client.post("/subscribe", data=form, headers=HTML)
    assert answer.status_code == 400
    assert "The form was sent too fast." in answer.text
    assert 'value="ada@example.org"' in answer.text
    assert rows(client, Confirmation) == 0


@pytest.mark.parametrize(
    "stamp", ["", "x", "1.x", "9999999999.00", "1\x00.", "²." + "0" * 32, "é.é"]
)
def test_a_stamp_of_somebody_elses_making_does_not_count(client: TestClient, stamp: str) -> None:
    form = {"email": "ada@example.org", "opened": stamp}
    answer = client.post("/subscribe", data=form, headers=HTML)
    assert answer.status_code == 400
    assert "This form has expired." in answer.text


def test_a_form_that_lay_open_for_days_is_to_be_sent_again(client: TestClient) -> None:
    now = datetime.now(UTC)
    keys = parts_of(client).form_keys
    for age, status in ((timedelta(days=2), 400), (timedelta(hours=23), 202)):
        stamp = challenge.stamp(keys, now - age)
        wish = {"email": "ada@example.org", "opened": stamp}
        assert client.post("/subscribe", json=wish).status_code == status
    ahead = {"email": "ada@example.org", "opened": challenge.stamp(keys, now + timedelta(hours=1))}
    assert client.post("/subscribe", json=ahead).status_code == 400


def test_a_throw_away_address_is_refused_only_where_that_is_set(open_service: Open) -> None:
    wish = {"email": "ada@mailinator.com"}
    answer = open_service().post("/subscribe", json=wish)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["email"])
    assert open_service(refuse_disposable="false").post("/subscribe", json=wish).status_code == 202


# Proof of work


def solve(client: TestClient) -> str:
    answer = client.get("/subscribe/challenge", headers={"origin": ORIGIN})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    task = altcha.Challenge.from_dict(answer.json())
    solution = altcha.solve_challenge(task)
    assert solution
    return altcha.Payload(task, solution).to_base64()


def post(client: TestClient, solution: str) -> Response:
    return client.post("/subscribe", json={"email": "ada@example.org", "altcha": solution})


@pytest.mark.slow
def test_a_proof_of_work_counts_once(open_service: Open) -> None:
    client, other = open_service(challenge="altcha"), open_service(challenge="altcha")
    solution = solve(client)
    assert post(client, solution).status_code == 202
    for process in (client, other):
        answer = post(process, solution)
        assert answer.status_code == 400
        assert list(answer.json()["errors"]) == ["altcha"]
    assert len(mails(client)) == 1


@pytest.mark.slow
def test_a_proof_that_is_missing_forged_or_old_does_not_count(open_service: Open) -> None:
    client = open_service(challenge="altcha")
    solution = solve(client)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=30)):
        assert post(client, solution).status_code == 400
    task = altcha.create_challenge("SHA-256", 1, key_prefix="00", hmac_secret="guess")
    found = altcha.solve_challenge(task)
    assert found
    forged = altcha.Payload(task, found).to_base64()
    unsolved = altcha.Payload(
        altcha.Challenge.from_dict(client.get("/subscribe/challenge").json()),
        altcha.Solution(0, "00"),
    ).to_base64()
    bad = ["", "x", "é", "e30=", "bnVsbA==", "W10=", "A" * 5000, forged, unsolved]
    for text in bad:
        assert post(client, text).status_code == 400
    deep = "[" * 3000
    assert post(client, base64.b64encode(deep.encode()).decode()).status_code == 400
    assert rows(client, Confirmation) == 0
    assert post(client, solution).status_code == 202


@pytest.mark.slow
def test_a_slip_does_not_use_the_proof_up(open_service: Open) -> None:
    client = open_service(challenge="altcha")
    solution = solve(client)
    answer = client.post("/subscribe", json={"email": "x", "altcha": solution})
    assert list(answer.json()["errors"]) == ["email"]
    assert post(client, solution).status_code == 202


def test_a_snippet_without_proof_is_led_to_the_form_that_makes_one(open_service: Open) -> None:
    client = open_service(challenge="altcha")
    answer = client.post("/subscribe", data={"email": "ada@example.org"}, headers=HTML)
    assert answer.status_code == 400
    assert "The bot check is missing." in answer.text
    assert "<altcha-widget" in answer.text
    assert 'value="ada@example.org"' in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'; worker-src 'self'; connect-src 'self'" in policy
    assert "unsafe" not in policy
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        assert client.get(path).status_code == 200


def test_where_no_proof_is_asked_for_there_is_no_challenge(client: TestClient) -> None:
    assert client.get("/subscribe/challenge").status_code == 404


@pytest.mark.slow
def test_the_stamp_and_the_challenge_outlive_a_new_key(
    environment: dict[str, str], open_service: Open
) -> None:
    client = open_service(challenge="altcha")
    solution = solve(client)
    old = environment["NEWSLETTER_LINKS__KEYS"]
    environment["NEWSLETTER_LINKS__KEYS"] = json.dumps(["n" * 40, old])
    assert post(open_service(challenge="altcha"), solution).status_code == 202


@pytest.mark.parametrize("given", [{}, {"topics": []}, {"topics": [""]}])
def test_who_ticks_no_topic_gets_all_of_them_as_the_form_says(
    client: TestClient, given: dict[str, list[str]]
) -> None:
    offer_topics(client)
    assert "If you select none, you get all of them" in client.get("/subscribe", headers=HTML).text
    answer = client.post("/subscribe", json={"email": "ada@example.org", **given})
    assert answer.status_code == 202
    assert asked(client)["topics"] == ["engineering", "product"]


def test_a_topic_may_be_asked_for_by_its_name(client: TestClient) -> None:
    offer_topics(client)
    names = [" PRODUCT ", "engineering & <MORE>"]
    client.post("/subscribe", json={"email": "ada@example.org", "topics": names})
    assert asked(client)["topics"] == ["product", "engineering"]
