"""Who may be emailed again leaves the provider's lists; late events of before suppress nobody."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from starlette.testclient import TestClient

from newsletter.accounts import audit
from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import NothingToDoError, ProviderError, UserError
from newsletter.provider.account import Account, SuppressionListing
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.sending.models import OutboxEmail
from newsletter.settings.load import load
from newsletter.tracking import list_removal
from newsletter.tracking.list_removal import ListRemover, lift_bounces
from newsletter.tracking.models import ListRemoval
from newsletter.tracking.people import history as subscriber_history
from newsletter.tracking.suppression_sync import Reconciler
from newsletter.web.app import create_app
from subscribers.consent import suppression
from subscribers.models import Subscriber, SuppressionReason
from tests.conftest import NOW
from tests.forking import command
from tests.newsletter.sending.conftest import five
from tests.newsletter.tracking.events.test_ingest import (
    DAY,
    MINUTE,
    THEN,
    entry,
    hash_of,
    sent,
    suppressed,
    take,
)
from tests.newsletter.web.public.test_confirm import ask

pytestmark = pytest.mark.both_databases

__all__ = ["five", "sent"]

ADA = Actor(7, "ada@example.org")
LISTS = [
    SuppressionListing.BOUNCES,
    SuppressionListing.INVALID,
    SuppressionListing.SPAM_REPORTS,
    SuppressionListing.UNSUBSCRIBES,
]


@pytest.fixture(scope="module")
def _running() -> Iterator[RunningSandbox]:
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}))) as running:
        yield running


@pytest.fixture
def sandbox(_running: RunningSandbox) -> RunningSandbox:
    _running.store.reset()
    return _running


@pytest.fixture
def parts(environment: dict[str, str], sandbox: RunningSandbox) -> Iterator[Container]:
    parts = Container(load({**environment, "NEWSLETTER_SENDGRID__HOST": sandbox.url}))
    yield parts
    parts.database.dispose()


@pytest.fixture
def reconciler(parts: Container) -> Reconciler:
    return parts.reconciler


def remove(parts: Container, now: datetime = NOW + DAY) -> int:
    remover = ListRemover(parts.database, parts.gateway.ask)
    return remover.run(now=now, wait=lambda _: False)


def listed(sandbox: RunningSandbox, kind: str, email: str, at: datetime = NOW) -> None:
    sandbox.store.suppress(kind, email, "550 refused", at.timestamp())


def stands(sandbox: RunningSandbox, email: str) -> set[str]:
    return {
        kind
        for kind in LISTS
        for row in sandbox.store.suppressions(
            kind, email=email, begin=0, end=2**40, limit=-1, offset=0
        )
        if row[0] == email
    }


def lift(database: Engine, **options: Any) -> int:
    with transaction(database) as session:
        return lift_bounces(session, **{"by": ADA, "why": "she called", "now": NOW, **options})


def log(database: Engine) -> list[Any]:
    with reading(database) as session:
        entries = audit.entries(session)
    actions = ("suppression lifted", "suppressions lifted")
    return [(e.actor, e.action, e.subject, e.detail) for e in entries if e.action in actions]


# -- by an operator ---------------------------------------------------------------------------


@pytest.mark.slow
def test_an_operator_lifts_a_bounce_and_the_address_leaves_the_bounce_lists(
    parts: Container, sandbox: RunningSandbox, sent: int, five: list[int]
) -> None:
    take(parts.database, entry(sent, five[0], "bounce", reason="550 5.1.1 no such user"))
    for kind in LISTS:
        listed(sandbox, kind, "p1@example.org")
        listed(sandbox, kind, "p1@example.org.example")
    assert lift(parts.database, address_hash=hash_of("p1@example.org")) == 1
    assert suppressed(parts.database) == {}
    assert remove(parts) == 1
    assert remove(parts) == 0
    # A bounce says nothing of complaints and unsubscribes, and nothing of other addresses.
    assert stands(sandbox, "p1@example.org") == {
        SuppressionListing.SPAM_REPORTS,
        SuppressionListing.UNSUBSCRIBES,
    }
    assert stands(sandbox, "p1@example.org.example") == set(LISTS)
    with reading(parts.database) as session:
        row = session.scalars(select(ListRemoval)).one()
    assert (row.email, row.done_at) == ("", NOW + DAY)
    assert log(parts.database) == [
        (
            "ada@example.org",
            "suppression lifted",
            f"subscriber {five[0]}",
            {"reason": "she called", "subscribers": 1},
        )
    ]


@pytest.mark.slow
def test_all_bounces_between_two_times_with_a_text_are_lifted_and_no_others(
    database: Engine, sent: int, five: list[int]
) -> None:
    said = "550-5.1.1 The email account does not exist. GSMTP"
    for number, (minute, reason) in enumerate([(0, said), (30, said), (61, said), (5, "5.1.1 no")]):
        take(database, entry(sent, five[number], "bounce", at=THEN + 60 * minute, reason=reason))
    take(database, entry(sent, five[4], "spamreport", at=THEN + 60))
    with pytest.raises(NothingToDoError):
        lift(database, since=NOW - DAY, until=NOW - MINUTE)
    between = {"since": NOW, "until": NOW + 60 * MINUTE}
    assert lift(database, **between, text="gsmtp", now=NOW + DAY) == 2
    assert suppressed(database) == {
        "p3@example.org": "bounced",
        "p4@example.org": "bounced",
        "p5@example.org": "complained",
    }
    with pytest.raises(NothingToDoError):
        lift(database, **between, text="%")
    _, action, subject, detail = log(database)[0]
    assert (action, subject, detail["subscribers"]) == ("suppressions lifted", "", 2)
    assert detail["text"] == "gsmtp"


@pytest.mark.parametrize(
    "options",
    [
        {"why": " \n", "since": NOW},
        {},
        {"since": NOW, "until": NOW - MINUTE},
    ],
)
def test_a_lift_without_a_reason_or_a_choice_is_refused(
    database: Engine, options: dict[str, Any]
) -> None:
    with pytest.raises(UserError):
        lift(database, **options)
    assert log(database) == []


@pytest.mark.parametrize("kind", ["unsubscribe", "spamreport"])
def test_what_a_person_said_is_not_lifted(
    database: Engine, sent: int, five: list[int], kind: str
) -> None:
    take(database, entry(sent, five[0], kind))
    with pytest.raises(NothingToDoError):
        lift(database, address_hash=hash_of("p1@example.org"))
    assert len(suppressed(database)) == 1


def test_late_words_of_a_lifted_bounce_suppress_nobody_and_later_bounces_do(
    parts: Container, sandbox: RunningSandbox, sent: int, five: list[int]
) -> None:
    database = parts.database
    take(database, entry(sent, five[0], "bounce", reason="550 5.1.1 no such user"))
    lift(database, address_hash=hash_of("p1@example.org"), now=NOW + DAY)
    drop = {"event": "dropped", "reason": "Bounced Address"}
    # Told late, or for what still stands on the provider's list.
    take(database, entry(sent, five[0], "bounce", at=THEN + 60, reason="550 5.1.1 no such"))
    take(database, entry(sent, five[0], **drop, at=THEN + 90_000))
    assert suppressed(database) == {}
    remove(parts, NOW + 2 * DAY)
    take(database, entry(sent, five[0], **drop, at=THEN + 3 * 86_400))
    assert suppressed(database) == {"p1@example.org": "bounced"}


def test_comparing_the_lists_does_not_take_a_lifted_bounce_over(
    parts: Container, reconciler: Reconciler, sandbox: RunningSandbox, sent: int, five: list[int]
) -> None:
    take(parts.database, entry(sent, five[0], "bounce", reason="550 5.1.1 no such user"))
    listed(sandbox, "bounces", "p1@example.org")
    lift(parts.database, address_hash=hash_of("p1@example.org"))
    report = reconciler.run(now=NOW + MINUTE, wait=lambda _: False)
    found = report.lists[SuppressionListing.BOUNCES]
    assert (found.new_here, found.removed_there) == (0, 1)
    assert suppressed(parts.database) == {}
    assert stands(sandbox, "p1@example.org") == set()


def test_who_is_suppressed_again_by_then_stays_on_the_lists(
    parts: Container, sandbox: RunningSandbox, sent: int, five: list[int]
) -> None:
    take(parts.database, entry(sent, five[0], "bounce", reason="550 5.1.1 no such user"))
    listed(sandbox, "bounces", "p1@example.org")
    lift(parts.database, address_hash=hash_of("p1@example.org"))
    with transaction(parts.database) as session:
        suppression.add(session, [five[0]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="t")
    remove(parts)
    assert stands(sandbox, "p1@example.org") == {SuppressionListing.BOUNCES}


def test_what_the_provider_refuses_is_tried_again_later(
    parts: Container, sandbox: RunningSandbox, sent: int, five: list[int]
) -> None:
    take(parts.database, entry(sent, five[0], "bounce", reason="550 5.1.1 no such user"))
    lift(parts.database, address_hash=hash_of("p1@example.org"))
    listed(sandbox, "bounces", "p1@example.org")

    def down(*_: Any, **__: Any) -> Any:
        raise ProviderError("access forbidden")

    remover = ListRemover(parts.database, down)
    with pytest.raises(ProviderError):
        remover.run(now=NOW, wait=lambda _: False)
    assert remover.run(now=NOW + timedelta(seconds=59), wait=lambda _: False) == 0
    assert remove(parts, NOW + MINUTE) == 1
    assert stands(sandbox, "p1@example.org") == set()


def test_a_list_takes_many_addresses_and_all_only_when_that_is_said(
    parts: Container, sandbox: RunningSandbox
) -> None:
    for number in range(3):
        listed(sandbox, "bounces", f"p{number}@example.org")
    account = Account(parts.gateway.ask)
    account.remove_all(SuppressionListing.BOUNCES, ["P0@example.org", "nobody@example.org"])
    assert stands(sandbox, "p0@example.org") == set()
    assert stands(sandbox, "p1@example.org") == {SuppressionListing.BOUNCES}
    account.remove_all(SuppressionListing.BOUNCES, [])
    assert stands(sandbox, "p1@example.org") == {SuppressionListing.BOUNCES}


# -- after a soft bounce ----------------------------------------------------------------------


@pytest.mark.parametrize("status", ["4.2.2", "5.2.2", "5.7.1", "5.4.1"])
def test_after_a_bounce_that_says_nothing_of_the_mailbox_the_next_issue_is_tried(
    parts: Container, sandbox: RunningSandbox, sent: int, five: list[int], status: str
) -> None:
    listed(sandbox, "bounces", "p1@example.org")
    take(parts.database, entry(sent, five[0], "bounce", status=status, reason="no"))
    # The next issue left before the address was off the list.
    take(parts.database, entry(sent, five[0], "dropped", at=THEN + 9, reason="Bounced Address"))
    assert suppressed(parts.database) == {}
    assert remove(parts) == 1
    assert stands(sandbox, "p1@example.org") == set()


@pytest.mark.slow
def test_so_many_soft_bounces_that_the_address_is_suppressed_leave_it_on_the_list(
    parts: Container, sandbox: RunningSandbox, sent: int, five: list[int]
) -> None:
    listed(sandbox, "bounces", "p1@example.org")
    for day in range(5):
        at = THEN + 86_400 * day
        take(parts.database, entry(sent, five[0], "bounce", at=at, status="5.2.2"))
    assert suppressed(parts.database) == {"p1@example.org": "bounced"}
    remove(parts)
    assert stands(sandbox, "p1@example.org") == {SuppressionListing.BOUNCES}


# -- by their own wish ------------------------------------------------------------------------


@pytest.fixture
def client(parts: Container) -> Iterator[TestClient]:
    app = create_app(parts, background=False)
    with TestClient(app, follow_redirects=False, client=("192.0.2.9", 50000)) as client:
        yield client


@pytest.mark.parametrize("reason", ["bounced", "complained", "unsubscribed"])
def test_who_confirms_that_they_come_back_leaves_all_lists(
    client: TestClient, parts: Container, sandbox: RunningSandbox, reason: str
) -> None:
    past = datetime.now(UTC) - 30 * DAY
    with transaction(parts.database) as session:
        hashed = [parts.hash_of("ada@example.org") or b""]
        suppression.add_addresses(
            session, hashed, SuppressionReason(reason), at=past, evidence="test"
        )
    for kind in LISTS:
        listed(sandbox, kind, "ada@example.org", past)
    path = ask(client)
    assert remove(parts, datetime.now(UTC)) == 0, "asking is not confirming"
    assert stands(sandbox, "ada@example.org") == set(LISTS)
    assert client.post(path).status_code == 200
    assert remove(parts, datetime.now(UTC)) == 1
    assert stands(sandbox, "ada@example.org") == set()


def test_a_newcomer_asks_nothing_of_the_provider(client: TestClient, parts: Container) -> None:
    assert client.post(ask(client)).status_code == 200
    with reading(parts.database) as session:
        assert session.scalars(select(ListRemoval)).all() == []


def test_what_came_onto_a_list_after_they_came_back_stays(
    client: TestClient, parts: Container, sandbox: RunningSandbox
) -> None:
    with transaction(parts.database) as session:
        hashed = [parts.hash_of("ada@example.org") or b""]
        suppression.add_addresses(
            session, hashed, SuppressionReason.BOUNCED, at=NOW, evidence="test"
        )
    assert client.post(ask(client)).status_code == 200
    listed(sandbox, "spam_reports", "ada@example.org", datetime.now(UTC) + 5 * MINUTE)
    remove(parts, datetime.now(UTC))
    assert stands(sandbox, "ada@example.org") == {SuppressionListing.SPAM_REPORTS}


@pytest.mark.parametrize("reason", ["bounced", "complained"])
def test_who_bounced_or_complained_gets_one_confirmation_email_a_day(
    client: TestClient, parts: Container, reason: str
) -> None:
    with transaction(parts.database) as session:
        hashed = [parts.hash_of("ada@example.org") or b""]
        suppression.add_addresses(
            session, hashed, SuppressionReason(reason), at=NOW, evidence="test"
        )
    for _ in range(3):
        assert client.post("/subscribe", data={"email": "ada@example.org"}).status_code == 200
    with reading(parts.database) as session:
        assert len(session.scalars(select(OutboxEmail)).all()) == 1


# -- single emails ----------------------------------------------------------------------------


def test_the_history_says_what_became_of_a_single_email(
    client: TestClient, parts: Container, cast: dict[str, int]
) -> None:
    client.post("/subscribe", data={"email": "alice@example.org"})
    with reading(parts.database) as session:
        number = session.scalars(select(OutboxEmail)).one().id
    mine = {"email": "Alice@example.org", "nl_notice": str(number), "timestamp": THEN}
    take(parts.database, {**mine, "event": "processed"})
    take(parts.database, {**mine, "event": "delivered", "email": "bob@example.org"})
    take(parts.database, {**mine, "event": "dropped", "reason": "Bounced Address"})
    take(parts.database, {**mine, "event": "delivered", "timestamp": THEN + 1})
    with reading(parts.database) as session:
        alice = session.get(Subscriber, cast["alice"])
        assert alice is not None
        entries, _ = subscriber_history.of_subscriber(session, alice)
    (mail,) = (one for one in entries if one.sort == "mail")
    assert mail.what == "dropped"
    assert mail.detail.endswith("Bounced Address")


# -- by command -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_lifts_lists_and_says_what_is_missing(
    environment: dict[str, str], database: Engine, sent: int, five: list[int], tmp_path: Path
) -> None:
    take(database, entry(sent, five[0], "bounce", reason="550 5.1.1 no such user"))
    take(database, entry(sent, five[1], "bounce", reason="550 5.1.1 gsmtp"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        words = ("suppressions", "lift", *words)
        return command(words, environment=environment, folder=tmp_path)

    both = run("p1@example.org", "--since", "2026-03-27")
    assert (both.returncode, "Traceback" in both.stderr) == (2, False)
    wrong = run("--since", "yesterday", "--reason", "x")
    assert wrong.returncode == 2
    assert "--since" in wrong.stderr
    silent = run("p1@example.org")
    assert (silent.returncode, "reason" in silent.stderr) == (2, True)
    dry = run("--since", "2026-03-27T00:00", "--dry-run", "--json")
    assert dry.stdout.count("@example.org") == 2
    assert len(suppressed(database)) == 2
    done = run("p1@example.org", "--reason", "she called")
    assert done.returncode == 0, done.stderr
    assert suppressed(database) == {"p2@example.org": "bounced"}
    again = run("p1@example.org", "--reason", "she called")
    assert again.returncode == 3
    assert [row[1] for row in log(database)] == ["suppression lifted"]


def test_removals_that_no_event_can_be_about_are_forgotten(
    parts: Container, sent: int, five: list[int]
) -> None:
    take(parts.database, entry(sent, five[0], "bounce", status="5.2.2"))
    remove(parts)
    for now, left in ((NOW + 40 * DAY, 1), (NOW + 42 * DAY, 0)):
        with transaction(parts.database) as session:
            list_removal.delete_old(session, now=now)
            assert len(session.scalars(select(table_of(ListRemoval))).all()) == left
