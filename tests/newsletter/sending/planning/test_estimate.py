"""Who is reached across sends, retries and segments left out: everybody once, nobody twice."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.errors import NothingToDoError, SendError
from newsletter.provider.gateway import Refused
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from subscribers.consent import suppression
from subscribers.models import SuppressionReason
from subscribers.segments import store as segment_store
from tests.conftest import NOW
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    make_plan,
    make_send,
    states,
)


def adds_up(database: Engine, send: int) -> bool:
    with reading(database) as session:
        return send_status.get_status(session, send).adds_up


def retry(database: Engine, send: int) -> int:
    with transaction(database, snapshot=True) as session:
        return send_lifecycle.retry(
            session, send, by=Actor(None, "operator"), now=datetime.now(UTC), batch_size=2
        )


def test_a_segment_can_be_left_out(database: Engine, five: list[int]) -> None:
    with transaction(database) as session:
        segment_store.save(session, "some", 'name in ["P1", "P4"]', now=NOW)
    send = make_send(database, excluded=["some"])
    assert make_plan(database, send) == 3
    assert sorted(states(database, send)) == [five[1], five[2], five[4]]
    with reading(database) as session:
        assert send_status.find(session, send).excluded_counts == {"in an excluded segment": 2}


def test_another_send_of_an_issue_reaches_those_whom_the_cancelled_one_missed(
    database: Engine, five: list[int]
) -> None:
    first = make_send(database)
    make_plan(database, first)
    gateway = FakeGateway()
    dispatcher(database, gateway).send_next()
    with transaction(database) as session:
        send_lifecycle.cancel(session, first, by=Actor(None, "operator"), now=NOW)
    second = make_send(database)
    assert make_plan(database, second) == 3
    drain(database, gateway)
    assert sorted(gateway.mailed) == [f"p{n}@example.org" for n in range(1, 6)]
    with reading(database) as session:
        assert send_status.find(session, second).excluded_counts == {"had this issue": 2}
        assert send_status.find(session, first).transferred == 3
    assert adds_up(database, first)
    assert adds_up(database, second)


def test_a_retry_reaches_who_missed_it_and_nobody_else(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    gateway = drain(database, FakeGateway(Refused(400, "bad", recipient=3)))
    refused = gateway.requests[0].recipients[3].email
    with reading(database) as session:
        (one,) = send_status.stream_recipients(session, send, email=refused)
    assert (one.state, one.reason) == ("rejected", "SendGrid refused it (400): bad")
    assert retry(database, send) == 1
    drain(database, gateway)
    assert gateway.requests[-1].recipients[0].email == refused
    assert len(gateway.requests[-1].recipients) == 1
    assert set(states(database, send).values()) == {("accepted", None)}
    assert sum(batch.size for batch in batches(database, send)) == 5
    assert adds_up(database, send)


def test_whoever_left_meanwhile_is_not_retried(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
        suppression.add(session, [five[0]], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="")
    assert retry(database, send) == 4
    gateway = drain(database, FakeGateway())
    assert "p1@example.org" not in gateway.mailed
    assert len(gateway.mailed) == 4
    assert adds_up(database, send)


def test_a_retry_without_anybody_changes_nothing(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send)
    with pytest.raises(SendError, match="sending and cannot become sending in this way"):
        retry(database, send)
    drain(database, FakeGateway())
    with pytest.raises(NothingToDoError, match="no recipient who missed"):
        retry(database, send)
    with reading(database) as session:
        assert send_status.find(session, send).state == "sent"


def test_people_are_listed_with_state_reason_and_address(database: Engine, five: list[int]) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    gateway = drain(database, FakeGateway(Refused(400, "bad", recipient=3)))
    refused = gateway.requests[0].recipients[3].email
    with reading(database) as session:
        everybody = list(send_status.stream_recipients(session, send))
        assert [row.id for row in everybody] == five
        (one,) = send_status.stream_recipients(session, send, state="rejected")
        assert (one.email, one.reason) == (refused, "SendGrid refused it (400): bad")
        another = gateway.requests[0].recipients[0].email
        (other,) = send_status.stream_recipients(session, send, email=f"{another.upper()} ")
        assert other.state == "accepted"


def test_a_batch_given_back_after_a_cancel_is_rejected_too(
    database: Engine, five: list[int]
) -> None:
    send = make_send(database)
    make_plan(database, send, batch_size=5)
    gateway = FakeGateway()
    worker = dispatcher(database, gateway)

    class Cancelling:
        """Cancels the send at the moment when its links are made: between claim and departure."""

        def series(self, *args: object, **more: object) -> object:
            with transaction(database) as session:
                send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
            return worker_links.series(*args, **more)  # type: ignore[arg-type]

    worker_links = worker._links
    worker._links = Cancelling()  # type: ignore[assignment]
    worker.send_next()
    assert gateway.requests == []
    assert set(states(database, send).values()) == {("rejected", "cancelled")}
    assert adds_up(database, send)
