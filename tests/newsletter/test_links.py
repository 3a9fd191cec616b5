"""Tokens in links: nobody makes or bends one, and rotation breaks none."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.errors import LinkError
from newsletter.links import Links, Purpose

OLD, NEW = "old key " * 4, "new key " * 4
NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)


@given(st.lists(NUMBERS, max_size=4))
def test_a_token_gives_back_its_numbers(numbers: list[int]) -> None:
    links = Links([NEW])
    token = links.token(Purpose.RECIPIENT, *numbers)
    assert links.read(token, Purpose.RECIPIENT).numbers == tuple(numbers)


def test_a_token_needs_no_escaping_in_a_link() -> None:
    token = Links([NEW]).token(Purpose.RECIPIENT, 1_000_000, 365)
    assert len(token) <= 32
    assert token.replace("-", "").replace("_", "").isalnum()


def test_links_in_sent_mails_work_after_the_keys_rotate() -> None:
    token = Links([OLD]).token(Purpose.RECIPIENT, 7, 3)
    assert Links([NEW, OLD]).read(token, Purpose.RECIPIENT).numbers == (7, 3)


def test_links_of_a_key_no_longer_kept_are_refused() -> None:
    with pytest.raises(LinkError, match="not valid"):
        Links([NEW]).read(Links([OLD]).token(Purpose.RECIPIENT, 7, 3), Purpose.RECIPIENT)


@given(position=st.integers(min_value=0, max_value=30), character=st.sampled_from("AZaz09-_"))
def test_a_changed_character_is_refused(position: int, character: str) -> None:
    links = Links([NEW])
    token = links.token(Purpose.RECIPIENT, 1_000_000, 365)
    position %= len(token)
    bent = token[:position] + character + token[position + 1 :]
    if bent != token:
        with pytest.raises(LinkError):
            links.read(bent, Purpose.RECIPIENT)


@given(st.text(max_size=60))
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(LinkError):
        Links([NEW]).read(text, Purpose.RECIPIENT)


def test_an_expired_token_says_so() -> None:
    links = Links([NEW])
    now = datetime(2026, 3, 27, tzinfo=UTC)
    token = links.token(Purpose.RECIPIENT, 1, expires=now + timedelta(days=1))
    assert links.read(token, Purpose.RECIPIENT, now=now).numbers == (1,)
    with pytest.raises(LinkError, match="expired"):
        links.read(token, Purpose.RECIPIENT, now=now + timedelta(days=2))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(LinkError, match="shorter than 32"):
        Links(["short"])
