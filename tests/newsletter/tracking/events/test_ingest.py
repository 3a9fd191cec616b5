"""Events: each counted once, each decided by the table, in any order."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from newsletter.container import Container
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import AddressError
from newsletter.provider.events import Event, EventKind, made_mark, parse
from newsletter.sending.queries import send_status
from newsletter.tracking.events.ingest import IngestReport, ingest
from newsletter.tracking.events.unsubscribe import unsubscribe
from newsletter.tracking.models import EventRow, Reconciliation
from newsletter.tracking.people import privacy
from newsletter.tracking.stats import counters
from newsletter.tracking.stats import verify as verify_counters
from subscribers.consent.records import Act, record
from subscribers.email_address import address_key, hash_address
from subscribers.email_address import parse as parse_address
from subscribers.models import Subscriber, Suppression
from subscribers.self_service import confirmed_requests, preferences
from subscribers.signup import double_opt_in
from subscribers.signup.form import Signup
from subscribers.transfer.import_run import import_people
from tests.conftest import ADDRESS_KEY, NOW
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    five,
    make_plan,
    make_send,
    states,
)

pytestmark = pytest.mark.both_databases

__all__ = ["five"]

#: As the mails of make_send carry it.
MADE = str(made_mark(NOW))


def hash_of(text: str) -> bytes | None:
    try:
        return hash_address(address_key(ADDRESS_KEY), parse_address(text))
    except AddressError:
        return None


def take(database: Engine, *entries: dict[str, Any]) -> IngestReport:
    events = [e for e in parse(json.dumps(entries).encode()) if isinstance(e, Event)]
    with transaction(database) as session:
        return ingest(session, events, now=NOW, hash_of=hash_of)


def suppressed(database: Engine) -> dict[str, str]:
    """Address → reason."""
    people, barred = table_of(Subscriber), table_of(Suppression)
    with reading(database) as session:
        rows = session.execute(
            select(people.c.email, barred.c.reason).join(
                barred, barred.c.address_hash == people.c.address_hash
            )
        )
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def sent(database: Engine, five: list[int]) -> int:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    dispatcher(database, FakeGateway()).send_next()
    return send


def entry(send: int, person: int, event: str, at: int = 1774594800, **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "timestamp": at,
        "email": f"p{person}@example.org",
        "sg_message_id": f"m.{person}",
        "nl_issue": "1",
        "nl_send": str(send),
        "nl_batch": "1",
        "nl_subscriber": str(person),
        "nl_made": MADE,
        **more,
    }


@pytest.mark.parametrize(
    ("fields", "state", "reason"),
    [
        ({"event": "processed"}, "accepted", None),
        ({"event": "deferred", "response": "451 later"}, "accepted", None),
        ({"event": "delivered"}, "delivered", None),
        ({"event": "bounce", "reason": "550 no such user"}, "bounced", "bounced"),
        ({"event": "bounce", "type": "blocked", "reason": "421 reputation"}, "bounced", None),
        ({"event": "dropped", "reason": "Bounced Address"}, "dropped", "bounced"),
        ({"event": "dropped", "reason": "Unsubscribed Address"}, "dropped", "unsubscribed"),
        ({"event": "dropped", "reason": "Spam Reporting Address"}, "dropped", "complained"),
        ({"event": "dropped", "reason": "Invalid"}, "dropped", "bounced"),
        ({"event": "dropped", "reason": "Invalid SMTPAPI header"}, "dropped", None),
        ({"event": "dropped", "reason": "Recipient List over Package Quota"}, "dropped", None),
        ({"event": "spamreport"}, "complained", "complained"),
        ({"event": "unsubscribe"}, "accepted", "unsubscribed"),
        ({"event": "group_unsubscribe", "asm_group_id": 7}, "accepted", "unsubscribed"),
        ({"event": "group_resubscribe", "asm_group_id": 7}, "accepted", None),
        ({"event": "open"}, "accepted", None),
        ({"event": "something_new"}, "accepted", None),
    ],
)
def test_each_event_has_its_effect(
    database: Engine, sent: int, five: list[int], fields: dict[str, str], state: str, reason: str
) -> None:
    take(database, entry(sent, five[0], **fields))
    assert states(database, sent)[five[0]][0] == state
    assert suppressed(database) == ({"p1@example.org": reason} if reason else {})
    assert {s for p, (s, _) in states(database, sent).items() if p != five[0]} == {"accepted"}


def test_an_event_that_comes_again_changes_nothing(
    database: Engine, sent: int, five: list[int]
) -> None:
    first = entry(sent, five[0], "open", sg_event_id="a")
    again = {**first, "sg_event_id": "b"}
    assert take(database, first, first).new == 1
    done = take(database, again)
    assert (done.new, done.repeated) == (0, 1)
    with reading(database) as session:
        assert counters.of_send(session, sent) == {"open": 1, "opened": 1}


def test_an_event_proves_the_whole_batch(database: Engine, five: list[int]) -> None:
    from newsletter.provider.gateway import Unknown

    send = make_send(database)
    make_plan(database, send, batch_size=5)
    dispatcher(database, FakeGateway(Unknown("lost"))).send_next()
    assert batches(database, send)[0].state == "uncertain"
    take(database, entry(send, five[2], "delivered"))
    assert batches(database, send)[0].state == "accepted"
    found = states(database, send)
    assert found[five[2]] == ("delivered", None)
    assert {found[p][0] for p in five if p != five[2]} == {"accepted"}
    with reading(database) as session:
        assert send_status.find(session, send).state == "sent"


@pytest.fixture
def waiting(database: Engine, five: list[int]) -> int:
    """A send none of which has left."""
    send = make_send(database)
    make_plan(database, send, batch_size=3)
    return send


FOREIGN = [
    # Another installation counts from one, too; or the send of this number was lost.
    {"nl_made": str(made_mark(NOW) + 1)},
    {"nl_made": str(made_mark(NOW) + 1), "email": "stranger@example.net"},
    {"nl_issue": "77"},
    {"nl_made": None, "email": "stranger@example.net"},
    {"nl_made": None, "nl_issue": "77"},
    {"nl_made": None, "nl_subscriber": "99"},
    {"nl_made": None, "nl_subscriber": "99", "email": "stranger@example.net"},
    {"nl_made": None, "nl_subscriber": None},
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_mail_of_another_installation_proves_nothing(
    database: Engine, waiting: int, foreign: dict[str, str]
) -> None:
    take(database, entry(waiting, 1, "open", **foreign))
    assert [batch.state for batch in batches(database, waiting)] == ["pending"] * 2
    assert len(drain(database, FakeGateway()).mailed) == 5


@pytest.mark.slow
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_mail_of_another_installation_is_not_in_our_figures(
    database: Engine, sent: int, foreign: dict[str, str]
) -> None:
    take(database, entry(sent, 1, "delivered", **foreign), entry(sent, 1, "open", **foreign))
    assert states(database, sent)[1][0] == "accepted"
    with reading(database) as session:
        assert counters.of_send(session, sent) == {}
        assert [*verify_counters.differences(session, sent)] == []


@pytest.mark.parametrize("made", [None, str(made_mark(NOW) + 1)])
def test_whoever_leaves_another_installation_leaves_us_by_address_and_not_by_number(
    database: Engine, sent: int, five: list[int], made: str | None
) -> None:
    stranger = {"email": "stranger@example.net", "nl_made": made}
    take(database, entry(sent, five[0], "spamreport", **stranger))
    assert suppressed(database) == {}
    take(database, entry(sent, five[0], "spamreport", email="p2@example.org", nl_made=made))
    assert suppressed(database) == {"p2@example.org": "complained"}


def test_who_stands_in_another_batch_proves_nothing(database: Engine, waiting: int) -> None:
    """A plan that was lost and made anew may put other people under the same number."""
    take(database, entry(waiting, 1, "delivered", nl_batch="2"))
    assert [batch.state for batch in batches(database, waiting)] == ["pending"] * 2


def test_a_mail_from_before_sends_were_marked_proves_its_batch_by_its_address(
    database: Engine, waiting: int, five: list[int]
) -> None:
    take(database, entry(waiting, five[0], "open", nl_made=None))
    assert [batch.state for batch in batches(database, waiting)] == ["accepted", "pending"]
    with transaction(database) as session:
        privacy.erase(session, five[4], now=NOW)
    take(database, entry(waiting, five[4], "open", nl_batch="2", nl_made=None))
    assert [batch.state for batch in batches(database, waiting)] == ["accepted", "accepted"]
    with reading(database) as session:
        assert counters.of_send(session, waiting)["open"] == 2


def test_what_became_of_a_lost_send_is_kept_with_the_person(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, entry(4711, five[0], "open"), entry(4711, five[1], "open", email="x@y.example"))
    with reading(database) as session:
        kept = [privacy.data_of(session, one)["events"] for one in five[:2]]
    assert [len(events) for events in kept] == [1, 0]


def test_our_own_page_proves_nothing_about_a_batch(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    with transaction(database) as session:
        left = Event(
            EventKind.UNSUBSCRIBE,
            datetime.now(UTC),
            b"k" * 16,
            None,
            1,
            send,
            None,
            five[0],
            "",
            False,
            "{}",
            first_hand=True,
        )
        ingest(session, [left], now=NOW, hash_of=hash_of)
    assert batches(database, send)[0].state == "pending"
    assert suppressed(database) == {"p1@example.org": "unsubscribed"}


def test_a_bounce_without_our_ids_is_matched_by_its_address(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(database, {"event": "bounce", "timestamp": 1, "email": "P2@EXAMPLE.org"})
    assert suppressed(database) == {"p2@example.org": "bounced"}


def test_a_bounce_concerns_the_address_and_a_complaint_the_person(
    database: Engine, sent: int, five: list[int]
) -> None:
    moved = {"email": "old@example.org"}
    take(database, entry(sent, five[0], "bounce", **moved))
    assert suppressed(database) == {}
    take(database, entry(sent, five[0], "spamreport", at=1774594999, **moved))
    assert suppressed(database) == {"p1@example.org": "complained"}


def test_a_stronger_reason_replaces_a_weaker_one_and_never_the_reverse(
    database: Engine, sent: int, five: list[int]
) -> None:
    for at, (kind, reason) in enumerate(
        [("unsubscribe", "unsubscribed"), ("spamreport", "complained"), ("bounce", "complained")]
    ):
        take(database, entry(sent, five[0], kind, at=1774594800 + at))
        assert suppressed(database) == {"p1@example.org": reason}


def test_machine_opens_are_counted_apart_and_are_no_engagement(
    database: Engine, sent: int, five: list[int]
) -> None:
    take(
        database,
        entry(sent, five[0], "open", sg_machine_open=True),
        entry(sent, five[1], "open", at=1774594801),
        entry(sent, five[1], "click", at=1774594802, url="https://x.example"),
    )
    people = table_of(Subscriber)
    with reading(database) as session:
        rows = dict(session.execute(select(people.c.id, people.c.last_open_at)).all())
        clicked = session.scalar(select(people.c.last_click_at).where(people.c.id == five[1]))
        assert counters.of_send(session, sent) == {
            "click": 1,
            "clicked": 1,
            "machine_open": 1,
            "open": 1,
            "opened": 1,
        }
    assert rows[five[0]] is None
    assert rows[five[1]] == datetime.fromtimestamp(1774594801, UTC)
    assert clicked == datetime.fromtimestamp(1774594802, UTC)


def test_an_event_of_a_send_that_we_do_not_know_is_kept_and_does_no_harm(
    database: Engine, sent: int
) -> None:
    assert take(database, entry(4711, 99, "delivered", nl_issue="815")).new == 1
    assert take(database, entry(sent, 10**17, "open")).new == 1


def test_a_dropped_copy_does_not_outweigh_one_that_came_through(
    database: Engine, sent: int, five: list[int]
) -> None:
    """A doubt that is sent again may bring two copies, and their events in any order."""
    events = [("dropped", {"reason": "Spam Content"}), ("delivered", {}), ("bounce", {})]
    for reader, (first, second) in zip(five, ((0, 1), (1, 0), (0, 2), (2, 0)), strict=False):
        for one in (first, second):
            take(database, entry(sent, reader, events[one][0], **events[one][1]))
    found = [states(database, sent)[one][0] for one in five]
    assert found == ["delivered", "delivered", "bounced", "bounced", "accepted"]


@pytest.mark.parametrize("order", [("b", "a", None), (None, "a", "b"), ("a", None, "b")])
def test_of_several_reasons_always_the_same_is_kept(
    database: Engine, sent: int, five: list[int], order: tuple[str | None, ...]
) -> None:
    for at, reason in enumerate(order):
        take(database, entry(sent, five[0], "bounce", at=1774594800 + at, reason=reason))
    assert states(database, sent)[five[0]] == ("bounced", "a")


@pytest.mark.parametrize(
    ("ids", "domain"),
    [({"nl_batch": "9" * 12}, "example.org"), ({"email": "é@ü\0.example"}, "ü.example")],
)
def test_hostile_values_are_stored_and_do_no_harm(
    database: Engine, sent: int, five: list[int], ids: dict[str, str], domain: str
) -> None:
    assert take(database, entry(sent, five[0], "delivered", **ids)).new == 1
    rows = table_of(EventRow)
    with reading(database) as session:
        assert session.scalars(select(rows.c.domain)).all() == [domain]


def test_a_delivered_mail_needs_no_more_statements_than_a_thousand(
    database: Engine, sent: int, five: list[int]
) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    kinds = ("delivered", "open", "click")
    post = [
        entry(sent, five[n % 5], kinds[n % 3], at=1774594800 + n, url="https://x.example")
        for n in range(1000)
    ]
    event.listen(database, "before_cursor_execute", note)
    done = take(database, *post)
    event.remove(database, "before_cursor_execute", note)
    assert done.new == 1000
    assert len([s for s in statements if not s.startswith(("BEGIN", "PRAGMA"))]) <= 20


@pytest.mark.parametrize("order", [("unsubscribe", "bounce"), ("bounce", "unsubscribe")])
def test_who_left_and_bounced_stays_out_under_any_address(
    database: Engine, sent: int, five: list[int], order: tuple[str, str]
) -> None:
    with transaction(database) as session:
        email = "new@example.org"
        to = parse_address(email), hash_address(address_key(ADDRESS_KEY), parse_address(email))
        asked = confirmed_requests.request_address_change(
            session, five[0], *to, now=NOW, expires=NOW + timedelta(7)
        )
        assert asked
    for at, kind in enumerate(order):
        more = {"reason": "550 no such user"} if kind == "bounce" else {}
        take(database, entry(sent, five[0], kind, at=1774594800 + at, **more))
    assert suppressed(database) == {"p1@example.org": "unsubscribed"}
    with transaction(database) as session:
        assert preferences.view(session, five[0], now=NOW) is None
        wish = confirmed_requests.find_and_lock(session, asked.confirmation_id, now=NOW)
        assert wish
        assert (
            confirmed_requests.change_address(session, wish, now=NOW)
            is confirmed_requests.AddressChange.LEFT
        )


@pytest.mark.parametrize("late", [False, True])
def test_a_repeated_leaving_counts_from_when_it_happened(
    database: Engine, sent: int, five: list[int], *, late: bool
) -> None:
    take(database, entry(sent, five[0], "unsubscribe", at=1774594800))
    at = 1774594800 + (-60 if late else 60)
    take(database, entry(sent, five[0], "group_unsubscribe", at=at, asm_group_id=7))
    with reading(database) as session:
        left = session.scalar(select(table_of(Suppression).c.at))
    assert left == datetime.fromtimestamp(max(at, 1774594800), UTC)


@contextmanager
def taking_slowly(parts: Container, *entries: dict[str, Any]) -> Iterator[None]:
    """A post that is being taken meanwhile, on a machine that is slow to note readers."""
    reached = threading.Event()

    def slowly(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE subscriber SET last_"):
            reached.set()
            time.sleep(0.6)

    event.listen(parts.database, "before_cursor_execute", slowly)
    try:
        with ThreadPoolExecutor() as threads:
            events = [e for e in parse(json.dumps(entries).encode()) if isinstance(e, Event)]
            taken = threads.submit(parts.ingest, events)
            assert reached.wait(10)
            yield
            assert taken.result().new == len(entries)
    finally:
        event.remove(parts.database, "before_cursor_execute", slowly)


@pytest.mark.slow
def test_somebody_leaves_while_events_of_theirs_are_taken(
    container: Container, cast: dict[str, int]
) -> None:
    alice = {"email": "alice@example.org"}
    click = entry(1, cast["alice"], "click", url="https://example.org/", **alice)
    left = entry(1, cast["alice"], "group_unsubscribe", at=1774594801, asm_group_id=7, **alice)
    with taking_slowly(container, click, left):
        unsubscribe(
            container.database,
            cast["alice"],
            1,
            source="our link",
            occurrence="a click",
            now=datetime.now(UTC),
            hash_of=container.hash_of,
        )
    assert suppressed(container.database) == {"alice@example.org": "unsubscribed"}


def test_a_list_is_imported_while_events_of_its_people_are_taken(
    container: Container, cast: dict[str, int]
) -> None:
    bounce = entry(1, cast["alice"], "bounce", reason="550 no such user", email="alice@example.org")
    opened = entry(1, cast["bob"], "open", email="bob@example.org")
    with taking_slowly(container, bounce, opened):
        rows = BytesIO(b"email,status\nalice@example.org,unsubscribed\n")
        key = address_key(ADDRESS_KEY)
        report = import_people(container.database, rows, address_key=key, now=NOW, name="crm")
    assert report.left == {"unsubscribed": 1}
    assert suppressed(container.database) == {"alice@example.org": "unsubscribed"}


DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
#: Of events at NOW.
THEN = int(NOW.timestamp())


def comes_back(
    database: Engine, at: datetime, *, asked: datetime | None = None, email: str = "p1@example.org"
) -> None:
    with transaction(database) as session:
        wish = double_opt_in.request(
            session,
            Signup(parse_address(email)),
            address_key=address_key(ADDRESS_KEY),
            now=asked or at,
            confirm_within=7 * DAY,
            per_address=9,
        )
    with transaction(database) as session:
        double_opt_in.confirm(session, wish.confirmation_id, now=at, ip=None, user_agent=None)


def has_compared(database: Engine, at: datetime, *, finished: bool = True) -> None:
    with transaction(database) as session:
        session.add(Reconciliation(started_at=at, finished_at=at if finished else None))


@pytest.fixture
def back(database: Engine, sent: int, five: list[int]) -> int:
    """The send of somebody who left, and opted in anew a day later."""
    take(database, entry(sent, five[0], "unsubscribe", at=THEN))
    comes_back(database, NOW + DAY)
    assert suppressed(database) == {}
    return sent


@pytest.mark.parametrize("kind", ["unsubscribe", "group_unsubscribe", "spamreport", "bounce"])
def test_what_was_before_opting_in_anew_and_is_told_late_bars_nobody(
    database: Engine, back: int, five: list[int], kind: str
) -> None:
    late = entry(back, five[0], kind, at=THEN - 60)
    assert take(database, late).suppressed == 0
    assert suppressed(database) == {}
    take(database, entry(back, five[0], kind, at=THEN + 90000))
    assert len(suppressed(database)) == 1


def test_so_close_to_opting_in_that_the_clocks_may_differ_bars(
    database: Engine, back: int, five: list[int]
) -> None:
    take(database, entry(back, five[0], "group_unsubscribe", at=THEN + 86400 - 59))
    assert suppressed(database) == {"p1@example.org": "unsubscribed"}


@pytest.mark.parametrize(("kind", "bars"), [("group_unsubscribe", True), ("bounce", False)])
def test_leaving_after_the_link_was_asked_for_counts_though_it_is_told_late(
    database: Engine, sent: int, five: list[int], kind: str, bars: bool
) -> None:
    take(database, entry(sent, five[0], "unsubscribe", at=THEN))
    comes_back(database, NOW + 3 * DAY, asked=NOW + DAY)
    take(database, entry(sent, five[0], kind, at=THEN + 2 * 86400))
    assert bool(suppressed(database)) == bars


def test_another_act_of_consent_is_no_opting_in_anew(
    database: Engine, sent: int, five: list[int]
) -> None:
    with transaction(database) as session:
        record(session, five[0], [Act(NOW + DAY, "confirmed", "preferences")])
    take(database, entry(sent, five[0], "group_unsubscribe", at=THEN))
    assert suppressed(database) == {"p1@example.org": "unsubscribed"}


def test_soft_bounces_from_before_opting_in_anew_do_not_count(
    database: Engine, sent: int, five: list[int]
) -> None:
    def soft(*moments: int) -> None:
        full = {"reason": "full", "status": "4.2.2"}
        take(database, *(entry(sent, five[0], "bounce", at=THEN + n, **full) for n in moments))

    soft(0, 1, 2, 3, 4)
    assert suppressed(database) == {"p1@example.org": "bounced"}
    comes_back(database, NOW + DAY)
    day = 86400
    soft(5, 3 * day, 4 * day, 5 * day, 6 * day)
    assert suppressed(database) == {}
    soft(7 * day)
    assert suppressed(database) == {"p1@example.org": "bounced"}


LISTED = ["Unsubscribed Address", "Bounced Address", "Spam Reporting Address"]


@pytest.mark.parametrize("reason", LISTED)
def test_a_drop_for_what_a_list_says_since_before_opting_in_anew_bars_nobody(
    database: Engine, back: int, five: list[int], reason: str
) -> None:
    def drop(at: datetime) -> None:
        seconds = int(at.timestamp())
        take(database, entry(back, five[0], "dropped", at=seconds, reason=reason))

    has_compared(database, NOW)
    has_compared(database, NOW + 2 * DAY, finished=False)
    drop(NOW + 2 * DAY + 2 * MINUTE)
    assert suppressed(database) == {}
    assert states(database, back)[five[0]] == ("dropped", reason)
    has_compared(database, NOW + 3 * DAY)
    has_compared(database, NOW + 4 * DAY)
    # Told only now; and while that run was still at work.
    drop(NOW + 2 * DAY + 3 * MINUTE)
    drop(NOW + 3 * DAY + 30 * MINUTE)
    assert suppressed(database) == {}
    drop(NOW + 3 * DAY + 61 * MINUTE)
    assert len(suppressed(database)) == 1


def test_a_drop_of_an_address_that_is_none_bars(
    database: Engine, back: int, five: list[int]
) -> None:
    take(database, entry(back, five[0], "dropped", at=THEN + 90000, reason="Invalid"))
    assert suppressed(database) == {"p1@example.org": "bounced"}


def test_whoever_has_the_address_by_now_is_not_barred_for_whoever_had_it(
    database: Engine, sent: int, five: list[int]
) -> None:
    comes_back(database, NOW + DAY, email="new@example.org")
    take(database, entry(sent, five[0], "group_unsubscribe", at=THEN, email="new@example.org"))
    assert suppressed(database) == {"p1@example.org": "unsubscribed"}


@pytest.mark.parametrize(("kind", "asked"), [("delivered", 0), ("group_unsubscribe", 1)])
def test_who_opted_in_is_asked_once_a_post_and_only_where_it_matters(
    database: Engine, back: int, five: list[int], kind: str, asked: int
) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(database, "before_cursor_execute", note)
    take(database, *(entry(back, person, kind, at=THEN + person) for person in five))
    event.remove(database, "before_cursor_execute", note)
    assert len([one for one in statements if "consent" in one]) == asked
