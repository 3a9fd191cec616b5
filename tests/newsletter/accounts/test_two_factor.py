"""The second factor: each code once, also of two who bring it at the same moment."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pyotp
import pytest
from sqlalchemy import Engine, select

from newsletter.accounts import two_factor
from newsletter.accounts.models import RecoveryCode
from newsletter.db.engine import reading, transaction
from newsletter.db.orm import Session, table_of
from newsletter.errors import AccountError
from tests.conftest import NOW
from tests.newsletter.accounts.conftest import AddUser

STEP = timedelta(seconds=30)


@pytest.fixture
def alice(add_user: AddUser) -> int:
    return add_user("alice@example.org")


def set_up(database: Engine, user: int) -> tuple[pyotp.TOTP, list[str]]:
    """An app in force, and the codes for paper."""
    with transaction(database) as session:
        app = pyotp.TOTP(two_factor.begin(session, user))
    with transaction(database) as session:
        codes = two_factor.prove(session, user, app.at(NOW), now=NOW)
    assert codes is not None
    return app, list(codes)


def check(database: Engine, user: int, code: str, *, after: timedelta) -> bool:
    with transaction(database) as session:
        return two_factor.check(session, user, code, now=NOW + after)


def wins(database: Engine, attempt: Callable[[Session], bool], people: int = 6) -> int:
    """How many of so many who try at once get in."""
    together, results = threading.Barrier(people), []

    def run() -> None:
        together.wait()
        with transaction(database) as session:
            results.append(attempt(session))

    threads = [threading.Thread(target=run) for _ in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == people
    return sum(results)


def test_an_app_is_in_force_only_once_a_code_proved_it(database: Engine, alice: int) -> None:
    with transaction(database) as session:
        secret = two_factor.begin(session, alice)
        assert not two_factor.has(session, alice)
        assert two_factor.pending(session, alice) == secret
        assert two_factor.prove(session, alice, "000000x", now=NOW) is None
        assert not two_factor.check(session, alice, pyotp.TOTP(secret).at(NOW), now=NOW)
        codes = two_factor.prove(session, alice, pyotp.TOTP(secret).at(NOW), now=NOW)
        assert codes is not None
        assert len(set(codes)) == 10
        assert two_factor.has(session, alice)
        assert two_factor.since(session, alice) == NOW
        assert two_factor.pending(session, alice) == ""
        assert two_factor.prove(session, alice, pyotp.TOTP(secret).at(NOW), now=NOW) is None


def test_the_old_app_stays_in_force_until_the_new_one_is_proved(
    database: Engine, alice: int
) -> None:
    old, _ = set_up(database, alice)
    with transaction(database) as session:
        new = pyotp.TOTP(two_factor.begin(session, alice))
    assert not check(database, alice, new.at(NOW + STEP), after=STEP)
    assert check(database, alice, old.at(NOW + STEP), after=STEP)
    with transaction(database) as session:
        assert two_factor.prove(session, alice, new.at(NOW + 2 * STEP), now=NOW + 2 * STEP)
    assert not check(database, alice, old.at(NOW + 3 * STEP), after=3 * STEP)
    assert check(database, alice, new.at(NOW + 3 * STEP), after=3 * STEP)


def test_a_code_works_once_and_none_before_it_works_afterwards(
    database: Engine, alice: int
) -> None:
    app, _ = set_up(database, alice)
    # The code that proved the app is used up by that.
    assert not check(database, alice, app.at(NOW), after=timedelta())
    code = app.at(NOW + 2 * STEP)
    assert check(database, alice, f" {code[:3]} {code[3:]} ", after=2 * STEP)
    assert not check(database, alice, code, after=2 * STEP)
    assert not check(database, alice, app.at(NOW + STEP), after=2 * STEP)
    assert check(database, alice, app.at(NOW + 3 * STEP), after=2 * STEP)


def test_a_clock_may_be_off_by_one_step_and_no_more(database: Engine, alice: int) -> None:
    app, _ = set_up(database, alice)
    at = 10 * STEP
    assert not check(database, alice, app.at(NOW + at - 2 * STEP), after=at)
    assert not check(database, alice, app.at(NOW + at + 2 * STEP), after=at)
    assert check(database, alice, app.at(NOW + at - STEP), after=at)
    assert check(database, alice, app.at(NOW + at + STEP), after=at)


@pytest.mark.parametrize("code", ["", " ", "0", "１２３４５６", "\udcff", "x" * 10_000, "\0"])
def test_what_is_no_code_lets_nobody_in(database: Engine, alice: int, code: str) -> None:
    set_up(database, alice)
    with transaction(database) as session:
        assert not two_factor.check(session, alice, code, now=NOW + STEP)
        assert not two_factor.use_recovery_code(session, alice, code, now=NOW + STEP)


def test_of_many_who_bring_one_code_at_once_one_gets_in(database: Engine, alice: int) -> None:
    app, codes = set_up(database, alice)
    code, now = app.at(NOW + STEP), NOW + STEP
    assert wins(database, lambda session: two_factor.check(session, alice, code, now=now)) == 1
    paper = codes[0]
    assert (
        wins(database, lambda session: two_factor.use_recovery_code(session, alice, paper, now=now))
        == 1
    )


def test_a_recovery_code_works_once_for_its_owner_however_it_is_typed(
    database: Engine, add_user: AddUser, alice: int
) -> None:
    bob = add_user("bob@example.org")
    _, codes = set_up(database, alice)
    set_up(database, bob)
    with transaction(database) as session:
        assert not two_factor.use_recovery_code(session, bob, codes[0], now=NOW)
        typed = f" {codes[0].upper().replace('-', '')} "
        assert two_factor.use_recovery_code(session, alice, typed, now=NOW)
        assert not two_factor.use_recovery_code(session, alice, codes[0], now=NOW)
        assert two_factor.recovery_codes_left(session, alice) == 9
    table = table_of(RecoveryCode)
    with reading(database) as session:
        kept = session.scalars(select(table.c.code)).all()
    assert not any(code.replace("-", "").encode() in bytes(row) for code in codes for row in kept)


def test_new_recovery_codes_replace_the_old_ones(database: Engine, alice: int) -> None:
    with (
        transaction(database) as session,
        pytest.raises(AccountError, match="set up an authenticator app before"),
    ):
        two_factor.new_recovery_codes(session, alice)
    _, old = set_up(database, alice)
    with transaction(database) as session:
        new = two_factor.new_recovery_codes(session, alice)
        assert not set(new) & set(old)
        assert not two_factor.use_recovery_code(session, alice, old[0], now=NOW)
        assert two_factor.use_recovery_code(session, alice, new[0], now=NOW)


def test_nothing_is_left_of_an_app_that_was_reset(database: Engine, alice: int) -> None:
    app, codes = set_up(database, alice)
    with transaction(database) as session:
        two_factor.reset(session, alice)
        assert not two_factor.has(session, alice)
        assert two_factor.recovery_codes_left(session, alice) == 0
        assert not two_factor.check(session, alice, app.at(NOW + STEP), now=NOW + STEP)
        assert not two_factor.use_recovery_code(session, alice, codes[0], now=NOW)


def test_the_address_for_the_app_names_both() -> None:
    uri = two_factor.uri(
        pyotp.random_base32(), email="a+b@example.org", issuer="Paper: news & more"
    )
    assert pyotp.parse_uri(uri).name == "a+b@example.org"
    assert pyotp.parse_uri(uri).issuer == "Paper  news & more"
