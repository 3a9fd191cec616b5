"""The first visit: a link makes the owner, once; a checklist leads to the first issue."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from newsletter.accounts.models import AuditEntry, Role, User
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Purpose
from newsletter.operations import first_owner
from newsletter.operations.first_steps import first_steps
from newsletter.sending.models import OutboxEmail
from subscribers.models import Topic
from tests.conftest import add_person
from tests.newsletter.web.conftest import PASSWORD, Browser, Office

FIELDS = {"email": "me@example.org", "password": PASSWORD, "again": PASSWORD}


def link(office: Office, *, now: datetime | None = None) -> str:
    with reading(office.parts.database) as session:
        found = first_owner.link(session, office.parts, now=now or datetime.now(UTC))
    assert found is not None
    assert found.startswith("http://127.0.0.1:8000/console/setup/")
    return found.removeprefix("http://127.0.0.1:8000")


def users(office: Office) -> list[tuple[str, str]]:
    table = table_of(User)
    with reading(office.parts.database) as session:
        return [tuple(row) for row in session.execute(select(table.c.email, table.c.role))]


def visit(office: Office, path: str) -> Browser:
    browser = office.browser()
    assert browser.get(path).status_code == 200
    return browser


def test_the_link_makes_an_owner_who_is_signed_in(office: Office) -> None:
    path = link(office)
    browser = visit(office, path)
    before = browser.token
    answer = browser.post(path, name="Me", **FIELDS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    assert browser.token != before
    assert users(office) == [("me@example.org", Role.OWNER)]
    assert "First steps" in browser.get("/console/").text
    outbox, entry = table_of(OutboxEmail), table_of(AuditEntry)
    with reading(office.parts.database) as session:
        mail = session.execute(select(outbox)).one()
        logged = session.execute(select(entry.c.actor, entry.c.action)).all()
    assert mail.email == "me@example.org"
    assert "arrive" in mail.subject
    assert [tuple(row) for row in logged] == [("(first visit)", "user created")]


@pytest.mark.slow
def test_a_second_factor_is_set_up_where_it_is_required(
    open_office: Callable[..., Office],
) -> None:
    office = open_office()
    path = link(office)
    browser = visit(office, path)
    answer = browser.post(path, **FIELDS)
    assert answer.headers["location"] == "/console/account/factor"
    assert "Set up your authenticator app" in browser.get("/console/account/factor").text
    assert browser.get("/console/").status_code == 303


def test_no_link_works_once_there_is_a_user(office: Office) -> None:
    first, second = link(office), link(office, now=datetime.now(UTC) + timedelta(minutes=1))
    browser, other = visit(office, first), visit(office, second)
    assert browser.post(first, **FIELDS).status_code == 303
    for path in (first, second):
        assert office.browser().get(path).status_code == 410
        assert other.post(path, **FIELDS | {"email": "other@example.org"}).status_code == 410
    assert [email for email, _ in users(office)] == ["me@example.org"]
    with reading(office.parts.database) as session:
        assert first_owner.link(session, office.parts, now=datetime.now(UTC)) is None


def test_other_links_make_nobody(office: Office) -> None:
    now = datetime.now(UTC)
    good = link(office)
    purpose = office.parts.links.token(Purpose.VIEW, 0, expires=now + timedelta(hours=1))
    for path in (
        link(office, now=now - timedelta(hours=1, minutes=1)),
        f"/console/setup/{purpose}",
        good[:-1],
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        "/console/setup/x",
    ):
        assert office.browser().get(path).status_code == 410
        browser = visit(office, good)
        assert browser.post(path, **FIELDS).status_code == 410
    assert users(office) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"email": "me"}, "me"),
        ({"again": "another one"}, "differ"),
        ({"password": "short", "again": "short"}, "12 characters"),
    ],
)
def test_a_mistake_is_explained_and_changes_nothing(
    office: Office, wrong: dict[str, str], words: str
) -> None:
    path = link(office)
    answer = visit(office, path).post(path, **FIELDS | wrong)
    assert answer.status_code == 400
    assert words in answer.text
    assert 'role="alert"' in answer.text
    assert users(office) == []
    assert visit(office, path).post(path, **FIELDS).status_code == 303


def test_a_form_of_another_site_is_refused(office: Office) -> None:
    path = link(office)
    browser = visit(office, path)
    answer = browser.post(path, {"origin": "https://evil.example"}, **FIELDS)
    assert answer.status_code == 403
    assert users(office) == []


def test_the_checklist_ticks_itself_off_and_disappears(office: Office) -> None:
    owner, editor = office.signed_in(Role.OWNER), office.signed_in(Role.EDITOR)
    page = owner.get("/console/").text
    for path in re.findall(r'class="strong"><a href="([^"]+)"', page.split("First steps")[1]):
        assert owner.get(path).status_code == 200, path
    assert "0 of 5 done" in page
    assert "emails reach no real inbox" in page
    assert "First steps" not in editor.get("/console/").text
    now = datetime.now(UTC)
    with transaction(office.parts.database) as session:
        add_person(session, "ada@example.org")
        session.add(Topic(name="News", slug="news"))
    assert "2 of 5 done" in owner.get("/console/").text
    with transaction(office.parts.database) as session:
        session.add(
            OutboxEmail(
                kind="account",
                email="me@example.org",
                subject="x",
                html="x",
                text="x",
                state="accepted",
                created_at=now,
                not_before=now,
                outcome="delivered",
            )
        )
    assert "4 of 5 done" in owner.get("/console/").text
    with reading(office.parts.database) as session:
        assert not first_steps(session).issue
