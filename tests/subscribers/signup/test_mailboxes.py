"""Which addresses fill one inbox: what limits count together, and what they do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subscribers.email_address import parse
from subscribers.signup.mailboxes import SHARED, mailbox_of, private_domain_of


@pytest.mark.parametrize(
    "spellings",
    [
        "ada@gmail.com a.d.a@gmail.com ada+x@gmail.com A.da+y+z@googlemail.com",
        "ada@outlook.com ada+x@outlook.com",
        "ada@hotmail.co.uk ada+x@hotmail.co.uk",
        "ada@fastmail.com ada+x@fastmail.com anything@ada.fastmail.com",
        "ada@proton.me ada+x@proton.me a.da@protonmail.com a-d_a@pm.me",
        "ada@icloud.com ada+x@me.com ada@mac.com",
        "ada@yahoo.com ada-x@yahoo.com ada+x@yahoo.com",
        "ada@yahoo.co.uk ada-x@yahoo.co.uk",
        "ada@example.org ada+x@example.org ADA+Y@example.org",
    ],
)
def test_spellings_of_one_mailbox_count_together(spellings: str) -> None:
    assert len({mailbox_of(parse(one)) for one in spellings.split()}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.da@example.org", "ada@example.org"),
        ("a.da@outlook.com", "ada@outlook.com"),
        ("ada-x@gmail.com", "ada@gmail.com"),
        ("ada-x@example.org", "ada@example.org"),
        ("ada@yahoo.com", "ada@yahoo.de"),
        ("ada@gmail.com", "ada@gmail.com.example"),
        ("+x@example.org", "+y@example.org"),
    ],
)
def test_two_people_are_not_taken_for_one(one: str, other: str) -> None:
    assert mailbox_of(parse(one)) != mailbox_of(parse(other))


@given(
    st.from_regex(r"[a-z][a-z0-9.+_-]{0,20}[a-z0-9]", fullmatch=True),
    st.sampled_from(sorted(SHARED)),
)
def test_what_is_folded_stays_so(local: str, domain: str) -> None:
    if ".." in local:
        return
    folded = mailbox_of(parse(f"{local}@{domain}"))
    assert mailbox_of(parse(folded)) == folded
    assert folded.partition("@")[0]


@pytest.mark.parametrize(
    ("email", "house"),
    [
        ("a@example.org", "example.org"),
        ("a@x.y.example.org", "example.org"),
        ("a@mail.example.co.uk", "example.co.uk"),
        ("a@b.example.com.au", "example.com.au"),
        ("a@gmail.com", None),
        ("a@googlemail.com", None),
        ("a@yahoo.fr", None),
    ],
)
def test_a_house_is_all_that_its_owner_may_name(email: str, house: str | None) -> None:
    assert private_domain_of(parse(email)) == house
