"""The bell counts what is new to a user; the list of messages marks it, and reading ends it."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from newsletter.accounts import operator_messages
from newsletter.accounts.models import Role
from newsletter.accounts.operator_messages import MessageKind, Occasion
from newsletter.db.engine import transaction
from newsletter.db.orm import table_of
from newsletter.scheduling.message_texts import LABELS
from newsletter.sending.models import Batch
from tests.newsletter.sending.conftest import make_send
from tests.newsletter.tracking.test_circuit_breaker import people, report, under_way
from tests.newsletter.web.conftest import Browser, Office

PAGE, READ = "/console/messages", "/console/messages/read"


def post(office: Office, *occasions: Occasion) -> None:
    with transaction(office.parts.database) as session:
        operator_messages.post_all(session, occasions, now=datetime.now(UTC))


def silences(count: int, begin: int = 0) -> list[Occasion]:
    return [
        Occasion(MessageKind.EVENTS_SILENT, "", number) for number in range(begin, begin + count)
    ]


def new(browser: Browser) -> str:
    """What the bell says is new."""
    found = re.search(r'aria-label="Messages(?:, (.+?) new)?"', browser.get("/console/").text)
    assert found
    return found[1] or ""


@pytest.mark.parametrize("role", Role)
def test_new_messages_are_counted_until_they_are_read(office: Office, role: Role) -> None:
    post(office, *silences(2))
    browser, other = office.signed_in(role), office.signed_in(Role.OWNER, "other@example.org")
    assert new(browser) == ""
    post(office, *silences(3, begin=2))
    assert new(browser) == new(other) == "3"
    # A GET reads nothing.
    assert browser.get(PAGE).text.count(">New<") == 3
    assert new(browser) == "3"
    answer = browser.post(READ)
    assert answer.status_code == 303
    assert browser.get(answer.headers["location"]).text.count(">New<") == 3
    assert (new(browser), new(other)) == ("", "3")
    assert ">New<" not in browser.get(PAGE).text


@pytest.mark.both_databases
def test_many_are_counted_to_a_limit(office: Office) -> None:
    browser = office.signed_in(Role.VIEWER)
    post(office, *silences(99))
    assert new(browser) == "99"
    post(office, *silences(150, begin=99))
    assert new(browser) == "99+"
    text = browser.get(PAGE).text
    assert text.count(">The provider reports no events</a>") == 50


def test_the_list_says_what_happened_and_where_to_see_more(office: Office) -> None:
    browser = office.signed_in(Role.VIEWER)
    assert "No messages yet." in browser.get(PAGE).text
    people(office.parts.database, 1)
    send = make_send(office.parts.database)
    post(
        office,
        Occasion(MessageKind.SEND_PAUSED, send, detail="too late <b>"),
        Occasion(MessageKind.SEND_FINISHED, 77),
        Occasion(MessageKind.REVIEW_ASKED, "gone/1"),
        Occasion(MessageKind.SCHEDULE_FAILED, 5),
        Occasion(MessageKind.LOG_WAITS, "log-1"),
        Occasion(MessageKind.SUPPRESSIONS_DIFFERED, 3),
    )
    text = browser.get(PAGE).text
    assert f'href="/console/sends/{send}">Paused: Hello reader</a>' in text
    assert "Too late &lt;b&gt;" in text
    assert "First figures: send 77" in text
    assert 'href="/console/issues/gone%2F1"' in text
    assert "Nothing was sent: schedule 5" in text
    assert "a departure log was not compared" in text
    assert "differed from the provider" in text


def test_every_kind_has_a_label() -> None:
    assert set(LABELS) == set(MessageKind)


@pytest.mark.parametrize("after", ["x", "-1", "9" * 18, "0"])
def test_a_strange_number_is_no_error(office: Office, after: str) -> None:
    assert office.signed_in(Role.VIEWER).get(f"{PAGE}?after={after}").status_code == 200


def test_the_overview_shows_a_silence_while_it_lasts(office: Office) -> None:
    database, browser = office.parts.database, office.signed_in(Role.VIEWER)
    people(database, 2)
    send = under_way(database, batch_size=1)
    ago = datetime.now(UTC) - timedelta(hours=7)
    with transaction(database) as session:
        session.execute(update(table_of(Batch)).values(departed_at=ago))
    assert "1 emails left, and no event has come" not in browser.get("/console/").text
    assert "1 email left, and no event has come" in browser.get("/console/").text
    report(database, send, "delivered", [1], timestamp=int(datetime.now(UTC).timestamp()))
    assert "no event has come" not in browser.get("/console/").text
