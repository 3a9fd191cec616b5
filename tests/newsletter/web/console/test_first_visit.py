"""The first visit: a link makes the owner and names the sender, once; then a checklist."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from html import escape, unescape

import pytest
from sqlalchemy import select, update

from newsletter.accounts.models import AuditEntry, Role, User
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.links import Purpose
from newsletter.operations import first_owner
from newsletter.operations.first_steps import first_steps
from newsletter.sending.models import OutboxEmail
from newsletter.settings import publication
from newsletter.web.console.base.layout import NAVIGATION
from subscribers.models import Topic
from tests.conftest import add_person
from tests.newsletter.web.conftest import PASSWORD, Browser, Office

FIELDS = {"email": "me@example.org", "password": PASSWORD, "again": PASSWORD}
PUBLICATION = {
    "site_name": "The Paper",
    "site_postal_address": "1 Main Street",
    "sender_name": "Paper desk",
    "sender_email": "desk@paper.org",
}


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
    with reading(office.parts.database) as session:
        assert publication.history(session, limit=9) == []


def test_the_form_sets_the_publication_in_the_database(office: Office) -> None:
    path = link(office)
    shown = office.browser().get(path).text
    assert 'name="site_name" value="My newsletter"' in shown
    assert visit(office, path).post(path, **FIELDS, **PUBLICATION).status_code == 303
    settings = office.parts.settings
    assert settings.site.name == "The Paper"
    assert settings.site.postal_address == "1 Main Street"
    assert (settings.sender.name, settings.sender.email) == ("Paper desk", "desk@paper.org")
    outbox = table_of(OutboxEmail)
    with reading(office.parts.database) as session:
        history = publication.history(session, limit=9)
        mail = session.execute(select(outbox)).one()
    assert {(one.key, one.set_by) for one in history} == {
        (key, "me@example.org") for key in first_owner.KEYS
    }
    # The first email is from the new sender: it waits until every process knows it.
    assert mail.subject == "Emails of The Paper arrive"
    assert "1 Main Street" in mail.text
    assert mail.not_before > datetime.now(UTC) - timedelta(minutes=1)


def test_what_a_file_or_the_environment_sets_is_shown_with_its_origin(
    open_office: Callable[..., Office], environment: dict[str, str]
) -> None:
    environment["NEWSLETTER_SENDER__EMAIL"] = "fixed@example.org"
    office = open_office(require_second_factor="false")
    path = link(office)
    shown = office.browser().get(path).text
    (field,) = re.findall(r'<input[^>]*name="sender_email"[^>]*>', shown)
    assert 'value="fixed@example.org"' in field
    assert " disabled" in field
    assert "Set in <code>NEWSLETTER_SENDER__EMAIL</code>" in shown
    assert visit(office, path).post(path, **FIELDS, **PUBLICATION).status_code == 303
    assert office.parts.settings.sender.email == "fixed@example.org"
    assert office.parts.settings.site.name == "The Paper"
    assert users(office) == [("me@example.org", Role.OWNER)]


def test_the_next_page_says_what_became_of_the_first_email(
    open_office: Callable[..., Office],
) -> None:
    office = open_office()
    path = link(office)
    browser = visit(office, path)
    page = browser.get(browser.post(path, **FIELDS).headers["location"]).text
    assert "We sent an email to me@example.org" in page
    assert "Reload this page" in page
    outbox = table_of(OutboxEmail)
    for values, words in (
        ({"detail": "cannot reach SendGrid: refused"}, "has not accepted it yet"),
        ({"state": "accepted", "detail": ""}, "The sandbox accepted it."),
        ({"outcome": "delivered"}, "The receiving server accepted it."),
        ({"outcome": "bounce", "outcome_reason": "no such user"}, "No such user."),
        ({"state": "rejected", "outcome": "", "detail": "unverified"}, "Unverified."),
    ):
        with transaction(office.parts.database) as session:
            session.execute(update(outbox).values(**values))
        assert words in browser.get("/console/account/factor").text


def test_two_posts_at_once_make_one_owner_and_one_publication(office: Office) -> None:
    path = link(office)
    browsers = [visit(office, path) for _ in range(4)]
    barrier = threading.Barrier(len(browsers))

    def post(number: int) -> int:
        barrier.wait()
        fields = FIELDS | PUBLICATION | {"email": f"me{number}@example.org"}
        fields["site_name"] = f"Paper {number}"
        return browsers[number].post(path, **fields).status_code

    with ThreadPoolExecutor(len(browsers)) as pool:
        statuses = list(pool.map(post, range(len(browsers))))
    assert sorted(statuses) == [303, 410, 410, 410]
    ((email, _),) = users(office)
    winner = statuses.index(303)
    assert email == f"me{winner}@example.org"
    assert office.parts.settings.site.name == f"Paper {winner}"
    outbox = table_of(OutboxEmail)
    with reading(office.parts.database) as session:
        assert session.scalars(select(outbox.c.email)).all() == [email]
        assert len(publication.history(session, limit=9)) == len(PUBLICATION)


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
        ({"email": "me"}, "must have an @-sign"),
        ({"again": "another one"}, "differ"),
        ({"password": "short", "again": "short"}, "12 characters"),
        ({"site_name": " "}, "This must not be empty."),
        ({"sender_email": "desk"}, "an address is written like"),
        ({"site_postal_address": "a\u2028b"}, "line breaks"),
    ],
)
def test_a_mistake_is_explained_and_changes_nothing(
    office: Office, wrong: dict[str, str], words: str
) -> None:
    path = link(office)
    typed = FIELDS | PUBLICATION | wrong
    answer = visit(office, path).post(path, **typed)
    assert answer.status_code == 400
    ((field, mistake),) = re.findall(
        r'<p class="mistake" id="(\S+)-mistake">(.*?)</p>', answer.text
    )
    assert field.replace(".", "_") in wrong
    assert words.casefold() in unescape(mistake).casefold()
    assert f'<a href="#{field}">' in answer.text.split('role="alert"')[1]
    for name, value in typed.items():
        if name not in ("password", "again"):
            assert f'name="{name}"' in answer.text
            assert f'value="{escape(value.strip())}"' in answer.text
    assert PASSWORD not in answer.text
    assert users(office) == []
    with reading(office.parts.database) as session:
        assert publication.history(session, limit=9) == []
    assert visit(office, path).post(path, **FIELDS, **PUBLICATION).status_code == 303


def test_all_mistakes_are_named_at_once(office: Office) -> None:
    path = link(office)
    wrong = {"email": "me", "password": "short", "site_name": "", "sender_email": "desk"}
    answer = visit(office, path).post(path, **FIELDS | PUBLICATION | wrong)
    found = re.findall(r'id="(\S+)-mistake"', answer.text)
    assert found == ["email", "password", "again", "site.name", "sender.email"]


def test_a_setting_that_another_changed_meanwhile_is_shown(office: Office) -> None:
    path = link(office)
    browser = visit(office, path)
    with transaction(office.parts.database) as session:
        publication.add(session, "site.name", "Theirs", by="command line", now=datetime.now(UTC))
    answer = browser.post(path, **FIELDS, **PUBLICATION)
    assert answer.status_code == 400
    assert "command line changed this to “Theirs”" in answer.text
    assert users(office) == []
    (version,) = re.findall(r'name="version" value="(\d+)"', answer.text)
    assert browser.post(path, **FIELDS, **PUBLICATION, version=version).status_code == 303
    assert office.parts.settings.site.name == "The Paper"


def test_the_mark_of_the_sandbox_is_on_every_page_and_only_then(
    open_office: Callable[..., Office], environment: dict[str, str]
) -> None:
    mark = "no email leaves this machine"
    office = open_office(require_second_factor="false")
    setup = link(office)
    assert mark in office.browser().get(setup).text
    owner = office.signed_in(Role.OWNER)
    pages = [one.path for one in NAVIGATION if one.path in office.app.state.console_paths]
    pages += ["/console/account", "/console/messages", "/console/segments/0"]
    for path in pages:
        assert mark in owner.get(path).text, path
    for path in ("/console/sign-in", "/console/forgot", setup):
        assert mark in office.browser().get(path).text, path
    environment["NEWSLETTER_SENDGRID__HOST"] = "https://api.sendgrid.com"
    real = open_office(require_second_factor="false")
    owner = real.signed_in(Role.OWNER, email="second@example.org")
    for path in pages:
        assert mark not in owner.get(path).text, path
    assert mark not in real.browser().get("/console/sign-in").text


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
