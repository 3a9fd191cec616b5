"""Single mails: what surely was not taken is tried for a day, doubt only a few times."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from newsletter.provider.gateway import Accepted, NotSent, Outcome, Refused, Unknown
from newsletter.sending.delivery import outbox
from newsletter.sending.models import OutboxEmail
from newsletter.sending.retry_policy import decide
from tests.conftest import NOW

pytestmark = pytest.mark.both_databases

_LEASE = timedelta(minutes=2)
_DOWN = NotSent("cannot reach SendGrid: refused")


@pytest.fixture(autouse=True)
def mail(database: Engine) -> None:
    """One mail that waits since NOW."""
    words = outbox.OutgoingEmail("Confirm", "<p>yes</p>", "yes")
    with transaction(database) as session:
        outbox.enqueue(session, kind="confirm", email="a@example.org", mail=words, now=NOW)


def row(database: Engine) -> Any:
    with reading(database) as session:
        return session.execute(select(table_of(OutboxEmail))).one()


def tried(
    database: Engine, answer: Callable[[datetime], Outcome], *, for_: timedelta
) -> list[timedelta]:
    """Work from NOW on, each time when the mail is due; how long after NOW each try was."""
    tries: list[timedelta] = []
    while (found := row(database)).state == "pending" and found.not_before <= NOW + for_:
        now = found.not_before
        tries.append(now - NOW)
        with transaction(database) as session:
            claimed = outbox.claim(session, now=now, lease=_LEASE)
            assert claimed is not None
            decision = decide(answer(now), attempt=claimed.attempt, size=1, jitter=0.5)
            outbox.settle(session, claimed, decision, now=now)
    return tries


@pytest.mark.slow
@pytest.mark.parametrize(
    "outcome", [_DOWN, NotSent("429", timedelta(minutes=1)), Refused(401, "no")]
)
def test_a_mail_outlasts_an_outage_and_leaves_soon_after_it(
    database: Engine, outcome: Outcome
) -> None:
    back = NOW + timedelta(hours=5)
    tries = tried(
        database,
        lambda now: outcome if now < back else Accepted("id"),
        for_=timedelta(hours=6),
    )
    assert row(database).state == "accepted"
    assert tries[-1] <= timedelta(hours=5, minutes=2)


def test_tries_become_rarer_while_an_outage_lasts(database: Engine) -> None:
    tries = tried(database, lambda _: _DOWN, for_=timedelta(hours=1))
    assert tries[1] < timedelta(seconds=3)
    assert 20 < len(tries) < 60


def test_what_is_never_taken_ends_after_a_day(database: Engine) -> None:
    with transaction(database) as session:
        session.execute(update(table_of(OutboxEmail)).values(not_before=NOW + timedelta(hours=23)))
    tries = tried(database, lambda _: _DOWN, for_=timedelta(days=3))
    assert row(database).state == "rejected"
    assert timedelta(days=1) <= tries[-1] <= timedelta(days=1, minutes=2)


def test_doubt_ends_after_five_copies_at_most_whatever_came_between(database: Engine) -> None:
    outcomes = [Unknown("lost"), _DOWN] * 20
    tries = tried(database, lambda _: outcomes.pop(0), for_=timedelta(days=1))
    assert row(database).state == "rejected"
    assert len(tries) == 9  # five doubts, and what was not taken between them


def test_an_answer_that_comes_after_the_mail_was_given_to_another_changes_nothing(
    database: Engine,
) -> None:
    late = NOW + 2 * _LEASE
    with transaction(database) as session:
        slow = outbox.claim(session, now=NOW, lease=_LEASE)
        outbox.recover_abandoned(session, now=late)
        quick = outbox.claim(session, now=late, lease=_LEASE)
        assert slow is not None
        assert quick is not None
        decision = decide(_DOWN, attempt=quick.attempt, size=1, jitter=0.5)
        outbox.settle(session, quick, decision, now=late)
        assert outbox.claim(session, now=late + _LEASE, lease=_LEASE) is not None
        refused = decide(Refused(400, "bad"), attempt=slow.attempt, size=1, jitter=0.5)
        outbox.settle(session, slow, refused, now=late + _LEASE)
    assert row(database).state == "in_flight"
