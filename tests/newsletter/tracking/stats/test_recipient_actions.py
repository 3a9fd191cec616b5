"""Lists of who opened, clicked, did not open or bounced: as long as the figures, page by page."""

import csv
import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from sqlalchemy import Engine, update

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import SendError
from newsletter.sending.models import Send
from newsletter.sending.queries import send_status
from newsletter.tracking.people import privacy
from newsletter.tracking.retention.prune import RetentionPolicy, prune
from newsletter.tracking.stats import counters, csv_tables, recipient_actions
from newsletter.tracking.stats.recipient_actions import ActiveRecipient, RecipientAction
from subscribers.models import Subscriber
from tests.conftest import NOW
from tests.newsletter.cli.test_commands import Run, run
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import entry, sent, take
from tests.newsletter.tracking.stats.test_counters import A, B, C, told

pytestmark = pytest.mark.both_databases

__all__ = ["five", "run", "sent", "told"]

OPENED, CLICKED = RecipientAction.OPENED, RecipientAction.CLICKED
NOT_OPENED, BOUNCED = RecipientAction.NOT_OPENED, RecipientAction.BOUNCED
_send = table_of(Send)


def listed(
    database: Engine, send_id: int, action: RecipientAction, link: str = ""
) -> list[ActiveRecipient]:
    """The list, read in pages of one, which must be the same as at once."""
    with reading(database) as session:
        send = send_status.find(session, send_id)
        assert recipient_actions.unavailable(session, send, action) is None
        people: list[ActiveRecipient] = []
        while some := recipient_actions.page(
            session, send, action, link=link, after=people[-1].id if people else 0, limit=1
        ):
            people += some
        session.expunge(send)
    assert people == list(recipient_actions.everyone(database, send, action, link=link))
    return people


def ids(*found: ActiveRecipient) -> list[int]:
    return [one.id for one in found]


def test_the_lists_are_those_whom_the_figures_count(
    database: Engine, told: int, five: list[int]
) -> None:
    one, two, three, four, last = five
    with reading(database) as session:
        figures = counters.of_send(session, told)
    (opener,) = listed(database, told, OPENED)
    assert opener == ActiveRecipient(one, "p1@example.org", "delivered", None, 2, {})
    assert figures["opened"] == 1
    clickers = listed(database, told, CLICKED)
    assert [(who.id, who.times, who.links) for who in clickers] == [
        (one, 3, {A: 2, B: 1}),
        (three, 1, {A: 1}),
    ]
    assert figures["clicked"] == len(clickers)
    assert ids(*listed(database, told, CLICKED, A)) == [one, three]
    assert ids(*listed(database, told, CLICKED, B)) == [one]
    # Only a scanner followed it.
    assert listed(database, told, CLICKED, C) == []
    assert ids(*listed(database, told, NOT_OPENED)) == [two, three, four]
    (bounced,) = listed(database, told, BOUNCED)
    assert (bounced.id, bounced.state, bounced.reason) == (last, "bounced", "550 no")


def test_an_address_at_two_domains_is_listed_once(
    database: Engine, told: int, five: list[int]
) -> None:
    take(database, entry(told, five[0], "open", at=1774594999, email="p1@other.example"))
    (opener,) = listed(database, told, OPENED)
    assert (opener.id, opener.times) == (five[0], 3)


def test_erased_subscribers_stay_in_the_list_without_address(
    database: Engine, told: int, five: list[int]
) -> None:
    with transaction(database) as session:
        privacy.erase(session, five[0], now=NOW)
    (opener,) = listed(database, told, OPENED)
    assert (opener.id, opener.email) == (five[0], None)


@pytest.mark.parametrize(
    ("column", "actions", "words"),
    [
        ("track_opens", (OPENED, NOT_OPENED), "opens were not measured"),
        ("track_clicks", (CLICKED,), "clicks were not measured"),
    ],
)
def test_what_was_not_measured_has_no_list(
    database: Engine, told: int, column: str, actions: tuple[RecipientAction, ...], words: str
) -> None:
    with transaction(database) as session:
        session.execute(update(_send).values(**{column: False}))
        send = send_status.find(session, told)
        for action in RecipientAction:
            why_not = recipient_actions.unavailable(session, send, action)
            assert (why_not is not None) == (action in actions)
            assert why_not is None or words in why_not.message


def test_deleted_lists_are_not_empty_lists(database: Engine, told: int) -> None:
    later = datetime(2026, 9, 30, tzinfo=UTC)
    prune(database, RetentionPolicy(events=timedelta(days=90)), now=later)
    with reading(database) as session:
        send = send_status.find(session, told)
        for action in RecipientAction:
            why_not = recipient_actions.unavailable(session, send, action)
            assert why_not is not None
            assert "deleted" in why_not.message


def test_a_mistyped_link_is_an_error(database: Engine, told: int) -> None:
    with reading(database) as session:
        send = send_status.find(session, told)
        recipient_actions.require_link(session, send, A)
        with pytest.raises(SendError, match="nobody clicked this link"):
            recipient_actions.require_link(session, send, f"{A}x")


@pytest.mark.slow
def test_the_command_lists_them_as_table_json_and_csv(
    run: Run, database: Engine, database_url: str, told: int, five: list[int]
) -> None:
    def recipients(*words: str) -> tuple[int, str, str]:
        done = run("stats", "recipients", str(told), *words, NEWSLETTER_DATABASE_URL=database_url)
        return done.returncode, done.stdout, done.stderr

    with transaction(database) as session:
        address = {"email": "=cmd@example.org"}
        session.execute(update(table_of(Subscriber)).where(_is(five[0])).values(**address))
    code, text, _ = recipients("--clicked")
    assert code == 0
    assert text.splitlines()[0].split("\t") == ["subscriber", "email", "status", "times", "links"]
    assert f"{A} {B}" in text
    assert [
        json.loads(line)["subscriber"]
        for line in recipients("--not-opened", "--json")[1].splitlines()
    ]
    _, text, _ = recipients("--link", B, "--csv")
    (row,) = csv.DictReader(StringIO(text))
    assert row["email"] == "'=cmd@example.org"
    assert row["times"] == "1"
    assert "Reason" not in text
    code, text, problem = recipients("--link", f"{B}x")
    assert (code, text) == (2, "")
    assert "nobody clicked this link" in problem
    for words in ((), ("--opened", "--bounced"), ("--opened", "--csv", "--json")):
        code, text, problem = recipients(*words)
        assert (code, text) == (2, "")
        assert "choose one list" in problem
    with transaction(database) as session:
        session.execute(update(_send).values(track_opens=False))
    code, text, problem = recipients("--not-opened", "--csv")
    assert (code, text) == (2, "")
    assert "opens were not measured" in problem


def _is(number: int) -> object:
    return table_of(Subscriber).c.id == number


def test_csv_comes_in_pieces_and_runs_no_formula() -> None:
    def people() -> object:
        for n in range(2_000):
            yield ActiveRecipient(n, f"+{n}@example.org", None, "@bad\nline", 1, {"=x": 1, "y": 1})

    pieces = list(csv_tables.recipients(people()))  # type: ignore[arg-type]
    assert len(pieces) > 2
    assert max(map(len, pieces)) < 20_000
    read = list(csv.DictReader(StringIO("".join(pieces), newline="")))
    assert len(read) == 2_000
    assert read[7] == {
        "subscriber": "7",
        "email": "'+7@example.org",
        "status": "",
        "reason": "'@bad\nline",
        "times": "1",
        "links": "'=x y",
    }
