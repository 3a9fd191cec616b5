"""What may be a password, and what is kept of it."""

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type

from newsletter.accounts import passwords
from newsletter.accounts.passwords import Passwords
from newsletter.errors import AccountError
from newsletter.settings.load import load

CHEAP = Passwords(memory=8, rounds=1)
GOOD = "correct horse battery staple"


def test_what_is_kept_is_argon2id_with_the_parameters_that_owasp_asks_for() -> None:
    console = load({}).console
    hashed = Passwords(memory=console.hash_memory, rounds=console.hash_rounds).hashed(GOOD)
    found = extract_parameters(hashed)
    assert found.type is Type.ID
    # OWASP's password storage cheat sheet: at least 19 MiB with two rounds.
    assert found.memory_cost >= 19 * 1024
    assert found.time_cost >= 2
    assert GOOD not in hashed


def test_only_the_password_fits_and_each_hash_has_its_salt() -> None:
    hashed = CHEAP.hashed(GOOD)
    assert hashed != CHEAP.hashed(GOOD)
    assert CHEAP.fits(hashed, GOOD)
    for wrong in ("", GOOD + " ", GOOD.upper(), GOOD[:-1], GOOD + "\0", "x" * 10**6):
        assert not CHEAP.fits(hashed, wrong)


def test_without_a_hash_nothing_fits() -> None:
    assert not CHEAP.fits("", "")
    assert not CHEAP.fits("", GOOD)
    assert not CHEAP.fits("no hash at all", GOOD)


def test_two_keyboards_spell_one_password() -> None:
    composed, decomposed = "passw\u00f6rter sind lang", "passwo\u0308rter sind lang"
    assert CHEAP.fits(CHEAP.hashed(composed), decomposed)


def test_other_parameters_make_a_hash_outdated() -> None:
    hashed = CHEAP.hashed(GOOD)
    assert not CHEAP.outdated(hashed)
    assert Passwords(memory=16, rounds=1).outdated(hashed)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "12 characters"),
        ("elevenchars", "12 characters"),
        ("x" * 201, "at most 200"),
        ("aaaaaaaaaaaaaaaa", "easy to guess"),
        ("abcabcabcabcabc", "easy to guess"),
        ("passpasspasspass", "easy to guess"),
        ("abcdefghijklmnop", "easy to guess"),
        ("zyxwvutsrqponmlk", "easy to guess"),
        ("alice.wonderland", "easy to guess"),
        ("Alice.Wonderland@Example.org", "easy to guess"),
    ],
)
def test_what_is_easy_to_guess_is_no_password(password: str, why: str) -> None:
    with pytest.raises(AccountError, match=why):
        passwords.check(password, email="alice.wonderland@example.org")


def test_length_counts_and_kinds_of_signs_do_not() -> None:
    for password in (GOOD, "x1y2z3x1y2z4", "пароль из слов"):
        passwords.check(password, email="alice@example.org", again=password)
    with pytest.raises(AccountError, match="differ"):
        passwords.check(GOOD, email="alice@example.org", again=GOOD + "x")


def test_generated_passwords_are_long_and_never_the_same() -> None:
    made = {passwords.generated() for _ in range(100)}
    assert len(made) == 100
    for one in made:
        passwords.check(one, email="alice@example.org")
        assert len(one.replace("-", "")) == 20
