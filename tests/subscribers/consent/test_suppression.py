"""Who must not be mailed: reasons by strength, and what an operator may take back."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from newsletter.db.engine import reading, transaction
from newsletter.db.orm import table_of
from subscribers.consent import suppression
from subscribers.consent.suppression import LiftError
from subscribers.models import Suppression, SuppressionReason
from tests.conftest import NOW

pytestmark = pytest.mark.both_databases

HASH = b"h" * 16
LATER = NOW + timedelta(days=1)


def add(database: Engine, reason: SuppressionReason, at=NOW) -> int:
    with transaction(database) as session:
        return suppression.add_addresses(session, [HASH], reason, at=at, evidence=f"by {reason}")


def lift(database: Engine) -> str | None:
    with transaction(database) as session:
        return suppression.lift_manual(session, HASH, evidence="lifted by hand")


def kept(database: Engine) -> list[tuple]:
    row = table_of(Suppression).c
    with reading(database) as session:
        return [
            tuple(r) for r in session.execute(select(row.reason, row.at, row.underlying_reason))
        ]


def test_what_an_operator_decided_an_operator_takes_back(database: Engine) -> None:
    add(database, SuppressionReason.MANUAL)
    assert lift(database) is None
    assert kept(database) == []


@pytest.mark.parametrize("first", [True, False])
def test_whoever_left_besides_stays_out(database: Engine, first: bool) -> None:
    if first:
        add(database, SuppressionReason.UNSUBSCRIBED)
    add(database, SuppressionReason.MANUAL, LATER)
    if not first:
        assert add(database, SuppressionReason.UNSUBSCRIBED) == 0
    assert lift(database) == "unsubscribed"
    assert kept(database) == [("unsubscribed", NOW, None)]
    with pytest.raises(LiftError, match="this address stays suppressed: unsubscribed"):
        lift(database)


def test_the_strongest_of_the_hidden_reasons_stays(database: Engine) -> None:
    add(database, SuppressionReason.MANUAL)
    add(database, SuppressionReason.UNSUBSCRIBED)
    add(database, SuppressionReason.COMPLAINED, LATER)
    add(database, SuppressionReason.BOUNCED, LATER)
    assert lift(database) == "complained"


def test_erasing_hides_nothing(database: Engine) -> None:
    add(database, SuppressionReason.UNSUBSCRIBED)
    add(database, SuppressionReason.MANUAL)
    assert add(database, SuppressionReason.ERASED) == 1
    assert kept(database) == [("erased", NOW, None)]
    with pytest.raises(LiftError, match="erased"):
        lift(database)


def test_nothing_is_lifted_where_nothing_is(database: Engine) -> None:
    with pytest.raises(LiftError, match="no longer suppressed"):
        lift(database)
