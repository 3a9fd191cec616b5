"""What takes effect only through a further mail: from the form to the mail to the button."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from sqlalchemy import select
from starlette.testclient import TestClient

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Purpose
from newsletter.sending.models import OutboxEmail
from newsletter.tracking.people import privacy
from newsletter.web.app import create_app
from subscribers.models import Confirmation, Subscriber, Suppression
from subscribers.signup import double_opt_in
from tests.conftest import add_person

HTML = {"accept": "text/html"}


@pytest.fixture
def client(container: Container) -> Iterator[TestClient]:
    with TestClient(create_app(container, background=False), follow_redirects=False) as client:
        yield client


@pytest.fixture
def home(container: Container, cast: dict[str, int]) -> str:
    """Alice's preferences."""
    return f"/preferences/{container.links.token(Purpose.RECIPIENT, 1, cast['alice'])}"


def mailed(container: Container, email: str) -> str:
    """The path of the link in the newest mail to this address; both parts carry the same."""
    notice = table_of(OutboxEmail)
    with reading(container.database) as session:
        row = session.execute(
            select(notice.c.html, notice.c.text)
            .where(notice.c.email == email)
            .order_by(notice.c.id.desc())
            .limit(1)
        ).one()
    found = re.search(r"/request/[\w-]+", row.text)
    assert found
    assert found[0] in row.html
    return found[0]


def email_of(container: Container, person: int) -> str | None:
    with reading(container.database) as session:
        found = session.get(Subscriber, person)
        return found.email if found else None


def ask(client: TestClient, home: str, kind: str, **form: str) -> None:
    assert client.post(f"{home}/{kind}", data=form).status_code == 200


def test_the_data_comes_as_one_file_and_again_while_the_link_lives(
    client: TestClient, container: Container, home: str
) -> None:
    ask(client, home, "data")
    link = mailed(container, "alice@example.org")
    page = client.get(link, headers=HTML)
    assert (page.status_code, "Download" in page.text) == (200, True)
    assert "alice@" not in page.text
    for _ in range(2):
        answer = client.post(link)
        assert answer.status_code == 200
        assert answer.headers["content-disposition"] == 'attachment; filename="my-data.json"'
        assert answer.headers["content-type"] == "application/json"
        assert "alice@example.org" in answer.text
        assert "bob@example.org" not in answer.text
        assert isinstance(answer.json(), dict)


def test_erasing_leaves_only_the_keyed_hash_and_a_second_press_is_harmless(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "erase")
    link = mailed(container, "alice@example.org")
    assert "Delete my data" in client.get(link, headers=HTML).text
    assert email_of(container, cast["alice"]) == "alice@example.org"
    answer = client.post(link, headers=HTML)
    assert (answer.status_code, "Your data was deleted." in answer.text) == (200, True)
    assert email_of(container, cast["alice"]) is None
    with reading(container.database) as session:
        suppressed = session.execute(select(table_of(Suppression))).one()
        assert suppressed.address_hash == container.hash_of("alice@example.org")
        assert suppressed.reason == "erased"
        assert session.execute(select(table_of(Confirmation))).all() == []
    again = client.post(link, headers=HTML)
    assert (again.status_code, "This link no longer works" in again.text) == (410, True)
    assert client.get(home, headers=HTML).status_code == 410
    assert email_of(container, cast["bob"]) == "bob@example.org"


def test_a_second_press_of_the_erasing_link_erases_nobody_else(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "erase")
    link = mailed(container, "alice@example.org")
    assert client.post(link).status_code == 200
    bobs = f"/preferences/{container.links.token(Purpose.RECIPIENT, 1, cast['bob'])}"
    ask(client, bobs, "erase")
    for answer in (client.get(link, headers=HTML), client.post(link)):
        assert (answer.status_code, "bob@example.org" in answer.text) == (410, False)
    assert email_of(container, cast["bob"]) == "bob@example.org"


def test_old_links_of_somebody_erased_do_nothing_to_whoever_comes_next(
    client: TestClient, container: Container, cast: dict[str, int]
) -> None:
    token = container.links.token(Purpose.RECIPIENT, 1, cast["charlie"])
    with transaction(container.database) as session:
        privacy.erase(session, cast["charlie"], now=datetime.now(UTC))
    with transaction(container.database) as session:
        dora = add_person(session, "dora@example.org")
    assert dora != cast["charlie"]
    assert client.post(f"/unsubscribe/{token}").status_code == 200
    assert client.get(f"/preferences/{token}").status_code == 410
    with reading(container.database) as session:
        barred = set(session.scalars(select(table_of(Suppression).c.address_hash)))
    assert barred == {container.hash_of("charlie@example.org")}


def test_an_address_changes_when_the_new_one_confirms_and_get_confirms_nothing(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "address", email="new@example.org")
    link = mailed(container, "new@example.org")
    for method in ("GET", "HEAD", "GET"):
        assert client.request(method, link).status_code == 200
    assert email_of(container, cast["alice"]) == "alice@example.org"
    for _ in range(2):
        answer = client.post(link)
        assert (answer.status_code, "Your address was changed." in answer.text) == (200, True)
    assert email_of(container, cast["alice"]) == "new@example.org"
    assert "n…@example.org" in client.get(home).text


@pytest.mark.parametrize("confirmed", [False, True])
def test_the_old_address_can_stop_a_change_and_undo_it(
    client: TestClient, container: Container, cast: dict[str, int], home: str, confirmed: bool
) -> None:
    ask(client, home, "address", email="thief@example.org")
    link, stop = (mailed(container, email) for email in ("thief@example.org", "alice@example.org"))
    if confirmed:
        client.post(link)
        assert email_of(container, cast["alice"]) == "thief@example.org"
        for kind in ("data", "erase"):
            assert client.post(f"{home}/{kind}").status_code == 400
    page = client.get(stop)
    assert "Keep my address" in page.text
    assert "thief" not in page.text
    answer = client.post(stop)
    assert (answer.status_code, "You keep your address." in answer.text) == (200, True)
    assert email_of(container, cast["alice"]) == "alice@example.org"
    for path in (link, stop):
        assert client.post(path).status_code == 410
    assert email_of(container, cast["alice"]) == "alice@example.org"


def test_the_link_of_a_stopped_change_confirms_no_strangers_signup(
    client: TestClient, container: Container, home: str
) -> None:
    ask(client, home, "address", email="thief@example.org")
    link, stop = (mailed(container, email) for email in ("thief@example.org", "alice@example.org"))
    assert client.post(stop).status_code == 200
    with transaction(container.database) as session:
        double_opt_in.sweep(session, now=datetime.now(UTC))
    answer = client.post("/subscribe", data={"email": "victim@example.org"})
    assert answer.status_code == 200
    for path in (link, link.replace("request", "confirm")):
        client.post(path)
    with reading(container.database) as session:
        people = set(session.scalars(select(table_of(Subscriber).c.email)))
    assert "victim@example.org" not in people


def test_an_address_that_is_in_use_is_said_to_its_owner(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "address", email="bob@example.org")
    answer = client.post(mailed(container, "bob@example.org"))
    assert (answer.status_code, "This address is in use." in answer.text) == (409, True)
    assert email_of(container, cast["alice"]) == "alice@example.org"


def test_an_address_that_left_meanwhile_is_said_to_its_owner(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "address", email="bob@example.org")
    link = mailed(container, "bob@example.org")
    client.post(f"/unsubscribe/{container.links.token(Purpose.RECIPIENT, 1, cast['bob'])}")
    answer = client.post(link)
    assert (answer.status_code, "cannot be used" in answer.text) == (409, True)


def test_who_leaves_first_stays_out_under_any_address(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "address", email="new@example.org")
    client.post(home.replace("preferences", "unsubscribe"))
    answer = client.post(mailed(container, "new@example.org"))
    assert (answer.status_code, "/subscribe" in answer.text) == (409, True)
    assert email_of(container, cast["alice"]) == "alice@example.org"


def test_a_link_that_has_run_out_does_nothing(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "erase")
    link = mailed(container, "alice@example.org")
    with time_machine.travel(datetime.now(UTC) + timedelta(days=2), tick=True):
        for method in ("GET", "POST"):
            answer = client.request(method, link, headers=HTML)
            assert (answer.status_code, "expired" in answer.text) == (404, True)
    assert email_of(container, cast["alice"]) == "alice@example.org"


def test_tokens_for_something_else_open_nothing(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "erase")
    link = mailed(container, "alice@example.org")
    with transaction(container.database) as session:
        (erase,) = session.scalars(select(table_of(Confirmation).c.id)).all()
        signup = Confirmation(
            kind="signup",
            email="x@example.org",
            address_hash=b"x" * 16,
            created_at=datetime.now(UTC),
            expires_at=datetime.now(UTC) + timedelta(days=7),
        )
        session.add(signup)
        session.flush()
        numbers = [(signup.id,), (signup.id, 1), (erase, 1), (10**15,), (10**15, 1), (0,)]
    for wrong in numbers:
        token = container.links.token(Purpose.CONFIRM, *wrong)
        for method in ("GET", "POST"):
            assert client.request(method, f"/request/{token}").status_code == 410
    bent = link[:-1] + ("A" if link[-1] != "A" else "B")
    for path in (home.replace("preferences", "request"), bent, "/request/x", "/request/%00"):
        for method in ("GET", "POST"):
            assert client.request(method, path, headers=HTML).status_code == 404
    assert email_of(container, cast["alice"]) == "alice@example.org"


def stolen(client: TestClient, container: Container, home: str) -> tuple[str, str, str]:
    """A thief with a mail that was passed on moves the subscription, and asks to move it on.

    Returns the links: the owner's to take it back, the thief's to do so, and to move it on.
    """
    ask(client, home, "address", email="thief@example.org")
    owners = mailed(container, "alice@example.org")
    assert client.post(mailed(container, "thief@example.org")).status_code == 200
    ask(client, home, "address", email="other@example.org")
    return owners, mailed(container, "thief@example.org"), mailed(container, "other@example.org")


def test_what_was_asked_under_a_stolen_address_ends_when_it_is_taken_back(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    owners, _, further = stolen(client, container, home)
    assert client.post(owners).status_code == 200
    assert client.post(further).status_code == 410
    assert email_of(container, cast["alice"]) == "alice@example.org"


def test_only_the_owner_takes_a_stolen_address_back(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    owners, thiefs, further = stolen(client, container, home)
    assert client.post(further).status_code == 200
    assert client.post(owners).status_code == 200
    assert client.post(thiefs).status_code == 410
    assert email_of(container, cast["alice"]) == "alice@example.org"


def test_a_change_counts_only_from_the_address_that_was_warned(
    client: TestClient, container: Container, cast: dict[str, int], home: str
) -> None:
    ask(client, home, "address", email="thief@example.org")
    thiefs = mailed(container, "thief@example.org")
    ask(client, home, "address", email="new@example.org")
    assert client.post(mailed(container, "new@example.org")).status_code == 200
    assert client.post(thiefs).status_code == 410
    assert email_of(container, cast["alice"]) == "new@example.org"
