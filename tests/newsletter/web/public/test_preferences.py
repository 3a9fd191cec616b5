"""The preference centre: plain forms that change what they say, and nothing on GET."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Links, Purpose
from newsletter.sending.models import OutboxEmail
from newsletter.web.app import create_app
from subscribers.consent import suppression
from subscribers.models import Confirmation, Subscriber, SuppressionReason, Topic
from subscribers.self_service import preferences
from subscribers.self_service.preferences import PreferenceChoice

HTML = {"accept": "text/html"}
OTHER_KEY = "another link key of 32 characters and more"


@pytest.fixture
def client(container: Container) -> Iterator[TestClient]:
    with TestClient(create_app(container, background=False), follow_redirects=False) as client:
        yield client


@pytest.fixture
def link(container: Container, cast: dict[str, int]) -> str:
    """Alice's preferences, where there are two topics."""
    with transaction(container.database) as session:
        session.add(Topic(slug="engineering", name="Engineering", description="How we <build>"))
        session.add(Topic(slug="product", name="Product"))
        session.flush()
        preferences.save(
            session, cast["alice"], PreferenceChoice(["product"], "de-AT"), now=datetime.now(UTC)
        )
    return f"/preferences/{container.links.token(Purpose.RECIPIENT, 1, cast['alice'])}"


def notices(database: Engine) -> list[tuple[str, str]]:
    notice = table_of(OutboxEmail)
    with reading(database) as session:
        rows = session.execute(select(notice.c.kind, notice.c.email).order_by(notice.c.id))
        return [(row[0], row[1]) for row in rows]


def alice(container: Container, cast: dict[str, int]) -> Subscriber:
    with reading(container.database) as session:
        person = session.get_one(Subscriber, cast["alice"])
        session.expunge(person)
        return person


def test_the_page_shows_how_things_stand_and_the_address_only_in_part(
    client: TestClient, link: str
) -> None:
    answer = client.get(link, headers=HTML)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert 'value="product" checked' in answer.text
    assert 'value="engineering">' in answer.text
    assert "How we &lt;build&gt;" in answer.text
    assert '<option value="de-AT" lang="de-AT" selected>' in answer.text
    assert "a…@example.org" in answer.text
    assert "alice@" not in answer.text
    assert "<script" not in answer.text
    assert "set-cookie" not in answer.headers


def test_saving_changes_everything_at_once_and_shows_it(
    client: TestClient, container: Container, cast: dict[str, int], link: str
) -> None:
    form = {"topic": ["engineering"], "pause": "3", "language": "fr"}
    answer = client.post(link, data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{link}?saved")
    page = client.get(answer.headers["location"]).text
    assert "Saved." in page
    assert 'value="engineering" checked' in page
    assert 'value="product">' in page
    person = alice(container, cast)
    assert person.language == "fr"
    assert person.paused_until is not None
    weeks = person.paused_until - datetime.now(UTC)
    assert timedelta(days=20) < weeks < timedelta(days=22)
    until = person.paused_until
    client.post(link, data={"topic": ["engineering"], "pause": "keep", "language": "fr"})
    assert alice(container, cast).paused_until == until
    client.post(link, data={"pause": "0"})
    person = alice(container, cast)
    assert (person.paused_until, person.language) == (None, None)


@pytest.mark.parametrize(
    "form",
    [{}, {"topic": "product"}, {"pause": "99"}, {"pause": "-1"}, {"pause": "9" * 50}]
    + [{"pause": "keep", "language": tag} for tag in ("<b>", "\0", "en" * 40, "e")],
)
def test_a_form_that_is_not_ours_saves_nothing(
    client: TestClient, link: str, form: dict[str, str]
) -> None:
    answer = client.post(link, data=form, headers=HTML)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert 'value="product" checked' in client.get(link).text


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\xff\xfe=\x00&topic=%00", "application/x-www-form-urlencoded"),
        (b"no parts", "multipart/form-data; boundary=x"),
        (b"no boundary", "multipart/form-data"),
        (b"{}", "application/json"),
        (
            b'--x\r\ncontent-disposition: form-data; name="pause"; filename="f"\r\n\r\n3\r\n--x--',
            "m",
        ),
    ],
)
def test_a_hostile_body_is_a_client_error(
    client: TestClient, link: str, body: bytes, kind: str
) -> None:
    kind = "multipart/form-data; boundary=x" if kind == "m" else kind
    for path in (link, f"{link}/address"):
        answer = client.post(path, content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500


def test_get_and_head_change_nothing(
    client: TestClient, container: Container, cast: dict[str, int], link: str
) -> None:
    before = alice(container, cast)
    for path in (f"{link}?pause=4&topic=engineering", f"{link}/data", f"{link}/erase"):
        for method in ("GET", "HEAD"):
            assert client.request(method, path).status_code in {200, 405}
    assert alice(container, cast) == before
    assert notices(container.database) == []


@pytest.mark.parametrize("kind", ["data", "erase"])
def test_data_and_erasing_go_by_a_mail_to_the_address_that_the_person_has(
    client: TestClient, container: Container, cast: dict[str, int], link: str, kind: str
) -> None:
    for _ in range(2):
        answer = client.post(f"{link}/{kind}", headers=HTML)
        assert answer.status_code == 200
        assert "a…@example.org" in answer.text
    assert notices(container.database) == [(kind, "alice@example.org")]
    assert alice(container, cast).email == "alice@example.org"
    with reading(container.database) as session:
        assert "/request/" in session.scalars(select(table_of(OutboxEmail).c.text)).one()


def test_a_new_address_is_asked_there_and_the_old_one_is_told(
    client: TestClient, container: Container, cast: dict[str, int], link: str
) -> None:
    for _ in range(2):
        answer = client.post(f"{link}/address", data={"email": " New@Example.org "})
        assert answer.status_code == 200
        assert "New@example.org" in answer.text
    assert notices(container.database) == [
        ("address", "New@example.org"),
        ("warn", "alice@example.org"),
    ]
    assert alice(container, cast).email == "alice@example.org"


def test_whether_an_address_is_known_cannot_be_told_from_the_answer(
    client: TestClient, container: Container, cast: dict[str, int], link: str
) -> None:
    with transaction(container.database) as session:
        suppression.add(
            session,
            [cast["bob"]],
            SuppressionReason.UNSUBSCRIBED,
            at=datetime.now(UTC),
            evidence="x",
        )
    answers = {
        client.post(f"{link}/address", data={"email": f"{name}@example.org"}).text.replace(name, "")
        for name in ("charlie", "bob", "nobody")
    }
    assert len(answers) == 1
    assert ("address", "bob@example.org") not in notices(container.database)
    assert len(notices(container.database)) == 5


@pytest.mark.parametrize("email", ["", "alice", "a@b", "a\0@example.org", "alice@example.org"])
def test_what_is_no_new_address_is_said_on_the_page(
    client: TestClient, container: Container, link: str, email: str
) -> None:
    answer = client.post(f"{link}/address", data={"email": email}, headers=HTML)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert notices(container.database) == []


def test_a_fourth_mail_on_one_day_is_refused(
    client: TestClient, container: Container, link: str
) -> None:
    for number in range(3):
        assert client.post(f"{link}/address", data={"email": f"n{number}@example.org"}).is_success
    answer = client.post(f"{link}/data", headers=HTML)
    assert answer.status_code == 429
    assert "several emails today" in answer.text
    assert len(notices(container.database)) == 6


@pytest.mark.parametrize("gone", ["left", "unknown"])
def test_who_is_not_there_is_told_so_and_can_come_back(
    client: TestClient, container: Container, cast: dict[str, int], link: str, gone: str
) -> None:
    if gone == "left":
        client.post(link.replace("preferences", "unsubscribe"))
    else:
        link = f"/preferences/{container.links.token(Purpose.RECIPIENT, 1, 10**15)}"
    for answer in (
        client.get(link),
        client.post(link, data={"pause": "4"}),
        client.post(f"{link}/data"),
        client.post(f"{link}/erase"),
        client.post(f"{link}/address", data={"email": "new@example.org"}),
    ):
        assert answer.status_code == 410
        assert 'href="/subscribe"' in answer.text
    with reading(container.database) as session:
        assert session.scalars(select(table_of(Confirmation))).all() == []
    assert notices(container.database) == []


def test_forged_foreign_and_expired_tokens_open_nothing(
    client: TestClient, container: Container, cast: dict[str, int], link: str
) -> None:
    person = cast["alice"]
    good = link.rpartition("/")[2]
    past = datetime.now(UTC) - timedelta(days=1)
    tokens = [
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good[:8],
        "x",
        "%00",
        "ä" * 20,
        "A" * 5000,
        Links([OTHER_KEY]).token(Purpose.RECIPIENT, 1, person),
        container.links.token(Purpose.RECIPIENT, 1, person, expires=past),
        container.links.token(Purpose.CONFIRM, person),
    ]
    for token in tokens:
        for path in (f"/preferences/{token}", f"/preferences/{token}/erase"):
            for method in ("GET", "POST"):
                answer = client.request(method, path, headers=HTML)
                assert answer.status_code in {404, 405}, (token, method)
    assert notices(container.database) == []
