"""The link of a confirmation mail: a scanner's visit changes nothing, a person's click once."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from sqlalchemy import func, select
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Links, Purpose
from newsletter.sending.models import OutboxEmail
from newsletter.settings.load import load
from newsletter.web.app import create_app
from subscribers.consent import records as consent_records
from subscribers.consent import suppression, topics
from subscribers.models import Subscriber, Suppression, SuppressionReason
from subscribers.segments import store as segment_store
from tests.conftest import LINK_KEY

HTML = {"accept": "text/html"}


@pytest.fixture
def client(container: Container) -> Iterator[TestClient]:
    app = create_app(container, background=False)
    with TestClient(app, follow_redirects=False, client=("192.0.2.9", 50000)) as client:
        yield client


def ask(client: TestClient, email: str = "ada@example.org", **more: str) -> str:
    """Sign up; returns the path in the mail, the same in both parts."""
    assert client.post("/subscribe", data={"email": email, **more}).status_code == 200
    notice = table_of(OutboxEmail)
    with reading(client.app.state.container.database) as session:  # type: ignore[attr-defined]
        row = session.execute(
            select(notice).where(notice.c.email == email).order_by(notice.c.id.desc()).limit(1)
        ).one()
    found = re.search(r"/(?:confirm|preferences)/[\w-]+", row.text)
    assert found
    assert found[0] in row.html
    return found[0]


def people(container: Container, model: type = Subscriber) -> int:
    with reading(container.database) as session:
        return session.scalar(select(func.count()).select_from(table_of(model))) or 0


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (SuppressionReason.UNSUBSCRIBED, "unsubscribed after"),
        (SuppressionReason.COMPLAINED, "unsubscribed after"),
        (SuppressionReason.BOUNCED, "bounced"),
        (SuppressionReason.MANUAL, "no more emails"),
    ],
)
def test_a_link_that_did_its_work_tells_whoever_is_gone_since_that_they_are(
    client: TestClient, container: Container, reason: SuppressionReason, words: str
) -> None:
    path = ask(client)
    assert "You are subscribed" in client.post(path, headers=HTML).text
    assert "You are subscribed" in client.post(path, headers=HTML).text
    with transaction(container.database) as session:
        hashed = container.hash_of("ada@example.org")
        suppression.add_addresses(session, [hashed], reason, at=datetime.now(UTC), evidence="")
    for answer in (client.get(path, headers=HTML), client.post(path, headers=HTML)):
        assert answer.status_code == 410
        assert "You are subscribed" not in answer.text
        assert words in answer.text
    assert people(container, Suppression) == 1


def test_a_scanner_that_follows_the_link_confirms_nothing(
    client: TestClient, container: Container
) -> None:
    path = ask(client)
    for _ in range(3):
        answer = client.get(path, headers=HTML)
        assert answer.status_code == 200
        assert client.head(path).status_code == 200
    assert people(container) == 0
    assert "ada@example.org" in answer.text
    assert f'<form method="post" action="{path}">' in answer.text
    assert "<script" not in answer.text
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_button_subscribes_and_pressing_it_again_shows_the_same_page(
    client: TestClient, container: Container
) -> None:
    path = ask(client, form="footer")
    first = client.post(path, headers=HTML | {"user-agent": "Phone/2"})
    assert first.status_code == 200
    assert "You are subscribed." in first.text
    again = client.post(path, headers=HTML)
    assert again.text == first.text
    assert people(container) == 1
    with reading(container.database) as session:
        person = session.scalar(select(Subscriber))
        assert person is not None
        acts = consent_records.of_subscriber(session, person.id)
    assert [(act.act, act.source, act.ip) for act in acts] == [
        ("requested", "form:footer", "192.0.2.9"),
        ("confirmed", "form:footer", "192.0.2.9"),
    ]
    assert acts[1].user_agent == "Phone/2"
    assert person.source == "form:footer"


@pytest.mark.slow
def test_two_presses_at_once_make_one_subscriber(client: TestClient, container: Container) -> None:
    paths = [ask(client), ask(client)] * 4
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda path: client.post(path).status_code, paths))
    assert statuses == [200] * 8
    assert people(container) == 1


def test_the_page_leads_to_the_preferences(client: TestClient) -> None:
    page = client.post(ask(client)).text
    found = re.search(r'href="[^"]*(/preferences/[\w-]+)"', page)
    assert found
    assert client.get(found[1], headers=HTML).status_code == 200


def test_a_subscriber_who_signs_up_again_is_mailed_the_way_to_their_preferences(
    client: TestClient, container: Container
) -> None:
    client.post(ask(client))
    path = ask(client)
    assert path.startswith("/preferences/")
    assert client.get(path, headers=HTML).status_code == 200
    leave = path.replace("/preferences/", "/unsubscribe/")
    assert client.post(leave).status_code == 200
    assert people(container, Suppression) == 1


def test_who_left_comes_back_by_a_new_link_and_not_by_the_old_one(
    client: TestClient, container: Container
) -> None:
    old, unused = ask(client), ask(client)
    page = client.post(old).text
    leave = re.search(r"/preferences/[\w-]+", page)
    assert leave
    client.post(leave[0].replace("preferences", "unsubscribe"))
    assert people(container, Suppression) == 1
    client.post(old)
    assert client.post(unused, headers=HTML).status_code == 410
    assert people(container, Suppression) == 1
    new = ask(client)
    assert people(container, Suppression) == 1
    assert client.post(new).status_code == 200
    assert people(container, Suppression) == 0
    assert people(container) == 1


def test_an_old_link_does_not_subscribe_an_address_that_was_changed_since(
    client: TestClient, container: Container
) -> None:
    old, unused = ask(client), ask(client)
    preferences = re.search(r"/preferences/[\w-]+", client.post(old).text)
    assert preferences
    client.post(f"{preferences[0]}/address", data={"email": "new@example.org"})
    notice = table_of(OutboxEmail)
    with reading(container.database) as session:
        text = session.scalars(
            select(notice.c.text).where(notice.c.email == "new@example.org")
        ).one()
    change = re.search(r"/request/[\w-]+", text)
    assert change
    assert client.post(change[0]).status_code == 200
    refused = client.post(unused, headers=HTML)
    assert refused.status_code == 410
    assert "changed to another address" in refused.text
    assert people(container) == 1
    # Whoever asks anew, at the old address, wants both.
    assert client.post(ask(client)).status_code == 200
    assert people(container) == 2


def test_a_link_past_its_time_says_so_and_how_to_get_another(
    client: TestClient, container: Container
) -> None:
    path = ask(client)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=8)):
        for answer in (client.get(path, headers=HTML), client.post(path, headers=HTML)):
            assert answer.status_code in {404, 410}
            assert "expired" in answer.text
            assert 'href="/subscribe"' in answer.text
    assert people(container) == 0


@pytest.mark.parametrize("forge", [lambda t: t[:-1], lambda t: t + "A", lambda t: "A" * 40])
def test_a_forged_link_confirms_nothing(client: TestClient, container: Container, forge) -> None:
    path = ask(client)
    token = path.removeprefix("/confirm/")
    for send in (client.get, client.post):
        assert send(f"/confirm/{forge(token)}", headers=HTML).status_code == 404
    assert people(container) == 0


def test_links_of_other_kinds_confirm_nothing(client: TestClient, container: Container) -> None:
    ask(client)
    soon = datetime.now(UTC) + timedelta(days=1)
    links = container.links
    assert client.post(f"/confirm/{links.token(Purpose.RECIPIENT, 1, 1)}").status_code == 404
    for numbers in [(1, 1), (99,)]:
        token = links.token(Purpose.CONFIRM, *numbers, expires=soon)
        assert client.post(f"/confirm/{token}", headers=HTML).status_code == 410
    stranger = Links(["another key of 32 characters and more"])
    token = stranger.token(Purpose.CONFIRM, 1, expires=soon)
    assert client.post(f"/confirm/{token}").status_code == 404
    assert people(container) == 0


def test_a_link_works_after_the_keys_were_rotated(
    client: TestClient, container: Container, environment: dict[str, str]
) -> None:
    path = ask(client)
    environment["NEWSLETTER_LINKS__KEYS"] = f"{'n' * 40},{LINK_KEY}"
    later = Container(load(environment))
    with TestClient(create_app(later, background=False)) as rotated:
        assert rotated.post(path).status_code == 200
    later.database.dispose()
    assert people(container) == 1


@pytest.mark.parametrize("ticked", [{}, {"topics": "news"}])
def test_the_pages_say_which_topics_come_and_those_come(
    client: TestClient, container: Container, ticked: dict[str, str]
) -> None:
    with transaction(container.database) as session:
        topics.save(session, "news", name="News")
        topics.save(session, "tech", name="Tech")
    names = "News" if ticked else "News, Tech"
    path = ask(client, **ticked)
    assert f"every issue on {names}, and issues" in client.get(path, headers=HTML).text
    page = client.post(path, headers=HTML).text
    assert f"on {names}, and issues without a topic" in page
    with reading(container.database) as session:
        wanted = [
            one
            for one in ("news", "tech")
            if session.scalar(
                select(func.count())
                .select_from(segment_store.PEOPLE)
                .where(segment_store.exclusion_reason(datetime.now(UTC), [one]).is_(None))
            )
        ]
    assert wanted == (["news"] if ticked else ["news", "tech"])
    found = re.search(r'href="[^"]*(/preferences/[^"]+)"', page)
    assert found
    preferences = client.get(found[1], headers=HTML).text
    assert preferences.count(" checked>") == (1 if ticked else 2)
    assert "If you select no topics, you get only those." in preferences
