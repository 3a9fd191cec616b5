"""Beside a doubt stands whether events of what left later came."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from newsletter.accounts.audit import Actor
from newsletter.db.engine import reading, transaction
from newsletter.provider.events import made_mark
from newsletter.provider.gateway import Unknown
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.recovery import uncertain_batches
from newsletter.tracking.events import silent_batches
from newsletter.tracking.events.silent_batches import Silence
from tests.conftest import NOW
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    five,
    planned,
    states,
)
from tests.newsletter.tracking.events.test_ingest import take

__all__ = ["five"]


def lose_one(database: Engine) -> None:
    with transaction(database) as session:
        provider_backoff.lift(session)
    dispatcher(database, FakeGateway(Unknown("lost"))).send_next()
    with transaction(database) as session:
        provider_backoff.lift(session)


def around(database: Engine, send: int) -> dict[int, Silence]:
    with reading(database) as session:
        return silent_batches.silence_of(session, uncertain_batches.list_uncertain(session, send))


def delivered(database: Engine, send: int, batch: int, person: int, *, key: str) -> None:
    at = datetime.now(UTC)
    take(
        database,
        {
            "event": "delivered", "email": f"p{person}@example.org", "sg_event_id": key,
            "timestamp": int(at.timestamp()), "nl_issue": "1", "nl_send": str(send),
            "nl_batch": str(batch), "nl_subscriber": str(person), "nl_made": str(made_mark(NOW)),
        },
    )  # fmt: skip


def test_events_of_what_left_later_are_counted_and_those_of_what_left_before_are_not(
    database: Engine, five: list[int]
) -> None:
    send = planned(database, size=1)
    dispatcher(database, FakeGateway()).send_next()
    lose_one(database)
    lose_one(database)
    drain(database, FakeGateway())
    assert around(database, send) == {2: Silence(0, None), 3: Silence(0, None)}
    delivered(database, send, 1, five[0], key="a")
    assert around(database, send) == {2: Silence(0, None), 3: Silence(0, None)}
    delivered(database, send, 4, five[3], key="b")
    delivered(database, send, 5, five[4], key="c")
    found = around(database, send)
    assert found == {2: Silence(2, NOW), 3: Silence(2, NOW)}


@pytest.mark.slow
@pytest.mark.parametrize("word", ["sent", "resend"])
def test_events_that_come_after_the_operators_word_double_nobody(
    database: Engine, five: list[int], word: str
) -> None:
    send = planned(database, size=1)
    lose_one(database)
    lose_one(database)
    with transaction(database) as session:
        assert (
            uncertain_batches.resolve_all(
                session,
                send,
                by=Actor(None, "operator"),
                sent=word == "sent",
                now=datetime.now(UTC),
            )
            == 2
        )
    # It had been taken after all: what has not left again by then does not leave.
    delivered(database, send, 1, five[0], key="a")
    gateway = drain(database, FakeGateway())
    people = [state for state, _ in states(database, send).values()]
    assert people == ["delivered", *["accepted"] * 4]
    assert len(gateway.mailed) == (3 if word == "sent" else 4)
    assert {batch.state for batch in batches(database, send)} == {"accepted"}
    delivered(database, send, 2, five[1], key="b")
    assert len(drain(database, gateway).mailed) == (3 if word == "sent" else 4)
    assert Counter(s for s, _ in states(database, send).values())["delivered"] == 2
