"""Who is in a send, page by page, and how many were handed over without counting them."""

from typing import Any

import pytest
from sqlalchemy import Engine, event

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.provider.gateway import NotSent, Refused
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import recipient_list, send_status
from newsletter.sending.queries.recipient_list import RecipientPosition
from newsletter.sending.states import DeliveryState
from subscribers.consent import suppression
from subscribers.email_address import address_key, hash_address, parse
from subscribers.models import SuppressionReason
from tests.conftest import ADDRESS_KEY, NOW
from tests.newsletter.sending.conftest import FakeGateway, dispatcher, drain, planned


def counted(database: Engine, send: int) -> dict[str, int]:
    with reading(database) as session:
        return send_status.get_status(session, send).recipients


def handed_over(database: Engine, send: int) -> int:
    with reading(database) as session:
        return send_status.accepted_count(session, [send_status.find(session, send)])[send]


def test_handed_over_are_those_of_accepted_batches_who_had_not_left(
    database: Engine, five: list[int]
) -> None:
    send = planned(database)
    assert handed_over(database, send) == 0
    with transaction(database) as session:
        suppression.add(session, [five[0]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
    dispatcher(database, FakeGateway()).send_next()
    assert counted(database, send) == {"skipped": 1, "accepted": 1, "planned": 3}
    assert handed_over(database, send) == 1
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
    assert counted(database, send) == {"skipped": 1, "accepted": 1, "rejected": 3}
    assert handed_over(database, send) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_those_with_a_reason_are_counted_from_their_index(
    database: Engine, five: list[int]
) -> None:
    """Where two indexes would do, SQLite takes the one created last; this one is small."""
    send, asked = planned(database), list[tuple[str, Any]]()

    @event.listens_for(database, "before_cursor_execute")
    def keep(_c: Any, _u: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with reading(database) as session:
        of_send = send_status.find(session, send)
        recipient_list.problem_counts(session, of_send)
        send_status.accepted_count(session, [of_send])
        recipient_list.page(session, send, state=DeliveryState.BOUNCED, limit=10)
    event.remove(database, "before_cursor_execute", keep)
    counted = [one for one in asked if "delivery.reason IS NOT NULL" in one[0]]
    assert len(counted) == 4
    with database.connect() as connection:
        for statement, values in counted:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            used = " ".join(row[3] for row in plan)
            assert "ix_delivery_apart" in used, used


def test_who_was_refused_is_not_handed_over(database: Engine, five: list[int]) -> None:
    send = planned(database, size=4)
    worker = dispatcher(database, FakeGateway(Refused(400, "bad", recipient=0)))
    worker.send_next()
    worker.send_next()  # once more, without the one
    assert handed_over(database, send) == 3
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
    assert counted(database, send) == {"rejected": 2, "accepted": 3}
    assert handed_over(database, send) == 3


def test_a_batch_of_which_all_had_left_hands_over_nobody(database: Engine, five: list[int]) -> None:
    send = planned(database, size=5)
    with transaction(database) as session:
        suppression.add(session, five, SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
    drain(database, FakeGateway())
    assert counted(database, send) == {"skipped": 5}
    with reading(database) as session:
        assert send_status.find(session, send).accepted_count == 0
    assert handed_over(database, send) == 0


def test_what_was_handed_over_is_kept_when_a_send_is_sent(
    database: Engine, five: list[int]
) -> None:
    send = planned(database)
    with transaction(database) as session:
        suppression.add(session, [five[0]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
    drain(database, FakeGateway())
    with reading(database) as session:
        assert send_status.find(session, send).accepted_count == 4
    assert handed_over(database, send) == 4


def test_everybody_is_on_exactly_one_page(database: Engine, five: list[int]) -> None:
    send = planned(database)
    seen, after = list[int](), None
    with reading(database) as session:
        while rows := recipient_list.page(session, send, after=after, limit=2):
            seen += [row.id for row in rows]
            after = RecipientPosition(rows[-1].batch, rows[-1].id)
    assert seen == five


def test_those_set_apart_are_found_by_their_state(database: Engine, five: list[int]) -> None:
    send = planned(database)
    with transaction(database) as session:
        suppression.add(session, [five[0]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
    gateway = FakeGateway()
    dispatcher(database, gateway).send_next()
    gateway.outcomes = [Refused(400, "no such sender")]
    dispatcher(database, gateway).send_next()
    with reading(database) as session:
        made = send_status.find(session, send)
        people = counted(database, send)
        assert recipient_list.problem_counts(session, made) == {
            state: n for state, n in people.items() if state in recipient_list.FILTERS[1:]
        }
        for state in recipient_list.FILTERS:
            rows = recipient_list.page(session, send, state=state, limit=10)
            assert len(rows) == people.get(state, 0)
            assert {row.state for row in rows} <= {state}
        skipped = recipient_list.page(session, send, state=DeliveryState.SKIPPED, limit=10)
        assert [(row.id, row.reason) for row in skipped] == [(five[0], "unsubscribed")]


def test_those_of_a_cancelled_send_add_up_too(database: Engine, five: list[int]) -> None:
    send, gateway = planned(database), FakeGateway(Refused(400, "too long", shared="subject"))
    with transaction(database) as session:
        suppression.add(session, [five[0]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
    dispatcher(database, gateway).send_next()
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
    people = counted(database, send)
    assert people == {"skipped": 1, "rejected": 4}
    with reading(database) as session:
        apart = recipient_list.problem_counts(session, send_status.find(session, send))
        assert apart == {"skipped": 1, "not_sent": 4}
        for state in recipient_list.FILTERS:
            rows = recipient_list.page(session, send, state=state, limit=10)
            assert len(rows) == people.get(state, 0)


def test_what_a_rate_limit_put_back_was_not_refused_when_the_send_is_cancelled(
    database: Engine, five: list[int]
) -> None:
    send = planned(database)
    dispatcher(database, FakeGateway(NotSent("rate limit"))).send_next()
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
        assert recipient_list.problem_counts(session, send_status.find(session, send)) == {
            "not_sent": 5
        }


def test_one_person_is_found_by_address(database: Engine, five: list[int]) -> None:
    send = planned(database)
    with reading(database) as session:
        made = send_status.find(session, send)
        known = hash_address(address_key(ADDRESS_KEY), parse("P2@Example.org"))
        assert [row.id for row in recipient_list.find_recipient(session, made, known)] == [five[1]]
        assert recipient_list.find_recipient(session, made, b"\0" * 32) == []
        assert recipient_list.find_recipient(session, made, None) == []
