"""Leaving as RFC 8058 asks, and what it does to a send that is under way."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import SQLModel
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Links, Purpose
from newsletter.sending.models import OutboxEmail
from newsletter.settings.load import load
from newsletter.tracking.models import EventRow
from newsletter.tracking.stats import counters
from newsletter.web.app import create_app
from subscribers.consent import suppression
from subscribers.models import Consent, Subscriber, Suppression, SuppressionReason
from tests.conftest import LINK_KEY
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, make_plan, make_send, states

HTML = {"accept": "text/html"}
NEW_KEY = "a newer link key of 32 characters and more"
URLENCODED = ("application/x-www-form-urlencoded", b"List-Unsubscribe=One-Click")
_PARTS = (
    b'--9f8e\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
    b"One-Click\r\n--9f8e--\r\n"
)
MULTIPART = ("multipart/form-data; boundary=9f8e", _PARTS)


@pytest.fixture
def client(container: Container) -> Iterator[TestClient]:
    with TestClient(create_app(container, background=False), follow_redirects=False) as client:
        yield client


def url(container: Container, person: int, issue: int = 1) -> str:
    return f"/unsubscribe/{container.links.token(Purpose.RECIPIENT, issue, person)}"


def reasons(container: Container) -> dict[bytes, str]:
    with reading(container.database) as session:
        table = table_of(Suppression)
        return {r.address_hash: r.reason for r in session.execute(select(table))}


def left(container: Container, *names: str) -> dict[bytes | None, str]:
    return {container.hash_of(f"{name}@example.org"): "unsubscribed" for name in names}


@pytest.mark.parametrize("post", [URLENCODED, MULTIPART, ("text/plain", b"?"), ("", b"")])
def test_one_post_without_cookies_or_redirects_leaves_whatever_its_body(
    client: TestClient, container: Container, cast: dict[str, int], post: tuple[str, bytes]
) -> None:
    headers = {"content-type": post[0]} if post[0] else {}
    answer = client.post(url(container, cast["alice"]), content=post[1], headers=headers)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert "location" not in answer.headers
    assert reasons(container) == left(container, "alice")


def test_the_same_post_again_answers_the_same_and_changes_nothing(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    path = url(container, cast["alice"])
    answers = [client.post(path, content=URLENCODED[1]) for _ in range(3)]
    assert {(a.status_code, a.text) for a in answers} == {(200, answers[0].text)}
    assert reasons(container) == left(container, "alice")
    with reading(container.database) as session:
        rows = session.execute(select(table_of(Consent))).all()
        assert [(r.subscriber_id, r.act, r.source) for r in rows] == [
            (cast["alice"], "withdrawn", "our link")
        ]


def everything(container: Container) -> dict[str, list[Any]]:
    """Every row of every table, so that nothing can grow unnoticed."""
    with reading(container.database) as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in SQLModel.metadata.sorted_tables
        }


@pytest.mark.slow
def test_whoever_has_left_leaves_no_trace_by_leaving_again_however_often_and_by_which_mail(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    """200 posts of one person were 200 events, by which a circuit breaker could pause a send."""
    for name, reason in (
        ("alice", None),
        ("bob", SuppressionReason.COMPLAINED),
        ("charlie", SuppressionReason.MANUAL),
    ):
        if reason is not None:
            with transaction(container.database) as session:
                now = datetime.now(UTC)
                suppression.add(session, [cast[name]], reason, at=now, evidence="before")
        client.post(url(container, cast[name]))
        before = everything(container)
        for issue in [1, 1, 2, 3] * 10:
            assert client.post(url(container, cast[name], issue)).status_code == 200
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(client.post, [url(container, cast[name])] * 16))
        assert everything(container) == before
    assert client.post(url(container, 999)).status_code == 200
    assert everything(container) == before


def test_whoever_posts_at_once_has_left_once(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.post(url(container, cast["alice"])), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(everything(container)["event"]) == len(everything(container)["consent"]) == 1


def test_leaving_again_ends_a_confirmation_that_was_asked_for_since(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    path = url(container, cast["alice"])
    client.post(path)
    client.post("/subscribe", data={"email": "alice@example.org"})
    with reading(container.database) as session:
        html = session.scalars(select(table_of(OutboxEmail).c.html)).one()
    confirm = re.search(r"/confirm/[\w-]+", html)
    assert confirm is not None
    client.post(path)
    assert client.post(confirm[0]).status_code == 410
    assert reasons(container) == left(container, "alice")


def test_get_and_head_show_a_button_and_change_nothing(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    path = url(container, cast["alice"])
    page = client.get(path, headers=HTML)
    assert page.status_code == 200
    assert f'<form method="post" action="{path}">' in page.text
    assert f'href="{path.replace("unsubscribe", "preferences")}"' in page.text
    assert client.head(path).status_code == 200
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert client.request(method, path).status_code == 405
    assert reasons(container) == {}
    with reading(container.database) as session:
        assert session.scalar(select(func.count()).select_from(table_of(EventRow))) == 0


def test_forged_foreign_and_expired_tokens_are_a_page_or_a_problem_and_never_an_error(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    good = container.links.token(Purpose.RECIPIENT, 1, cast["alice"])
    tokens = [
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.lower(),
        good + good,
        good[:9],
        "x",
        "=",
        "%00",
        "%ff%fe",
        "ä" * 30,
        "A" * 8000,
        Links([NEW_KEY]).token(Purpose.RECIPIENT, 1, cast["alice"]),
        container.links.token(
            Purpose.RECIPIENT, 1, cast["alice"], expires=datetime.now(UTC) - timedelta(seconds=5)
        ),
        container.links.token(Purpose.CONFIRM, cast["alice"]),
    ]
    for token in tokens:
        for method in ("GET", "POST"):
            page = client.request(method, f"/unsubscribe/{token}", headers=HTML)
            assert page.status_code == 404, token
            assert "<h1>" in page.text
            problem = client.request(method, f"/unsubscribe/{token}")
            assert problem.headers["content-type"] == "application/problem+json"
            assert problem.json()["status"] == 404
    assert reasons(container) == {}


def test_links_in_mails_already_sent_outlive_a_rotation_until_the_old_key_is_dropped(
    environment: dict[str, str], cast: dict[str, int]
) -> None:
    old = Links([LINK_KEY]).token(Purpose.RECIPIENT, 1, cast["alice"])
    for keys, status in ((f"{NEW_KEY},{LINK_KEY}", 200), (NEW_KEY, 404)):
        parts = Container(load({**environment, "NEWSLETTER_LINKS__KEYS": keys}))
        with TestClient(create_app(parts, background=False)) as client:
            assert client.post(f"/unsubscribe/{old}").status_code == status
        parts.database.dispose()


def test_somebody_who_is_gone_leaves_without_an_error(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    assert client.post(url(container, 10**15, 10**15)).status_code == 200
    with transaction(container.database) as session:
        session.delete(session.get_one(Subscriber, cast["bob"]))
    assert client.post(url(container, cast["bob"])).status_code == 200
    assert reasons(container) == {}


def test_leaving_counts_for_a_send_that_is_under_way(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    send, gateway = make_send(container.database), FakeGateway()
    make_plan(container.database, send, batch_size=1)
    worker = dispatcher(container.database, gateway)
    assert worker.send_next()
    assert gateway.mailed == ["alice@example.org"]
    assert client.post(url(container, cast["bob"])).status_code == 200
    while worker.send_next():
        pass
    assert gateway.mailed == ["alice@example.org", "charlie@example.org"]
    found = states(container.database, send)
    assert found[cast["bob"]] == ("skipped", "unsubscribed")
    with reading(container.database) as session:
        assert counters.of_send(session, send)["unsubscribe"] == 1


def test_leaving_in_the_very_moment_between_claim_and_departure_ends_it_for_the_next_issue(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    send, gateway = make_send(container.database), FakeGateway()
    make_plan(container.database, send, batch_size=5)

    def bobs_own_link() -> None:
        (header,) = (
            recipient.headers["List-Unsubscribe"]
            for recipient in gateway.requests[0].recipients
            if recipient.email == "bob@example.org"
        )
        path = header.removeprefix("<https://news.example").removesuffix(">")
        assert client.post(path).status_code == 200

    gateway.during = bobs_own_link
    worker = dispatcher(container.database, gateway)
    while worker.send_next():
        pass
    assert len(gateway.mailed) == 3
    gateway.during = lambda: None
    second = make_send(container.database, slug="second")
    make_plan(container.database, second, batch_size=5)
    while worker.send_next():
        pass
    assert sorted(gateway.mailed[3:]) == ["alice@example.org", "charlie@example.org"]


def test_who_came_back_by_opting_in_can_leave_again_by_the_same_link(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    path = url(container, cast["alice"])
    for _ in range(2):
        client.post(path)
        assert reasons(container) == left(container, "alice")
        with transaction(container.database) as session:
            hashed = container.hash_of("alice@example.org")
            assert hashed
            suppression.lift(session, [hashed])
    with reading(container.database) as session:
        acts = session.scalars(select(table_of(Consent).c.act)).all()
    assert acts == ["withdrawn", "withdrawn"]
