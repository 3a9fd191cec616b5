"""One batch from claim to settlement, through every answer that a provider can give."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from sqlalchemy import Engine, delete, update

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.errors import NothingToDoError, SendError
from newsletter.provider.events import SUBSCRIBER, made_mark
from newsletter.provider.gateway import Accepted, MailRequest, NotSent, Outcome, Refused, Unknown
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.ledger.batch_store import BatchStore
from newsletter.sending.ledger.batches import mark_accepted
from newsletter.sending.models import Batch
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.queries import send_status
from newsletter.sending.recovery import uncertain_batches
from subscribers.consent import suppression
from subscribers.models import Subscriber, SuppressionReason
from tests.conftest import NOW
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    make_send,
    planned,
    send_state,
    states,
)

pytestmark = pytest.mark.both_databases


def test_everybody_is_mailed_once_and_the_send_is_sent(database: Engine, five: list[int]) -> None:
    send, gateway = planned(database), FakeGateway()
    drain(database, gateway)
    assert sorted(gateway.mailed) == [f"p{n}@example.org" for n in range(1, 6)]
    assert {s for s, _ in states(database, send).values()} == {"accepted"}
    assert send_state(database, send) == "sent"
    assert {b.message_id for b in batches(database, send)} == {"id1", "id2", "id3"}


def test_each_person_gets_their_own_values_links_and_ids(database: Engine, five) -> None:
    send, gateway = planned(database, size=5), FakeGateway()
    drain(database, gateway)
    (request,) = gateway.requests
    assert request.custom_args == {
        "nl_issue": "1",
        "nl_send": str(send),
        "nl_batch": "1",
        "nl_made": str(made_mark(NOW)),
    }
    assert request.headers == {
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "List-Id": "<newsletter.news.example>",
    }
    assert len({r.headers["List-Unsubscribe"] for r in request.recipients}) == 5
    for person, recipient in zip(five, request.recipients, strict=True):
        assert recipient.custom_args == {"nl_subscriber": str(person)}
        assert recipient.headers["List-Unsubscribe"].startswith(
            "<https://news.example/unsubscribe/"
        )
        assert f"P{person - five[0] + 1}" in recipient.substitutions.values()


def test_somebody_who_left_a_moment_ago_is_skipped_with_the_reason(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database), FakeGateway()
    with transaction(database) as session:
        suppression.add(session, five[:1], SuppressionReason.UNSUBSCRIBED, at=NOW, evidence="x")
        session.execute(delete(table_of(Subscriber)).where(table_of(Subscriber).c.id == five[1]))
        session.execute(
            update(table_of(Subscriber))
            .where(table_of(Subscriber).c.id == five[2])
            .values(paused_until=datetime.now(UTC) + timedelta(days=1))
        )
    drain(database, gateway)
    assert sorted(gateway.mailed) == ["p4@example.org", "p5@example.org"]
    found = states(database, send)
    assert found[five[0]] == ("skipped", "unsubscribed")
    assert found[five[1]] == ("skipped", "erased")
    assert found[five[2]] == ("skipped", "paused")
    assert [b.state for b in batches(database, send)] == ["skipped", "accepted", "accepted"]
    assert send_state(database, send) == "sent"


@pytest.mark.parametrize("outcome", [NotSent("refused"), NotSent("429", timedelta(seconds=40))])
def test_what_was_surely_not_taken_waits_and_goes_out_once(
    database: Engine, five: list[int], outcome: Outcome
) -> None:
    send, gateway = planned(database, size=5), FakeGateway(outcome)
    drain(database, gateway)
    (batch,) = batches(database, send)
    assert batch.state == "pending"
    with transaction(database) as session:
        assert provider_backoff.in_force(session, now=datetime.now(UTC)) is not None
        provider_backoff.lift(session)
    drain(database, gateway)
    assert len(gateway.requests) == 2
    assert send_state(database, send) == "sent"


def _trouble(database: Engine, *, for_: timedelta) -> None:
    """Limits, each of a minute, every five minutes, the last of which has just passed."""
    now = datetime.now(UTC)
    with transaction(database) as session:
        for ago in range(int(for_.total_seconds()) // 60, 0, -5):
            at = now - timedelta(minutes=ago)
            provider_backoff.back_off(
                session, now=at, until=at + timedelta(minutes=1), reason="429"
            )


def test_trouble_has_ended_when_something_was_taken_since(
    database: Engine, five: list[int]
) -> None:
    send = planned(database, size=1)
    _trouble(database, for_=timedelta(hours=2))
    drain(database, FakeGateway(Accepted("1"), NotSent("cannot reach SendGrid: refused")))
    assert send_state(database, send) == "sending"


def test_trouble_lasts_while_nothing_was_taken_since(database: Engine, five: list[int]) -> None:
    send = planned(database, size=1)
    drain(database, FakeGateway(Accepted("1"), NotSent("429", timedelta(minutes=1))))
    with transaction(database) as session:
        provider_backoff.lift(session)
        # What left before the trouble was taken, and what was proved meanwhile left before it.
        long_ago = datetime.now(UTC) - timedelta(hours=3)
        session.execute(update(table_of(Batch)).values(departed_at=long_ago))
    _trouble(database, for_=timedelta(hours=2))
    drain(database, FakeGateway(NotSent("cannot reach SendGrid: refused")))
    assert send_state(database, send) == "paused"
    with reading(database) as session:
        assert "120 minutes" in send_status.find(session, send).reason


def test_one_refused_address_costs_nobody_else_the_issue(database: Engine, five: list[int]) -> None:
    send, gateway = planned(database, size=5), FakeGateway(Refused(400, "bad", recipient=3))
    drain(database, gateway)
    found = states(database, send)
    refused = int(gateway.requests[0].recipients[3].custom_args[SUBSCRIBER])
    assert found.pop(refused) == ("rejected", "SendGrid refused it (400): bad")
    assert set(found.values()) == {("accepted", None)}
    assert [len(request.recipients) for request in gateway.requests] == [5, 4]
    assert send_state(database, send) == "sent"


class Picky(FakeGateway):
    """Refuses every request with this address in it, and does not say why."""

    def send(self, request: MailRequest) -> Outcome:
        outcome = super().send(request)
        emails = [recipient.email for recipient in request.recipients]
        return Refused(400, "bad") if "p3@example.org" in emails else outcome


def test_a_refusal_of_unknown_cause_is_narrowed_down_to_the_one_person(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database, size=5), Picky()
    drain(database, gateway)
    found = states(database, send)
    assert found.pop(five[2]) == ("rejected", "SendGrid refused it (400): bad")
    assert set(found.values()) == {("accepted", None)}
    assert sum(batch.size for batch in batches(database, send)) == 5
    assert send_state(database, send) == "sent"


def test_a_refusal_of_what_all_share_pauses_the_send(database: Engine, five: list[int]) -> None:
    send, gateway = planned(database), FakeGateway(Refused(400, "too long", shared="subject"))
    drain(database, gateway)
    assert len(gateway.requests) == 1
    assert send_state(database, send) == "paused"
    assert {s for s, _ in states(database, send).values()} == {"planned"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_pauses_the_send_and_nobody_is_lost(
    database: Engine, five: list[int], status: int
) -> None:
    send, gateway = planned(database), FakeGateway(Refused(status, "no"))
    drain(database, gateway)
    assert len(gateway.requests) == 1
    assert send_state(database, send) == "paused"
    with transaction(database) as session:
        assert "no" in send_status.find(session, send).reason
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    drain(database, gateway)
    assert send_state(database, send) == "sent"
    assert len(set(gateway.mailed)) == 5


def test_a_lost_answer_is_held_in_doubt_and_never_sent_again_by_itself(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database, size=5), FakeGateway(Unknown("timed out"))
    drain(database, gateway)
    later = datetime.now(UTC) + timedelta(days=30)
    with transaction(database) as session:
        uncertain_batches.recover(session, now=later, grace=timedelta(minutes=30), policy="hold")
    drain(database, gateway)
    assert len(gateway.requests) == 1
    assert batches(database, send)[0].state == "uncertain"
    assert {s for s, _ in states(database, send).values()} == {"planned"}
    assert send_state(database, send) == "sending"


def test_doubt_is_sent_again_after_the_grace_time_if_the_operator_wants_it(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database, size=5), FakeGateway(Unknown("timed out"))
    drain(database, gateway)
    grace = timedelta(minutes=30)
    for minutes, requests in ((29, 1), (31, 2)):
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        with transaction(database) as session:
            provider_backoff.lift(session)
            uncertain_batches.recover(session, now=now, grace=grace, policy="resend")
            session.execute(update(table_of(Batch)).values(not_before=NOW))
        drain(database, gateway)
        assert len(gateway.requests) == requests
    assert send_state(database, send) == "sent"


def swept_for_days(database: Engine, gateway: FakeGateway) -> None:
    """Two days under the policy that sends again after half an hour."""
    for hour in range(1, 49):
        now = datetime.now(UTC) + timedelta(hours=hour)
        with transaction(database) as session:
            provider_backoff.lift(session)
            uncertain_batches.recover(
                session, now=now, grace=timedelta(minutes=30), policy="resend"
            )
            session.execute(update(table_of(Batch)).values(not_before=NOW))
        drain(database, gateway)


@pytest.mark.slow
def test_doubt_is_sent_again_once_however_often_it_was_put_off_before(
    database: Engine, five: list[int]
) -> None:
    busy = NotSent("busy", timedelta(0))
    lost = [Unknown("500")] * 100
    send, gateway = planned(database, size=5), FakeGateway(busy, lost[0], busy, *lost)
    for seconds in range(0, 60, 10):
        # Whatever wait the provider asked for is over.
        with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds)):
            drain(database, gateway)
        swept_for_days(database, gateway)
    assert len(gateway.requests) == 4
    with reading(database) as session:
        [one] = uncertain_batches.list_uncertain(session, send)
    assert one.why.endswith("; it was sent again before")


def test_doubt_after_the_operators_word_waits_for_another(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database, size=5), FakeGateway(*[Unknown("500")] * 100)
    for requests in (2, 3):
        drain(database, gateway)
        with transaction(database) as session:
            uncertain_batches.resolve(
                session, send, 1, by=Actor(None, "operator"), sent=False, now=NOW
            )
        swept_for_days(database, gateway)
        assert len(gateway.requests) == requests


def test_doubt_of_a_cancelled_send_stays_until_evidence_settles_it(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database, size=5), FakeGateway(Unknown("lost"))
    drain(database, gateway)
    with transaction(database) as session:
        send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW)
    swept_for_days(database, gateway)
    assert batches(database, send)[0].state == "uncertain"
    with pytest.raises(NothingToDoError):
        make_send(database)  # to those who have not had the issue
    with transaction(database) as session:
        assert mark_accepted(session, [(send, 1)], now=NOW, detail="an event") == 1
    assert {state for state, _ in states(database, send).values()} == {"accepted"}
    assert len(gateway.requests) == 1


def test_the_operators_word_settles_a_doubtful_batch(database: Engine, five: list[int]) -> None:
    send, gateway = planned(database), FakeGateway(Unknown("lost"), Unknown("lost"))
    drain(database, gateway)
    with transaction(database) as session:
        provider_backoff.lift(session)
    drain(database, gateway)
    with transaction(database) as session:
        provider_backoff.lift(session)
    with transaction(database) as session:
        assert [
            (one.number, one.people, one.why)
            for one in uncertain_batches.list_uncertain(session, send)
        ] == [
            (1, 2, "lost"),
            (2, 2, "lost"),
        ]
        uncertain_batches.resolve(session, send, 1, by=Actor(None, "operator"), sent=True, now=NOW)
        uncertain_batches.resolve(session, send, 2, by=Actor(None, "operator"), sent=False, now=NOW)
    drain(database, gateway)
    assert send_state(database, send) == "sent"
    assert {s for s, _ in states(database, send).values()} == {"accepted"}
    assert [gateway.mailed.count(f"p{n}@example.org") for n in range(1, 6)] == [1, 1, 2, 2, 1]
    with transaction(database) as session, pytest.raises(SendError, match="not uncertain"):
        uncertain_batches.resolve(session, send, 1, by=Actor(None, "operator"), sent=False, now=NOW)


def test_an_event_proves_a_doubtful_batch(database: Engine, five: list[int]) -> None:
    send, gateway = planned(database, size=5), FakeGateway(Unknown("timed out"))
    drain(database, gateway)
    with transaction(database) as session:
        assert mark_accepted(session, [(send, 1)], now=NOW, detail="an event") == 1
    assert {s for s, _ in states(database, send).values()} == {"accepted"}
    assert send_state(database, send) == "sent"


def test_an_event_that_overtakes_the_answer_does_no_harm(database: Engine, five: list[int]) -> None:
    send, gateway = planned(database, size=5), FakeGateway()

    def event() -> None:
        with transaction(database) as session:
            mark_accepted(session, [(send, 1)], now=NOW, detail="an event")

    gateway.during = event
    drain(database, gateway)
    (batch,) = batches(database, send)
    assert (batch.state, batch.message_id) == ("accepted", "id1")
    assert send_state(database, send) == "sent"


def test_a_worker_that_died_before_departure_costs_nothing(
    database: Engine, five: list[int]
) -> None:
    send = planned(database, size=5)
    with transaction(database) as session:
        BatchStore("dead", lease=timedelta(seconds=-1)).claim(session, now=datetime.now(UTC))
    with transaction(database) as session:
        swept = uncertain_batches.recover(
            session, now=datetime.now(UTC), grace=timedelta(minutes=30), policy="hold"
        )
    assert (swept.requeued, swept.uncertain) == (1, 0)
    gateway = FakeGateway()
    drain(database, gateway)
    assert len(gateway.mailed) == 5
    assert send_state(database, send) == "sent"


def test_a_worker_that_died_after_departure_leaves_a_doubt(
    database: Engine, five: list[int]
) -> None:
    send = planned(database, size=5)
    now = datetime.now(UTC)
    with transaction(database) as session:
        batch = BatchStore("dead", lease=timedelta(minutes=1)).claim(session, now=now)
        assert batch is not None
        assert BatchStore("w", lease=timedelta(seconds=-1)).depart(session, batch, [], now=now)
    with transaction(database) as session:
        uncertain_batches.recover(session, now=now, grace=timedelta(minutes=30), policy="hold")
    assert batches(database, send)[0].state == "uncertain"
    drain(database, FakeGateway())
    assert batches(database, send)[0].state == "uncertain"


def test_a_claim_that_was_taken_back_cannot_depart(database: Engine, five: list[int]) -> None:
    planned(database, size=5)
    now = datetime.now(UTC)
    with transaction(database) as session:
        slow = BatchStore("slow", lease=timedelta(seconds=-1)).claim(session, now=now)
        assert slow is not None
    with transaction(database) as session:
        uncertain_batches.recover(session, now=now, grace=timedelta(minutes=30), policy="hold")
        fast = BatchStore("fast", lease=timedelta(minutes=1)).claim(session, now=now)
        assert fast is not None
    with transaction(database) as session:
        assert not BatchStore("w", lease=timedelta(minutes=1)).depart(session, slow, [], now=now)
        assert BatchStore("w", lease=timedelta(minutes=1)).depart(session, fast, [], now=now)


def test_a_pause_stops_a_batch_that_has_not_left_and_resume_goes_on_exactly(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database), FakeGateway()
    worker = dispatcher(database, gateway)
    assert worker.send_next()
    with transaction(database) as session:
        send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason="wait", now=NOW)
    assert not worker.send_next()
    with transaction(database) as session:
        send_lifecycle.resume(session, send, by=Actor(None, "operator"), now=datetime.now(UTC))
    drain(database, gateway)
    assert sorted(gateway.mailed) == [f"p{n}@example.org" for n in range(1, 6)]


def test_a_pause_between_claim_and_departure_holds_the_batch(
    database: Engine, five: list[int]
) -> None:
    send = planned(database, size=5)
    now = datetime.now(UTC)
    with transaction(database) as session:
        batch = BatchStore("w", lease=timedelta(minutes=1)).claim(session, now=now)
        assert batch is not None
        send_lifecycle.pause(session, send, by=Actor(None, "operator"), reason="wait", now=NOW)
    with transaction(database) as session:
        assert not BatchStore("w", lease=timedelta(minutes=1)).depart(session, batch, [], now=now)


def test_cancelling_leaves_the_rest_in_the_list_with_the_reason(
    database: Engine, five: list[int]
) -> None:
    send, gateway = planned(database), FakeGateway()
    dispatcher(database, gateway).send_next()
    with transaction(database) as session:
        assert send_lifecycle.cancel(session, send, by=Actor(None, "operator"), now=NOW) == 3
    drain(database, gateway)
    assert len(gateway.mailed) == 2
    found = states(database, send)
    assert [found[person] for person in five[2:]] == [("rejected", "cancelled")] * 3
    with reading(database) as session:
        assert send_status.get_status(session, send).adds_up


def test_two_workers_share_the_batches_and_nobody_is_mailed_twice(
    database: Engine, five: list[int]
) -> None:
    planned(database, size=1)
    one, two = FakeGateway(), FakeGateway()
    first, second = dispatcher(database, one), dispatcher(database, two)
    while first.send_next() | second.send_next():
        pass
    assert sorted(one.mailed + two.mailed) == [f"p{n}@example.org" for n in range(1, 6)]
    assert one.mailed
    assert two.mailed


@pytest.mark.parametrize("outcome", [NotSent("busy"), Refused(400, "bad", recipient=0)])
def test_a_late_answer_that_nothing_was_taken_ends_the_doubt(
    database: Engine, five: list[int], outcome: Outcome
) -> None:
    send, gateway = planned(database, size=5), FakeGateway(outcome)

    def given_up() -> None:
        with transaction(database) as session:
            session.execute(update(table_of(Batch)).values(lease_until=NOW))
            uncertain_batches.recover(
                session, now=datetime.now(UTC), grace=timedelta(hours=1), policy="hold"
            )
        assert batches(database, send)[0].state == "uncertain"

    gateway.during = given_up
    dispatcher(database, gateway).send_next()
    assert batches(database, send)[0].state == "pending"
