"""Notes to oneself, old years, attachments, shortened links and phrases of spam."""

import pytest

from tests.conftest import NOW
from tests.newsletter.checking.conftest import Look, changed


@pytest.mark.parametrize(
    "body",
    [
        "The rate is TK percent.",
        "TODO: ask Ada",
        "Starts at TBD",
        "[insert picture]",
        "[Your name here]",
        "lorem ipsum dolor",
        "© 2019 Paper",
        "Copyright 2010-2019",
    ],
)
def test_what_is_unfinished_is_found_at_its_line(look: Look, body: str) -> None:
    (found,) = look("unfinished", f"One.\n\nTwo,\n{body.replace('[Your', '[your')}\n")
    assert found.line == 8
    assert found.hint


@pytest.mark.parametrize(
    "body",
    [
        "Tickets and totals",
        "`TODO`",
        "[add it](https://example.com)",
        f"© {NOW.year} Paper",
        "In 2019 we began.",
    ],
)
def test_what_is_finished_is_left_alone(look: Look, body: str) -> None:
    assert not look("unfinished", body)


def test_a_note_in_the_subject_is_found_at_its_key(look: Look) -> None:
    (found,) = look("unfinished", "One.", subject="TODO find a subject")
    assert found.line == 2


@pytest.mark.parametrize(
    "body", ["Please find attached the plan.", "See the attachment.", "Der Plan ist im Anhang."]
)
def test_a_promised_attachment_is_found(look: Look, body: str) -> None:
    (found,) = look("attachment", body)
    assert (found.line, "attachments" in found.message) == (5, True)
    assert not look("attachment", "We are attached to it. An attachment theory.")


def test_a_shortened_link_is_found(look: Look) -> None:
    body = "[a](https://bit.ly/abc) and [b](https://www.t.co/x) and [c](https://orbit.ly/abc)"
    assert [one.message.split()[0] for one in look("shorteners", body)] == ["bit.ly", "t.co"]
    assert not look("shorteners", body, rules=changed("shorteners", hosts=[]))


def test_phrases_of_spam_are_found_in_subject_and_text(look: Look) -> None:
    found = look("spam_phrases", "Just\nclick here.", subject="Act NOW!! to be a Winner")
    assert sorted((one.line, one.message.split("”")[0].strip("“")) for one in found) == [
        (2, "Act NOW"),
        (2, "Winner"),
        (2, "the subject has several exclamation marks"),
        (6, "click here"),
    ]
    assert not look("spam_phrases", "The winners clicked here-after", subject="Sinner, beginner")


def test_a_subject_in_capitals_is_found(look: Look) -> None:
    (found,) = look("spam_phrases", "One.", subject="READ THIS TODAY")
    assert "capitals" in found.message
    assert not look("spam_phrases", "One.", subject="NASA")
