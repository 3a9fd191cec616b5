"""How often somebody may try to get in, and when they may again."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from newsletter.accounts import sign_in_throttle
from newsletter.db.engine import transaction
from tests.conftest import NOW

SECRET = b"a test's key"
#: A limit opens at most a quarter of its window late.
OPEN_AGAIN = sign_in_throttle.WINDOW * 5 / 4

Try = Callable[..., bool]


@pytest.fixture
def attempt(database: Engine) -> Try:
    """One try to sign in: ten for a pair, twenty for a network."""

    def once(account: str, network: str, after: timedelta = timedelta()) -> bool:
        with transaction(database) as session:
            return sign_in_throttle.may_try(
                session,
                SECRET,
                account=account,
                network=network,
                per_account=10,
                per_network=20,
                now=NOW + after,
            )

    return once


def test_one_network_is_stopped_at_one_account_and_others_are_not(attempt: Try) -> None:
    assert [attempt("alice", "192.0.2.1") for _ in range(12)] == [True] * 10 + [False] * 2
    assert attempt("alice", "192.0.2.2")
    assert attempt("bob", "192.0.2.1")


def test_one_network_is_stopped_at_all_accounts(attempt: Try) -> None:
    tries = [attempt(f"user{number}", "192.0.2.1") for number in range(25)]
    assert tries == [True] * 20 + [False] * 5
    assert attempt("user0", "192.0.2.2")


def test_all_networks_together_are_stopped_at_one_account(attempt: Try) -> None:
    tries = [attempt("alice", f"198.51.100.{number}") for number in range(105)]
    assert tries == [True] * 100 + [False] * 5
    assert attempt("bob", "198.51.100.1")


def test_who_goes_on_from_one_network_locks_nobody_out_elsewhere(attempt: Try) -> None:
    for _ in range(105):
        attempt("alice", "192.0.2.1")
    for number in range(20):
        attempt(f"user{number}", "192.0.2.2")
    for _ in range(105):
        attempt("alice", "192.0.2.2")
    assert attempt("alice", "192.0.2.3")


def test_a_home_with_many_addresses_is_one_network(attempt: Try) -> None:
    tries = [attempt("alice", f"2001:db8:1:2::{number:x}") for number in range(1, 12)]
    assert tries == [True] * 10 + [False]
    assert attempt("alice", "2001:db8:1:3::1")


def test_the_window_slides_and_refused_tries_do_not_lengthen_it(attempt: Try) -> None:
    for _ in range(10):
        assert attempt("alice", "192.0.2.1")
    for minutes in range(1, 15):
        assert not attempt("alice", "192.0.2.1", timedelta(minutes=minutes))
    assert attempt("alice", "192.0.2.1", OPEN_AGAIN)


def test_no_stretch_of_a_windows_length_sees_more_than_the_limit(attempt: Try) -> None:
    taken = [
        at
        for seconds in range(0, 4 * 900, 20)
        if attempt("alice", "192.0.2.1", at := timedelta(seconds=seconds))
    ]
    for first in taken:
        assert sum(first <= at < first + sign_in_throttle.WINDOW for at in taken) <= 10
    assert len(taken) > 20


def test_codes_are_limited_by_the_quarter_hour_and_by_the_day(database: Engine) -> None:
    def code(user: int, after: timedelta) -> bool:
        with transaction(database) as session:
            return sign_in_throttle.may_try_code(session, SECRET, user_id=user, now=NOW + after)

    first = [code(1, timedelta()) for _ in range(11)]
    assert first == [True] * 10 + [False]
    later = [code(1, OPEN_AGAIN * round_) for round_ in range(1, 9) for _ in range(10)]
    assert sum(later) == 20
    assert code(2, timedelta())
    assert code(1, timedelta(days=1) * 5 / 4 + OPEN_AGAIN * 2)


def test_mails_with_links_are_limited_by_account_and_by_network(database: Engine) -> None:
    with transaction(database) as session:
        mails = [
            sign_in_throttle.may_get_mail(session, SECRET, account="alice", now=NOW)
            for _ in range(4)
        ]
        assert mails == [True] * 3 + [False]
        assert sign_in_throttle.may_get_mail(session, SECRET, account="bob", now=NOW)
        hour = timedelta(hours=1) * 5 / 4
        assert sign_in_throttle.may_get_mail(session, SECRET, account="alice", now=NOW + hour)
        asked = [
            sign_in_throttle.may_ask_for_mail(
                session, SECRET, network="192.0.2.1", per_network=5, now=NOW
            )
            for _ in range(6)
        ]
        assert asked == [True] * 5 + [False]
